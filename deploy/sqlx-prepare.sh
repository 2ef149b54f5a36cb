#!/bin/sh
# Checks every SQL query of the recorder against a migrated database, and writes the descriptions that the compiler needs to
# .sqlx/, so that other builds need no database. Run this script after changing a query or a migration:
#
#   DATABASE_URL=postgres://... deploy/sqlx-prepare.sh          writes .sqlx/
#   DATABASE_URL=postgres://... deploy/sqlx-prepare.sh --check  fails if .sqlx/ is not up to date
set -eu

cd "$(dirname "$0")/.."
: "${DATABASE_URL:?sqlx-prepare: expected DATABASE_URL, the URL of a migrated database (recorder migrate)}"

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# The query macros run while the recorder is compiled, so the recorder has to be compiled again.
touch recorder/src/lib.rs
DATABASE_URL="$DATABASE_URL" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" \
    cargo check --quiet --package recorder --lib

if [ "${1:-}" = --check ]; then
    diff -r "$fresh" .sqlx || { echo "sqlx-prepare: .sqlx is not up to date: run deploy/sqlx-prepare.sh" >&2; exit 1; }
else
    rm -rf .sqlx
    mkdir .sqlx
    cp "$fresh"/query-*.json .sqlx/
    echo "sqlx-prepare: $(ls .sqlx | wc -l) queries"
fi
