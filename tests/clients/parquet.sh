#!/usr/bin/env bash
# Exports the log of a running deployment as Parquet, opens it with DuckDB, Polars and pandas, and compares the sums that
# each computes with usage_stats. Needs NATS_URL and DATABASE_URL (after `deploy/local.sh up -d`: . .local/env), and Python
# with pip.
set -euo pipefail

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
: "${NATS_URL:?parquet.sh: expected NATS_URL: . .local/env}" "${DATABASE_URL:?parquet.sh: expected DATABASE_URL: . .local/env}"
recorder=${RECORDER:-$checkout/target/release/recorder}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! python3 -m venv "$work/venv" || ! "$work/venv/bin/pip" install --quiet duckdb polars pandas pyarrow; then
    echo "parquet.sh: skipped: DuckDB, Polars and pandas cannot be installed here" >&2
    exit 77
fi
"$recorder" replay --format parquet --output "$work/export" --quiet
psql=psql
command -v psql >/dev/null || psql=$checkout/.local/postgres/bin/psql
"$psql" "$DATABASE_URL" --csv -c "SELECT user_id, date::text, api_calls, successful_calls, failed_calls, prompt_tokens,
    completion_tokens, total_tokens, estimated_total_tokens, messages_created
    FROM usage_stats WHERE api_calls > 0 ORDER BY user_id, date" >"$work/expected.csv"
"$work/venv/bin/python" "$checkout/tests/clients/parquet.py" "$work/export" "$work/expected.csv"
