"""Computes usage_stats from an export with DuckDB, Polars and pandas, and compares each result with the database."""

import csv
import sys

import duckdb
import pandas
import polars

export, expected_file = sys.argv[1:]
COLUMNS = ["user_id", "date", "api_calls", "successful_calls", "failed_calls", "prompt_tokens", "completion_tokens",
           "total_tokens", "estimated_total_tokens", "messages_created"]
with open(expected_file, newline="") as file:
    expected = [(row["user_id"], row["date"], *(int(row[name]) for name in COLUMNS[2:])) for row in csv.DictReader(file)]

SQL = f"""
WITH chats AS (
    SELECT *, CAST(timezone('UTC', started_at) AS DATE) AS day FROM '{export}/chats/*/*.parquet' WHERE status <> 'started'
), calls AS (
    SELECT user_id, day, count(*) AS api_calls,
           count(*) FILTER (status = 'completed') AS successful_calls,
           count(*) FILTER (status <> 'completed') AS failed_calls,
           coalesce(sum(prompt_tokens) FILTER (usage_source = 'reported'), 0) AS prompt_tokens,
           coalesce(sum(completion_tokens) FILTER (usage_source = 'reported'), 0) AS completion_tokens,
           coalesce(sum(total_tokens) FILTER (usage_source = 'reported'), 0) AS total_tokens,
           coalesce(sum(total_tokens) FILTER (usage_source = 'estimated'), 0) AS estimated_total_tokens
    FROM chats GROUP BY ALL
), said AS (
    SELECT message.user_id, day, count(*) AS messages_created
    FROM '{export}/messages/*/*.parquet' AS message
    JOIN (SELECT chat_id, CAST(timezone('UTC', started_at) AS DATE) AS day FROM '{export}/chats/*/*.parquet') USING (chat_id)
    GROUP BY ALL
)
SELECT user_id, CAST(day AS VARCHAR), api_calls, successful_calls, failed_calls, CAST(prompt_tokens AS BIGINT),
       CAST(completion_tokens AS BIGINT), CAST(total_tokens AS BIGINT), CAST(estimated_total_tokens AS BIGINT),
       coalesce(messages_created, 0)
FROM calls LEFT JOIN said USING (user_id, day) ORDER BY user_id, day
"""


def check(name, rows):
    rows = sorted(tuple(row) for row in rows)
    if rows != sorted(expected):
        sys.exit(f"{name}: {rows}\nexpected: {expected}")
    print(f"{name}: {len(rows)} rows of usage_stats, the same as in the database")


check("DuckDB", duckdb.sql(SQL).fetchall())

ended = polars.scan_parquet(f"{export}/chats/*/*.parquet").filter(polars.col("status") != "started")
reported = polars.col("usage_source") == "reported"
totals = (
    ended.with_columns(day=polars.col("started_at").dt.convert_time_zone("UTC").dt.date())
    .group_by("user_id", "day")
    .agg(
        polars.len().cast(polars.Int64).alias("api_calls"),
        (polars.col("status") == "completed").sum().cast(polars.Int64).alias("successful_calls"),
        polars.col("total_tokens").filter(reported).sum().alias("total_tokens"),
    )
    .collect()
)
brief = sorted((row[0], row[1], row[2], row[3], row[7]) for row in expected)
found = sorted((user, str(day), calls, good, tokens) for user, day, calls, good, tokens in totals.iter_rows())
if found != brief:
    sys.exit(f"Polars: {found}\nexpected: {brief}")
print(f"Polars: {len(found)} rows, the same")

frame = pandas.read_parquet(f"{export}/chats")
frame = frame[frame["status"] != "started"]
frame["day"] = frame["started_at"].dt.tz_convert("UTC").dt.date.astype(str)
frame["good"] = frame["status"] == "completed"
frame["reported"] = frame["total_tokens"].where(frame["usage_source"] == "reported", 0).fillna(0)
grouped = frame.groupby(["user_id", "day"]).agg(calls=("chat_id", "count"), good=("good", "sum"), tokens=("reported", "sum"))
found = sorted((user, day, int(row.calls), int(row.good), int(row.tokens)) for (user, day), row in grouped.iterrows())
if found != brief:
    sys.exit(f"pandas: {found}\nexpected: {brief}")
print(f"pandas: {len(found)} rows, the same")
