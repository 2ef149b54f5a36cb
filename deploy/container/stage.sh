#!/usr/bin/env bash
# Makes the directory from which the images take prebuilt programs (`--target prebuilt`): the static programs without their
# symbols, the certificate authorities of this machine, and a directory `empty`, which becomes the gateway's data directory.
#
#   deploy/container/stage.sh PROGRAMS DIRECTORY    PROGRAMS is the directory of cargo's output, such as
#                                                   target/x86_64-unknown-linux-musl/release
set -euo pipefail

programs=$1 out=$2
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
mkdir -p "$out/empty"
install -m 644 "$certificates" "$out/ca-certificates.crt"
for program in gateway recorder stand-in-llm; do
    [ -x "$programs/$program" ] || continue
    # An image from scratch has no dynamic linker.
    if readelf --program-headers --wide "$programs/$program" | grep -q INTERP; then
        echo "deploy/container/stage.sh: $programs/$program is not static: build it for a musl target" >&2
        exit 1
    fi
    strip -o "$out/$program" "$programs/$program"
    chmod 755 "$out/$program"
done
