#!/usr/bin/env bash
# Breaks one guarantee of the code at a time and checks that a test fails. The changes are made in place in a clean checkout
# and are undone. Takes about ten minutes with a warm build.
#
#   tests/mutations.sh            all of them
#   tests/mutations.sh NAME...    these
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Columns: the name, a description of the fault, the file, the change (a Perl expression over the whole file), and the test
# that has to fail.
mutations() {
    cat <<'TABLE'
acknowledge-first|a batch is acknowledged before it is committed|recorder/src/pipeline/consume.rs|s/(let began = Instant::now\(\);\n)(\s+self\.blockage)/$1        deliveries.acknowledge().await;\n$2/|cargo test -p tests --test system outages::of_a_recorder_with_an_uncommitted_batch
add|the usage of a repeated event is added again instead of replaced|recorder/src/projection/merge.rs|s/self\.usage\.subtract\(&old\.user_id.*\n//|cargo test -p recorder --lib projection::
release-first|the journal releases events before the broker has acknowledged them|gateway/src/relay.rs|s/self\.checkpoint\.released_below =\s+lowest_unreleased\.map_or\(self\.taken_below, .*\n/self.checkpoint.released_below = self.taken_below;\n/|cargo test -p tests --test system outages::of_a_suspended_broker_and_the_gateway_killed_meanwhile
no-hold-back|the end of an answer is forwarded before the end event is recorded|gateway/src/response/tap.rs|s/(events\.feed\(&mut self\.fold, self\.usage_chunk, &chunk, \(&mut self\.forwarded, &mut self\.held_back\)\))\n/{ let fed = $1; self.forwarded.extend(self.held_back.drain(..)); fed }\n/|cargo test -p gateway --lib tap::
now|the projection reads the clock|recorder/src/projection/chat_change.rs|s/finished_at: pg_timestamp\(event\.finished_at\)/finished_at: OffsetDateTime::now_utc()/|cargo test -p recorder --lib projection::
no-checksum|a torn or damaged journal record is accepted as valid|gateway/src/journal/record.rs|s/ && crc32fast::hash\(body\) == self\.body_crc//|cargo test -p gateway --lib journal::
TABLE
}

if [ -n "$(git status --porcelain)" ]; then
    echo "tests/mutations.sh: the checkout has changes: commit or stash them first" >&2
    exit 1
fi
broken=
restore() { [ -z "$broken" ] || git checkout --quiet -- "$broken"; }
trap restore EXIT

missed=0
noticed=0
while IFS='|' read -r name what file change test; do
    case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
    printf '%s: %s\n' "$name" "$what"
    broken=$file
    perl -0pi -e "$change" "$file"
    if git diff --quiet -- "$file"; then
        echo "  the code has changed: the expression no longer matches anything in $file" >&2
        exit 1
    fi
    # A change that does not compile proves nothing, so the build must succeed first.
    RUSTFLAGS="${RUSTFLAGS:-}" cargo build --quiet --workspace --bins
    if $test >target/mutation.log 2>&1; then
        echo "  NOT NOTICED by: $test"
        missed=$((missed + 1))
    elif grep -q '^test result: FAILED' target/mutation.log; then
        grep -m 3 -E '^test .* (FAILED|failed)' target/mutation.log | sed 's/^/  noticed: /'
        noticed=$((noticed + 1))
    else
        echo "  the test did not run: see target/mutation.log" >&2
        exit 1
    fi
    restore
    broken=
done < <(mutations)
echo "$noticed noticed, $missed not"
[ "$missed" = 0 ] && [ "$noticed" -gt 0 ]
