#!/usr/bin/env bash
# tests/clients/venv.sh NAME PACKAGE==VERSION...: prints the path of a Python that has these packages from PyPI, in
# target/NAME. If the packages cannot be installed, prints a message and ends with status 77, and the caller skips the test.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
name=$1
shift
venv=$root/target/$name
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$*" ]; then
    rm -rf "$venv"
    mkdir -p "$root/target"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "$@"; } >"$root/target/$name.log" 2>&1; then
        rm -rf "$venv"
        echo "skipped: $* cannot be installed here; see target/$name.log" >&2
        exit 77
    fi
    echo "$*" >"$venv/packages"
fi
echo "$venv/bin/python"
