#!/usr/bin/env bash
# A private deployment of everything on one machine: nats-server, PostgreSQL, the recorder, the gateway and, without a key for
# a real provider, a stand-in LLM. Everything lives in .local/ of the checkout and listens on 127.0.0.1 only.
#
# This script gets what has to be there before anything can be built, and builds. Starting, stopping, state, logs and reset are
# the program `local` (tests/harness/src/bin/local).
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: deploy/local.sh COMMAND

  up [-d] [--release]  build and start everything; Ctrl-C stops it. With -d, return when all is ready. With --release, build
                       fast programs, as in production: that takes several times as long
  down                 stop everything; the data stays
  status               what runs, and where
  logs [NAME] [-f]     show the logs: gateway, api, recorder, llm, nats, postgres
  reset [--yes]        stop everything and delete its data, keys and logs
  test                 get what is missing and run every test but those of the next two
  pages                get what is missing, a browser included, and test the web pages in it
  clients              compare what real clients see with the record: those that python3-venv, npm and curl can bring, below target/
  tools                get what is missing (C compiler, nats-server, PostgreSQL), and nothing else
  help                 this text

Settings, from the environment:
  LLM_API_KEY        the provider's key; alone, it is for OpenAI. Without this and LLM_BASE_URL, a stand-in LLM answers
  LLM_BASE_URL       any OpenAI-compatible server, up to and including /v1
  DEMO_MODEL         the model in the example that is printed
  NATS_SERVER        the nats-server program to use (2.10.25 or newer)
  NATS_SERVER_OLDEST another, of 2.10.25 exactly, for the tests of how the oldest one behaves
  PG_BIN             the directory of the PostgreSQL programs to use (15 or newer)
GATEWAY_* and RECORDER_* settings are passed on, except those that are set here. With GATEWAY_ROUTES_FILE, the routes say
who answers, and the variables that they take their keys from are passed on too.
TEXT
}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
here=$root/.local
# The program `local` of the last build.
program=$here/bin/local

# Nobody may be reading any more; what is being done is done all the same.
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

# build PROFILE: builds everything that is started, and links to `local` where cargo has put it: that is the user's to choose.
build() {
    local selection=(-p gateway -p recorder -p harness --locked) profile=$1 built
    # The recorder's Parquet export is a tenth of a first build.
    if [ "$profile" = local ]; then selection+=(--no-default-features); fi
    step "building (the first time takes some minutes)"
    # On a terminal cargo shows by itself how far it is.
    if [ -t 2 ]; then exec 7>&2; else exec 7> >(count_crates "${selection[@]}" >&2); fi
    built=$(cd "$root" && cargo build "${selection[@]}" --bins --profile "$profile" --message-format=json-render-diagnostics 2>&7 |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/local$') || die "the build failed"
    exec 7>&-
    mkdir -p "$here/bin"
    ln -sfn "$built" "$program"
}

# count_crates SELECTION...: in place of cargo's lines about crates, a line for every 25 that are compiled.
count_crates() {
    local all
    all=$(cd "$root" && cargo tree "$@" --prefix none --edges normal,build 2>/dev/null | cut -d ' ' -f 1,2 | sort -u | wc -l)
    awk -v all="$all" '$1 == "Downloaded" { next } $1 != "Compiling" { print; fflush(); next }
        ++done % 25 == 0 { print "    compiled " done " of about " all " crates"; fflush() }'
}

up() {
    local profile=local option
    for option in "$@"; do
        case $option in
            -d) ;;
            --release) profile=release ;;
            *) wrong_usage "up: what is $option?" ;;
        esac
    done
    need_owner
    # Where everything is ready already, nothing is built.
    if [ -x "$program" ] && "$program" --directory "$here" status >/dev/null 2>&1; then
        exec "$program" --directory "$here" up "$@"
    fi
    need_tools
    build "$profile"
    NATS_SERVER=$nats_server PG_BIN=$pg_bin exec "$program" --directory "$here" up "$@"
}

# The commands that build nothing, as long as there is something to do.
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
        # Started by a checkout of other days, or the build's directory was deleted.
        need_tools
        build local
    fi
    exec "$program" --directory "$here" "$@"
}

run_tests() {
    need_test_tools
    cd "$root"
    export NATS_SERVER=$nats_server PG_BIN=$pg_bin ${NATS_SERVER_OLDEST:+NATS_SERVER_OLDEST}
    say "Not among these: the tests in a browser (deploy/local.sh pages) and with real clients (deploy/local.sh clients)."
    cargo build --locked --workspace --bins
    exec cargo test --locked --workspace --no-fail-fast
}

test_pages() {
    need_tools
    if ! have chromedriver || ! { have chromium || have chromium-browser || have google-chrome; }; then
        # Ubuntu has it as a snap alone.
        if ! apt-cache show chromium-driver >/dev/null 2>&1 && have snap; then
            die "a browser to test with is missing: as root, run: snap install chromium, and put chromium.chromedriver on the PATH as chromedriver"
        fi
        need_packages "a browser to test with" chromium chromium-driver
    fi
    cd "$root"
    export NATS_SERVER=$nats_server PG_BIN=$pg_bin BROWSER_TESTS=required
    cargo build --locked --workspace --bins
    exec cargo test --locked -p tests --test browser
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
