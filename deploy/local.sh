#!/usr/bin/env bash
# Runs a private deployment on one machine: nats-server, PostgreSQL, the recorder, the gateway and, without a key for a real
# provider, a stand-in LLM. All files are in .local/ of the checkout, and all services listen on 127.0.0.1 only.
#
# This script fetches the missing tools and builds the programs. The program `local` (tests/harness/src/bin/local) starts and
# stops the services, shows their state and logs, and resets the deployment.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: deploy/local.sh COMMAND

  up [-d] [--release]  build and start everything; Ctrl-C stops it. With -d, return when all is ready. With --release, build
                       optimised programs, as in production; the build takes several times as long
  down                 stop everything; the data stays
  status               show the running services and their addresses
  logs [NAME] [-f]     show the logs: gateway, api, recorder, llm, nats, postgres
  reset [--yes]        stop everything and delete its data, keys and logs
  test                 fetch missing tools and run all tests except those of the next two commands
  pages                fetch missing tools, including a browser, and test the web pages in the browser
  clients              compare the responses that real clients receive with the record; the clients are installed below
                       target/ with python3-venv, npm and curl
  tools                fetch missing tools (C compiler, nats-server, PostgreSQL), and do nothing else
  help                 this text

Settings, from the environment:
  LLM_API_KEY        the provider's key; without LLM_BASE_URL, the provider is OpenAI. Without both settings, a stand-in LLM
                     answers
  LLM_BASE_URL       any OpenAI-compatible server, up to and including /v1
  DEMO_MODEL         the model in the printed example
  NATS_SERVER        the nats-server program to use (2.10.25 or newer)
  NATS_SERVER_OLDEST a nats-server of exactly 2.10.25, for the tests of the oldest supported version
  PG_BIN             the directory of the PostgreSQL programs to use (15 or newer)
GATEWAY_* and RECORDER_* settings are passed to the services, except the settings that this script sets. With
GATEWAY_ROUTES_FILE, the routes name the providers, and the variables that hold the providers' keys are passed on too.
TEXT
}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
here=$root/.local
# The program `local` of the last build.
program=$here/bin/local

# The reader of the output may have gone; a failed write does not stop the command.
say() { printf '%s\n' "$*" || true; }
step() { printf '==> %s\n' "$*" || true; }
die() {
    printf 'deploy/local.sh: %s\n' "$*" >&2
    exit 1
}
wrong_usage() {
    printf 'deploy/local.sh: %s\n\n' "$1" >&2
    usage >&2
    exit 64
}

# shellcheck source=deploy/tools.sh
. "$root/deploy/tools.sh"

# build PROFILE: builds the programs of a deployment, and links to the built `local`, as the user can choose cargo's directory.
build() {
    local selection=(-p gateway -p recorder -p harness --locked) profile=$1 built
    # Without the Parquet export of the recorder, which takes a tenth of the time of a first build.
    if [ "$profile" = local ]; then selection+=(--no-default-features); fi
    step "building (the first time takes some minutes)"
    # On a terminal cargo shows its own progress.
    if [ -t 2 ]; then exec 7>&2; else exec 7> >(count_crates "${selection[@]}" >&2); fi
    built=$(cd "$root" && cargo build "${selection[@]}" --bins --profile "$profile" --message-format=json-render-diagnostics 2>&7 |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/local$') || die "the build failed"
    exec 7>&-
    mkdir -p "$here/bin"
    ln -sfn "$built" "$program"
}

# count_crates SELECTION...: replaces cargo's line for each crate by a line for every 25 compiled crates.
count_crates() {
    local all
    all=$(cd "$root" && cargo tree "$@" --prefix none --edges normal,build 2>/dev/null | cut -d ' ' -f 1,2 | sort -u | wc -l)
    awk -v all="$all" '$1 == "Downloaded" || /lock on package cache/ { next } $1 != "Compiling" { print; fflush(); next }
        ++done % 25 == 0 { print "    compiled " done " of about " all " crates"; fflush() }'
}

up() {
    local profile=local option
    for option in "$@"; do
        case $option in
            -d) ;;
            --release) profile=release ;;
            *) wrong_usage "up has no option $option" ;;
        esac
    done
    need_owner
    # If all services are ready already, nothing is built.
    if [ -x "$program" ] && "$program" --directory "$here" status >/dev/null 2>&1; then
        exec "$program" --directory "$here" up "$@"
    fi
    need_tools
    build "$profile"
    NATS_SERVER=$nats_server PG_BIN=$pg_bin exec "$program" --directory "$here" up "$@"
}

# Runs a command of the built program `local`. Builds the program only if a deployment exists and the program is missing.
without_build() {
    need_owner
    if [ ! -x "$program" ]; then
        if [ ! -e "$here/run" ] && [ ! -e "$here/data" ]; then
            case $1 in
                down) say "Nothing is running." ;;
                status) printf '%-9s stopped\n' gateway api recorder nats postgres; exit 3 ;;
                logs) die "there is no log yet: deploy/local.sh up starts everything" ;;
                reset) say "Deleted." ;;
            esac
            return
        fi
        # The deployment was started by an older checkout, or the build directory was deleted.
        need_tools
        build local
    fi
    exec "$program" --directory "$here" "$@"
}

run_tests() {
    need_test_tools
    cd "$root"
    export NATS_SERVER=$nats_server PG_BIN=$pg_bin ${NATS_SERVER_OLDEST:+NATS_SERVER_OLDEST}
    say "Not included: the tests in a browser (deploy/local.sh pages) and with real clients (deploy/local.sh clients)."
    cargo build --locked --workspace --bins
    exec cargo test --locked --workspace --no-fail-fast
}

test_pages() {
    need_tools
    if ! have chromedriver || ! { have chromium || have chromium-browser || have google-chrome; }; then
        # Ubuntu has chromium only as a snap.
        if ! apt-cache show chromium-driver >/dev/null 2>&1 && have snap; then
            die "a browser to test with is missing: as root, run: snap install chromium, and put chromium.chromedriver on the PATH as chromedriver"
        fi
        need_packages "a browser to test with" chromium chromium-driver
    fi
    cd "$root"
    export NATS_SERVER=$nats_server PG_BIN=$pg_bin BROWSER_TESTS=required
    # The whole workspace, as for `test`: another selection of packages would build all dependencies again.
    cargo build --locked --workspace --bins
    exec cargo test --locked --workspace --test browser
}

test_clients() {
    need_tools
    export NATS_SERVER=$nats_server PG_BIN=$pg_bin
    exec "$root/tests/clients/run.sh"
}

command=${1:-}
[ "$#" = 0 ] || shift
case $command in
    up) up "$@" ;;
    logs | reset) without_build "$command" "$@" ;;
    down | status | test | pages | clients | tools | help | -h | --help)
        [ "$#" = 0 ] || wrong_usage "$command takes no arguments"
        case $command in
            test) run_tests ;;
            pages) test_pages ;;
            clients) test_clients ;;
            tools) need_test_tools ;;
            help | -h | --help) usage ;;
            *) without_build "$command" ;;
        esac
        ;;
    '') wrong_usage "a command is missing" ;;
    *) wrong_usage "there is no command $command" ;;
esac
