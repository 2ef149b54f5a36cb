#!/usr/bin/env bash
# Reads docs/schema/asyncapi.json with AsyncAPI's own parser (from npm). An error or a warning of the parser is a failure.
# The exit status is 77 if the parser cannot be installed.
set -euo pipefail

if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 18 ? 1 : 0)' 2>/dev/null; then
    echo "skipped: there is no Node.js 18 or newer here" >&2
    exit 77
fi
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
place=$root/target/asyncapi
if [ ! -d "$place/node_modules/@asyncapi/parser" ]; then
    if ! npm install --silent --no-audit --no-fund --prefix "$place" @asyncapi/parser@3.6.6 >"$root/target/asyncapi.log" 2>&1; then
        rm -rf "$place"
        echo "skipped: @asyncapi/parser cannot be installed here; see target/asyncapi.log" >&2
        exit 77
    fi
fi
exec node "$root/tests/clients/asyncapi.mjs" "$place" "$root/docs/schema/asyncapi.json"
