#!/usr/bin/env bash
# Proves that deploy/local.sh works on a fresh Debian system: as root below a directory closed to other users, and as a normal
# user without sudo. Needs root, debootstrap, git, curl and a Rust toolchain.
#
#   deploy/prove-fresh.sh [DIRECTORY]   DIRECTORY holds the Debian root (a few GB; deleted at the end); MIRROR: the Debian mirror
set -euo pipefail

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
fresh=$(mktemp -d "${1:-/var/tmp}/fresh.XXXXXX")
rustup=${RUSTUP_HOME:-$HOME/.rustup} cargo=${CARGO_HOME:-$HOME/.cargo}

clean_up() {
    for place in opt/rustup proc dev; do
        if mountpoint -q "$fresh/$place"; then umount -l "$fresh/$place"; fi
    done
    rm -rf --one-file-system "$fresh"
}
trap clean_up EXIT

# inside USER COMMAND...: runs a command in the checkout of the user in the Debian root.
inside() {
    local user=$1 home
    shift
    home=$(chroot "$fresh" getent passwd "$user" | cut -d : -f 6)
    chroot "$fresh" setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$home" USER="$user" \
        PATH=/opt/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        RUSTUP_HOME=/opt/rustup CARGO_HOME="$home/.cargo" bash -c 'cd ~/stenograph && exec "$@"' - "$@"
}

# chat FILE: runs the curl command of the page that `up` printed into FILE, as a user would paste it.
chat() { bash -c "$(sed -n 's/^  \(curl .*\)/\1/p' "$1")"; }

prove() {
    local user=$1 home=$2 said=$fresh/tmp/$1.txt
    echo "=== as $user"
    mkdir -p "$fresh$home/.cargo"
    cp -a "$cargo/registry" "$fresh$home/.cargo/"
    git clone --quiet "$checkout" "$fresh$home/stenograph"
    chroot "$fresh" chown -R "$user:" "$home"
    chmod 700 "$fresh$home"
    inside "$user" deploy/local.sh up -d | tee "$said"
    chat "$said" | tail -n 4
    inside "$user" deploy/local.sh status
    inside "$user" deploy/local.sh down
    inside "$user" deploy/local.sh up -d >"$said"
    chat "$said" >/dev/null
    # Expects two chats on the record: one from before the restart and one after.
    # shellcheck disable=SC2016
    inside "$user" bash -c '. .local/env
        for try in $(seq 50); do
            calls=$(.local/postgres/bin/psql "$DATABASE_URL" -Atc "SELECT sum(api_calls) FROM usage_stats")
            if [ "$calls" = 2 ]; then echo "both chats are on the record"; exit; fi
            sleep 0.1
        done
        echo "on the record: $calls of 2 chats"; exit 1'
    inside "$user" deploy/local.sh down
    inside "$user" deploy/local.sh reset --yes
    if inside "$user" test -e .local/data; then echo "reset left data in .local/data" >&2; exit 1; fi
}

# mktemp makes a directory for its owner alone; the root of a system has to be open to all users.
chmod 755 "$fresh"
debootstrap --variant=minbase bookworm "$fresh" ${MIRROR:+"$MIRROR"} >"$fresh.log"
rm "$fresh.log"
cp /etc/resolv.conf "$fresh/etc/"
# Copies the network's own certificates, if any, to the Debian root.
mkdir -p "$fresh/usr/local/share/ca-certificates"
cp /usr/local/share/ca-certificates/*.crt "$fresh/usr/local/share/ca-certificates/" 2>/dev/null || true
mkdir -p "$fresh/opt/rustup" "$fresh/opt/cargo"
cp -a "$cargo/bin" "$fresh/opt/cargo/"
mount --bind -o ro "$rustup" "$fresh/opt/rustup"
mount --bind /proc "$fresh/proc"
mount --bind /dev "$fresh/dev"
chroot "$fresh" useradd --create-home --shell /bin/bash someone

prove root /root
# The packages that root has installed (a C compiler, pip) stay, as a user without sudo cannot install them.
prove someone /home/someone
echo "=== passed: deploy/local.sh works on a fresh system"
