#!/usr/bin/env bash
# Shows that deploy/local.sh works where nothing is installed: in a fresh Debian root, as root below a directory that nobody
# else may enter, and as a normal user without sudo. Needs root, debootstrap, git, curl and a Rust toolchain.
#
#   deploy/prove-fresh.sh [DIRECTORY]   where the root goes (a few GB; deleted at the end); MIRROR: the Debian mirror
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

# inside USER COMMAND...: in the checkout of that user.
inside() {
    local user=$1 home
    shift
    home=$(chroot "$fresh" getent passwd "$user" | cut -d : -f 6)
    chroot "$fresh" setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$home" USER="$user" \
        PATH=/opt/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        RUSTUP_HOME=/opt/rustup CARGO_HOME="$home/.cargo" bash -c 'cd ~/stenograph && exec "$@"' - "$@"
}

# The chat of the page that `up` prints, as pasted.
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
    # Two chats, of which the first was before the restart.
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
    if inside "$user" test -e .local/data; then echo "reset left data" >&2; exit 1; fi
}

debootstrap --variant=minbase bookworm "$fresh" ${MIRROR:+"$MIRROR"} >"$fresh.log"
rm "$fresh.log"
cp /etc/resolv.conf "$fresh/etc/"
# Where this network has certificates of its own, the fresh machine has them too.
mkdir -p "$fresh/usr/local/share/ca-certificates"
cp /usr/local/share/ca-certificates/*.crt "$fresh/usr/local/share/ca-certificates/" 2>/dev/null || true
mkdir -p "$fresh/opt/rustup" "$fresh/opt/cargo"
cp -a "$cargo/bin" "$fresh/opt/cargo/"
mount --bind -o ro "$rustup" "$fresh/opt/rustup"
mount --bind /proc "$fresh/proc"
mount --bind /dev "$fresh/dev"
chroot "$fresh" useradd --create-home --shell /bin/bash someone

prove root /root
# What root has installed (a C compiler, pip) stays: a user without sudo cannot.
prove someone /home/someone
echo "=== proved"
