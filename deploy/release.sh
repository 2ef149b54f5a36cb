#!/usr/bin/env bash
# Makes a release from a clean checkout: static programs, packages for Debian, images, the chart, bills of materials, checksums.
#
#   deploy/release.sh [--snapshot] [--profile PROFILE] [--without-images] DIRECTORY
#
#   --snapshot         for trying: the changelog need not name the version, and the names have the commit
#   --profile PROFILE  the profile of cargo (release)
#   --without-images   make no images; otherwise podman or docker is needed
#
# Needs Rust with a musl target (rustup target add x86_64-unknown-linux-musl), musl-tools, cargo-deb (cargo install cargo-deb --locked),
# git and Python 3.11. The version is that of Cargo.toml, which the chart and the changelog have to name too.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
machine=$(uname -m)
target=$machine-unknown-linux-musl
profile=release snapshot= images=yes out=

step() { printf '==> %s\n' "$*"; }
die() {
    printf 'deploy/release.sh: %s\n' "$*" >&2
    exit 1
}

while [ "$#" -gt 0 ]; do
    case $1 in
        --snapshot) snapshot=yes ;;
        --profile) profile=${2:?a profile is missing} && shift ;;
        --without-images) images= ;;
        -*) die "there is no option $1" ;;
        *) out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || die "a directory is missing: deploy/release.sh DIRECTORY"
[ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || die "$out is not empty"
mkdir -p "$out"
out=$(realpath "$out")
cd "$root"

[ -z "$(git status --porcelain)" ] || die "the checkout has changes: commit them first"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
for field in version appVersion; do
    grep -qx "$field: $version" deploy/chart/Chart.yaml || die "deploy/chart/Chart.yaml does not have $field: $version"
done
revision=$(git rev-parse HEAD)
if [ -n "$snapshot" ]; then
    name=$version+${revision:0:12}
else
    name=$version
    grep -q "^## \[\?$version\]\?" CHANGELOG.md || die "CHANGELOG.md has no heading for $version"
    ! grep -q '^## Unreleased' CHANGELOG.md || die "CHANGELOG.md still has the heading Unreleased: name the version"
fi
command -v cargo-deb >/dev/null || die "cargo-deb is missing: cargo install cargo-deb --locked"
command -v musl-gcc >/dev/null || die "musl-gcc is missing: apt-get install musl-tools"
builder=
if [ -n "$images" ]; then
    for candidate in podman docker; do if command -v "$candidate" >/dev/null; then builder=${builder:-$candidate}; fi; done
    [ -n "$builder" ] || die "podman or docker is missing: install one, or use --without-images"
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/var/tmp}/release.XXXXXX")
trap 'rm -rf "$work"' EXIT

step "programs"
export "CC_$(echo "$target" | tr - _)=musl-gcc"
cargo build --locked --profile "$profile" --target "$target" -p gateway -p recorder -p harness --bins
programs=${CARGO_TARGET_DIR:-target}/$target/$profile
deploy/container/stage.sh "$programs" "$work/stage"

step "manual pages and completions"
rm -rf target/manuals
cargo run --locked --quiet --package tests --bin manuals -- target/manuals
# Pages of the commands `help` would repeat the others.
rm -f target/manuals/man/*-help*.1

# archive DIRECTORY NAME: a tar archive that is the same for the same files.
archive() {
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --directory "$1" "$2" | gzip --no-name -9
}

step "archive of programs"
tree=stenograph-$name-$machine-linux
mkdir -p "$work/$tree/man" "$work/$tree/completions"
cp "$work/stage/gateway" "$work/stage/recorder" LICENSE README.md CHANGELOG.md deploy/gateway.env deploy/recorder.env deploy/routes.toml "$work/$tree/"
cp -r deploy/systemd deploy/nats "$work/$tree/"
cp target/manuals/man/*.1 deploy/debian/gateway.1 "$work/$tree/man/"
cp target/manuals/recorder.bash target/manuals/_recorder target/manuals/recorder.fish "$work/$tree/completions/"
cp deploy/debian/gateway.bash "$work/$tree/completions/"
archive "$work" "$tree" >"$out/$tree.tar.gz"

step "packages for Debian"
for package in gateway recorder; do
    # Strips the programs, and compresses the manual pages.
    cargo-deb --no-build --strip --compress-system --package "$package" --target "$target" --profile "$profile" --output "$out/" >/dev/null
done

step "bills of materials"
for package in gateway recorder; do
    python3 deploy/sbom.py "$package" "$target" >"$out/stenograph-$package-$name.cdx.json"
done

step "chart"
cp -r deploy/chart "$work/stenograph"
rm -rf "$work/stenograph/ci"
archive "$work" stenograph >"$out/stenograph-chart-$version.tgz"

if [ -n "$builder" ]; then
    step "images"
    for image in gateway recorder; do
        reference=localhost/stenograph-$image:$version
        # The health check is lost in the other format.
        format=()
        [ "$builder" != podman ] || format=(--format docker --timestamp "$SOURCE_DATE_EPOCH")
        "$builder" build --quiet "${format[@]}" --target prebuilt --tag "$reference" --build-arg VERSION="$name" \
            --build-arg REVISION="$revision" --file "deploy/container/$image.Containerfile" "$work/stage" >/dev/null
        "$builder" save "$reference" | gzip --no-name -9 >"$out/stenograph-$image-$name-$machine.image.tar.gz"
    done
fi

step "checksums"
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
