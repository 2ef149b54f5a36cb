#!/usr/bin/env bash
# Checks the packages in deploy/: images, compose file, chart, systemd units, Debian packages. A check whose tools are missing and
# cannot be fetched is reported as SKIPPED; a failed check ends the script with status 1.
#
#   deploy/check-packages.sh [CHECK]...     all checks, or some of: containers compose chart units debian
#
# Settings, from the environment:
#   PROGRAMS   the directory with static programs (gateway, recorder, stand-in-llm) for `containers` and `compose`.
#              Default: target/x86_64-unknown-linux-musl/release
#   PACKAGES   the directory with packages for `debian`, as deploy/release.sh makes them
#   WORK       the directory for images and other temporary files, removed at the end; about 2 GB. Default: /var/tmp
#
# `containers` and `compose` need root and podman, and load no image from a registry: stand-ins for the images of NATS and PostgreSQL
# are made of the programs that deploy/local.sh tools finds. Networks are made for the check and removed.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
here=$root/.local
machine=$(uname -m)
programs=${PROGRAMS:-$root/target/$machine-unknown-linux-musl/release}
python=$here/check-packages/bin
work= failed=0 ran=0

step() { printf '==> %s\n' "$*"; }
pass() { printf 'ok: %s\n' "$*"; ran=$((ran + 1)); }
skip() { printf 'SKIPPED: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; failed=$((failed + 1)); }
die() {
    printf 'deploy/check-packages.sh: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# expect TEXT COMMAND...: passes or fails a check by the status of a command, whose output is shown if it fails.
expect() {
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then pass "$text"; else
        printf '%s\n' "$output" >&2
        fail "$text"
    fi
}

# need_python REQUIREMENT...: installs tools from the Python package index into .local/check-packages.
need_python() {
    [ -x "$python/pip" ] || python3 -m venv "$here/check-packages" 2>/dev/null || return 1
    "$python/pip" install --quiet --disable-pip-version-check "$@" >/dev/null 2>&1
}

need_work() { [ -n "$work" ] || work=$(mktemp -d "${WORK:-/var/tmp}/check-packages.XXXXXX"); }

clean_up() {
    local status=$?
    trap - EXIT
    if declare -F stop_containers >/dev/null; then stop_containers || true; fi
    [ -z "$work" ] || rm -rf --one-file-system "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# shellcheck source=deploy/tools.sh
. "$root/deploy/tools.sh"
for name in containers compose chart units debian; do
    # shellcheck source=/dev/null
    . "$root/deploy/checks/$name.sh"
done

checks=("$@")
[ "$#" -gt 0 ] || checks=(containers compose chart units debian)
for check in "${checks[@]}"; do
    case $check in
        containers | compose | chart | units | debian) ;;
        *) die "there is no check $check" ;;
    esac
    step "$check"
    "check_$check"
done
printf '%s checks passed, %s failed\n' "$ran" "$failed"
[ "$failed" = 0 ]
