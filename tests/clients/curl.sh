#!/usr/bin/env bash
# Unmodified curl. Prints one line of JSON for each case with the response that curl received, which tests/tests/clients
# compares with the record. Needs Python to read and write JSON.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# attempt CASE STREAM TOKEN OPTION...
attempt() {
    local name=$1 stream=$2 token=$3 code=0
    shift 3
    curl --silent --no-buffer --output "$work/body" --write-out '%{http_code}' "$@" "$GATEWAY_URL/v1/chat/completions" \
        -H 'content-type: application/json' -H "authorization: Bearer $token" -H "x-stenograph-tags: curl:$name" \
        -d "{\"model\":\"$name\",\"stream\":$stream,\"messages\":[{\"role\":\"user\",\"content\":\"How is the weather?\"}]}" \
        >"$work/status" || code=$?
    python3 - "$name" "$(<"$work/status")" "$code" "$work/body" <<'PYTHON'
import json, sys

name, status, code, body = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), open(sys.argv[4]).read()
text, calls, failed = "", {}, status >= 400 or code not in (0, 28)
for line in body.splitlines():
    data = line.removeprefix("data: ")
    if not data.startswith("{"):
        continue
    chunk = json.loads(data)
    failed = failed or "error" in chunk
    for choice in chunk.get("choices", []):
        said = choice.get("delta") or choice.get("message") or {}
        text += said.get("content") or ""
        for call in said.get("tool_calls") or []:
            known = calls.setdefault(call.get("index", 0), {"id": call.get("id"), "name": call["function"].get("name"), "arguments": ""})
            known["arguments"] += call["function"]["arguments"]
tools = [{**call, "arguments": json.loads(call["arguments"])} for call in calls.values()]
print(json.dumps({"client": "curl", "case": name, "text": text, "tools": tools, "failed": failed, "status": status if status >= 400 else None}))
PYTHON
}

attempt stream true "$TOKEN"
attempt whole false "$TOKEN"
attempt tools-stream true "$TOKEN"
attempt tools false "$TOKEN"
attempt unauthorized true "no-token"
attempt limited true "$TOKEN"
# curl waits a second between tries and ignores the delay that the response asks for.
attempt retried true "$TOKEN" --retry 2 --retry-delay 1
attempt error-in-stream true "$TOKEN"
attempt cut true "$TOKEN"
# curl aborts by its time limit of two seconds; the answer of this case never ends.
attempt abort true "$TOKEN" --max-time 2
