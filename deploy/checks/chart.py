"""Checks deploy/chart: lints the chart, renders it with each values file in ci/, validates every object strictly for each supported
version of Kubernetes, and checks what the documentation says of the objects. Needs helm-python-sdk, kubernetes-validate, jsonschema.

Usage: chart.py CHART SCHEMAS
"""

import json
import pathlib
import re
import sys

import helm_python
import jsonschema
import kubernetes_validate
import yaml

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
# Values that the schema has to refuse, with the place that the error names.
REFUSED = {
    "a lag threshold below what recorders hold": {"autoscaling": {"enabled": True, "lagThreshold": 20000}},
    "a password in the broker's URL": {"nats": {"url": "nats://user:secret@nats:4222"}},
    "a secret among the settings": {"gateway": {"settings": {"LLM_API_KEY": "sk-1"}}},
    "an unknown value": {"gateways": {}},
    "a misspelt value": {"gateway": {"replica": 2}},
    "an unknown kind of credentials": {"nats": {"credentials": {"kind": "jwt"}}},
}
failed = 0


def check(condition, text):
    global failed
    print(f"{'ok' if condition else 'FAILED'}: {text}", file=sys.stdout if condition else sys.stderr)
    failed += not condition


def objects(rendered):
    for path, text in rendered.items():
        if path.endswith(".txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                yield path, document


def schema_of(schemas, document):
    group = document["apiVersion"].split("/")[0]
    path = schemas / f"{group}-{document['kind']}.json"
    return json.loads(path.read_text()) if path.exists() else None


def validate(schemas, document, version):
    own = schema_of(schemas, document)
    if own:
        jsonschema.validate(document, own)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def pod_of(document):
    template = document.get("spec", {}).get("template")
    return template["spec"] if isinstance(template, dict) else None


def check_confined(name, document):
    """Every pod: no root, a root file system that cannot be written, no capabilities, no token, no secret in a variable."""
    pod = pod_of(document)
    containers = pod["containers"] + pod.get("initContainers", [])
    confined = (
        pod["securityContext"]["runAsNonRoot"]
        and pod["automountServiceAccountToken"] is False
        and all(
            c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            for c in containers
        )
    )
    mounted = {m["name"] for c in containers for m in c.get("volumeMounts", [])}
    available = {v["name"] for v in pod.get("volumes", [])} | {
        v["metadata"]["name"] for v in document["spec"].get("volumeClaimTemplates", [])
    }
    if not confined or mounted != available:
        check(False, f"{name}: {document['kind']} {document['metadata']['name']} is confined and mounts {mounted} of {available}")


def check_selectors(name, documents):
    """Every selector of a Service, a budget or a policy finds pods, and every named port exists."""
    pods = [d["spec"]["template"] for _, d in documents if pod_of(d)]
    for _, document in documents:
        spec = document.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        }.get(document["kind"], lambda: None)()
        if selector is None:
            continue
        found = [p for p in pods if selector.items() <= p["metadata"]["labels"].items()]
        names = {p["name"] for pod in found for c in pod["spec"]["containers"] for p in c.get("ports", [])}
        wanted = {p["targetPort"] for p in spec.get("ports", []) if document["kind"] == "Service"}
        wanted |= {p["port"] for rule in spec.get("ingress", []) for p in rule["ports"]} if document["kind"] == "NetworkPolicy" else set()
        if len(found) != 1 or not wanted <= names:
            check(False, f"{name}: {document['kind']} {document['metadata']['name']} selects {len(found)} kinds of pods, ports {wanted} of {names}")


def check_promises(name, documents):
    gateway = next(d for _, d in documents if d["kind"] == "StatefulSet")
    pod = pod_of(gateway)
    container = pod["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    grace = pod["terminationGracePeriodSeconds"]
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(env["GATEWAY_SHUTDOWN_DEADLINE"].removesuffix("s")) + 10
    check(grace > needed, f"{name}: a gateway gets {grace} s to stop, more than the {needed} s that it may need")
    claim = gateway["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    size = int(claim[:-2]) << {"Mi": 20, "Gi": 30, "Ti": 40}[claim[-2:]]
    check(size >= int(env["GATEWAY_JOURNAL_MAX_BYTES"]) * 1.1, f"{name}: the journal fits its volume of {claim}")
    job = next(d for _, d in documents if d["kind"] == "Job")
    hook = job["metadata"].get("annotations", {}).get("helm.sh/hook")
    check(hook in ("pre-install,pre-upgrade", None), f"{name}: the migration is {'a hook before the pods' if hook else 'a Job'}")
    duplicates = [
        (d["metadata"]["name"], n)
        for _, d in documents
        if pod_of(d)
        for c in pod_of(d)["containers"]
        for n in {e["name"] for e in c["env"]}
        if [e["name"] for e in c["env"]].count(n) > 1
    ]
    check(not duplicates, f"{name}: no variable is set twice {duplicates or ''}")
    text = json.dumps([d for _, d in documents])
    check(not re.search(r'"kind": "Secret"', text), f"{name}: the chart makes no Secret")


def main():
    chart_path, schemas = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    files = sorted((chart_path / "ci").glob("*-values.yaml"))
    for path in files:
        values = yaml.safe_load(path.read_text())
        report = helm_python.lint(str(chart_path), values, strict=True)
        # Informational findings, such as a missing icon, are no failure.
        findings = [m for m in report["messages"] if m["severity"] > 1] + report["errors"]
        check(not findings, f"{path.name}: lint {findings or ''}")
        with helm_python.Chart.load(str(chart_path)) as chart:
            chart.validate_schema(values)
            rendered = chart.render(values, name="test", namespace="chat", is_install=True)
        documents = list(objects(rendered))
        problems = []
        for version in VERSIONS:
            for template, document in documents:
                try:
                    validate(schemas, document, version)
                except Exception as error:
                    problems.append(f"{version} {template} {document['kind']}: {str(error).splitlines()[0]}")
        check(not problems, f"{path.name}: {len(documents)} objects are valid for {VERSIONS[0]} to {VERSIONS[-1]}")
        for problem in problems[:10]:
            print(f"  {problem}", file=sys.stderr)
        for _, document in documents:
            if pod_of(document):
                check_confined(path.name, document)
        check_selectors(path.name, documents)
        check_promises(path.name, documents)
    with helm_python.Chart.load(str(chart_path)) as chart:
        for text, values in REFUSED.items():
            try:
                chart.validate_schema(values)
                check(False, f"the schema refuses {text}")
            except helm_python.HelmValuesError:
                check(True, f"the schema refuses {text}")
        try:
            chart.render({}, name="test", namespace="chat", is_install=True)
            check(False, "a release without nats.url is refused")
        except helm_python.HelmError as error:
            check("nats.url is required" in str(error), "a release without nats.url is refused, and the error names the value")
    sys.exit(failed > 0)


main()
