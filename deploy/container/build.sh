#!/bin/sh
# Builds the static programs of a package inside the build stage of an image, from the source in the current directory.
# The images of Debian and of Rust are the only ones on which this script runs.
#
#   deploy/container/build.sh PACKAGE DIRECTORY    DIRECTORY gets the programs, ca-certificates.crt and a directory `empty`
set -eu

package=$1 out=$2
target=$(uname -m)-unknown-linux-musl
apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates musl-tools >/dev/null
rustup target add "$target"
# The C libraries (ring, zstd, mimalloc) are compiled for musl too.
export "CC_$(echo "$target" | tr - _)=musl-gcc"
cargo build --locked --release --target "$target" --package "$package" --bins
mkdir -p "$out/empty"
cp /etc/ssl/certs/ca-certificates.crt "$out/"
find "target/$target/release" -maxdepth 1 -type f -perm -u+x -exec strip {} + -exec cp {} "$out/" ';'
