#!/usr/bin/env bash
# Tests the API of a running deployment against its OpenAPI document with Schemathesis (from PyPI): no answer may be a 500 or
# missing from the document. After `. .local/env`:
#
#   tests/clients/schemathesis.sh            as the demo user
#   TOKEN=... tests/clients/schemathesis.sh  as someone else, such as an admin
#
# If Schemathesis cannot be installed, the script prints SKIPPED and ends with status 0.
set -euo pipefail

: "${GATEWAY_URL:?expected GATEWAY_URL: start deploy/local.sh, then: . .local/env}"
token=${TOKEN:-${DEMO_TOKEN:?expected TOKEN or DEMO_TOKEN}}
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/schemathesis

if [ ! -x "$venv/bin/schemathesis" ]; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet schemathesis==4.32.5; } >"$target/schemathesis.log" 2>&1; then
        rm -rf "$venv"
        echo "SKIPPED: schemathesis cannot be installed here; see $target/schemathesis.log"
        exit 0
    fi
fi

# Schemathesis writes its findings into the current directory.
cd "$target"
# One worker: Python before 3.12 fails occasionally when two threads parse source code at once, as the generators of
# Schemathesis do ("AST constructor recursion depth mismatch"). The stream of events never ends, so it is left out. Logging
# out is left out, because it would end the session of a token that belongs to a session.
exec "$venv/bin/schemathesis" run "$GATEWAY_URL/api/openapi.json" --url "$GATEWAY_URL" \
    --header "Authorization: Bearer $token" --exclude-path /api/events --exclude-path /api/auth/logout \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --max-examples "${EXAMPLES:-25}" --workers 1 --request-timeout 20
