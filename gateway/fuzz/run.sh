#!/usr/bin/env bash
# Runs coverage-guided fuzzing (libFuzzer) of the parsers of responses and requests with the stable Rust compiler. Needs a C++ compiler.
#
#   gateway/fuzz/run.sh TARGET [SECONDS]    600 seconds by default; a target is a file in gateway/fuzz/targets
#
# Inputs that reach new code are kept in gateway/fuzz/corpus/, failing inputs in gateway/fuzz/artifacts/. To run a failing
# input again: gateway/fuzz/run.sh TARGET FILE
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
target=${1:?run.sh: expected the name of a file in gateway/fuzz/targets}
host=$(rustc -vV | sed -n 's/^host: //p')
passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
# With --target, build scripts and procedural macros are built without the instrumentation.
RUSTFLAGS="$passes -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --locked --release --target "$host" --bin "$target"
program=target/$host/release/$target
mkdir -p "corpus/$target" artifacts
if [ -f "${2:-}" ]; then exec "$program" "$2"; fi
exec "$program" "corpus/$target" "seeds/$target" -dict=answers.dict -max_len=4096 -rss_limit_mb=1024 -timeout=10 \
    -artifact_prefix="artifacts/$target-" -max_total_time="${2:-600}" -print_final_stats=1 -reload=0
