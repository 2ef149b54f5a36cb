# The check `chart` of deploy/check-packages.sh: lint, rendering with each values file in deploy/chart/ci, strict validation.
# shellcheck shell=bash disable=SC2154

check_chart() {
    if ! need_python helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 jsonschema pyyaml; then
        skip "chart: helm-python-sdk and kubernetes-validate cannot be fetched" && return 0
    fi
    # Shows its own checks, one a line.
    if "$python/python" "$root/deploy/checks/chart.py" "$root/deploy/chart" "$root/deploy/checks/schemas"; then pass "chart"; else
        fail "chart"
    fi
}
