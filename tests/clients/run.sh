#!/usr/bin/env bash
# Runs real, unmodified clients against a real gateway: streams, whole answers, tool calls, errors, aborts and retries. The
# responses that each client received are compared with the record. Installs the clients in the versions of requirements.txt
# and package-lock.json into target/clients/, and starts and stops all needed services.
#
# A client that cannot be installed is reported as SKIPPED. Fails if the record differs from the responses that an installed
# client received. `deploy/local.sh clients` fetches nats-server and PostgreSQL first and then runs this script.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
here=$root/tests/clients
target=${CARGO_TARGET_DIR:-$root/target}
clients=$target/clients
skipped=()
mkdir -p "$clients/node"

# installed FILE STAMP: succeeds if the packages that FILE lists are installed, which STAMP, a copy of FILE, records.
installed() { [ -e "$2" ] && cmp --silent "$1" "$2"; }

if ! installed "$here/requirements.txt" "$clients/python/installed"; then
    echo "==> installing Python clients"
    rm -rf "$clients/python"
    if python3 -m venv "$clients/python" &&
        "$clients/python/bin/python" -m pip --disable-pip-version-check install --quiet --requirement "$here/requirements.txt"; then
        cp "$here/requirements.txt" "$clients/python/installed"
    else
        skipped+=(openai-python azure-python anthropic-python google-python langchain-python pydantic-ai-python llm-python)
    fi
fi >"$clients/python.log" 2>&1

if ! installed "$here/package-lock.json" "$clients/node/installed"; then
    cp "$here/package.json" "$here/package-lock.json" "$clients/node/"
    if (cd "$clients/node" && npm ci --silent --no-audit --no-fund && ./node_modules/.bin/node --version); then
        cp "$here/package-lock.json" "$clients/node/installed"
    else
        skipped+=(openai-node ai-sdk-4 ai-sdk-7 use-chat)
    fi
fi >"$clients/node.log" 2>&1

{ command -v curl && command -v python3; } >/dev/null || skipped+=(curl)
for client in ${skipped[@]+"${skipped[@]}"}; do
    echo "SKIPPED: $client cannot be installed here; see $clients/*.log"
done

cd "$root"
cargo build --locked --workspace --bins
CLIENTS_DIR=$clients CLIENTS_SKIPPED="${skipped[*]-}" \
    exec cargo test --locked --workspace --test clients -- --include-ignored --nocapture --test-threads=1
