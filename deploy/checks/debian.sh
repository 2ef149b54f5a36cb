# The check `debian` of deploy/check-packages.sh: lintian, and an installation, a removal and a purge in a fresh Debian root.
# shellcheck shell=bash disable=SC2154

# in_root COMMAND...: runs a command in the fresh root.
in_root() { env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$fresh" "$@"; }

# has_mode PATH OWNER:GROUP MODE
has_mode() { [ "$(in_root stat --format '%U:%G %a' "$1")" = "$2 $3" ]; }

# ends_with STATUS COMMAND...
ends_with() {
    local wanted=$1 found=0
    shift
    "$@" >/dev/null 2>&1 || found=$?
    [ "$found" = "$wanted" ]
}

check_debian() {
    local packages=() fresh package program
    shopt -s nullglob
    packages=("${PACKAGES:-/nonexistent}"/*.deb)
    shopt -u nullglob
    [ "${#packages[@]}" -gt 0 ] || { skip "debian: PACKAGES names no directory with packages, as deploy/release.sh makes them" && return 0; }
    if have lintian; then
        # On purpose: static programs, no Debian changelog, and a maintainer without a public address.
        expect "lintian finds no error" lintian --allow-root --fail-on error \
            --suppress-tags statically-linked-binary,no-changelog,embedded-library,bogus-mail-host "${packages[@]}"
    else
        skip "debian: lintian is missing: apt-get install lintian"
    fi
    [ "$(id -u)" = 0 ] && have debootstrap || { skip "debian: root and debootstrap are needed for an installation" && return 0; }
    need_work
    fresh=$work/debian
    if ! debootstrap --variant=minbase --include=adduser bookworm "$fresh" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" 2>&1; then
        skip "debian: debootstrap cannot fetch Debian" && return 0
    fi
    cp "${packages[@]}" "$fresh/tmp/"
    expect "the packages are installed in a fresh root" in_root sh -c 'dpkg --install /tmp/*.deb'
    for program in gateway recorder; do
        expect "$program --version" in_root "/usr/bin/$program" --version
        expect "the user stenograph-$program" in_root getent passwd "stenograph-$program"
        expect "/etc/stenograph/$program.env is for the service alone" has_mode "/etc/stenograph/$program.env" "root:stenograph-$program" 640
        expect "the manual page of $program" test -s "$fresh/usr/share/man/man1/$program.1.gz"
        expect "the completion of $program" test -s "$fresh/usr/share/bash-completion/completions/$program"
    done
    expect "gateway check-config without settings ends with 64" ends_with 64 in_root /usr/bin/gateway check-config
    for package in "$root"/deploy/systemd/*.service; do
        expect "${package##*/} is installed" cmp "$package" "$fresh/lib/systemd/system/${package##*/}"
    done
    echo '# changed' >>"$fresh/etc/stenograph/gateway.env"
    expect "the packages are removed" in_root dpkg --remove stenograph-gateway stenograph-recorder
    expect "a removal keeps changed settings" grep -q '# changed' "$fresh/etc/stenograph/gateway.env"
    expect "the packages are purged" in_root dpkg --purge stenograph-gateway stenograph-recorder
    expect "a purge removes the settings" test ! -e "$fresh/etc/stenograph/gateway.env"
}
