//! The database: reachability, version of the tables, rights, durability, clock, and what earlier checks found.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::finding::Finding;
use crate::projection::tables::Table;
use crate::store::{self, MIGRATIONS, quarantine, verifications};

const SUBJECT: &str = "database";
/// The limit of each check.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The difference of two clocks from which something is judged wrongly.
const MAX_SKEW: time::Duration = time::Duration::seconds(5);
/// The age of the latest verification from which another one is due.
const MAX_VERIFIED_AGE: time::Duration = time::Duration::days(7);
/// The part of the server's connections that may be in use, in percent.
const BUSY_PERCENT: i64 = 80;

/// The tables that `recorder consume` writes beside the record.
const WORK_TABLES: [&str; 4] = ["quarantine", "stream_marks", "live_changes", "verifications"];
/// The tables that `recorder serve` writes.
const ACCOUNT_TABLES: [&str; 9] = [
    "users",
    "sessions",
    "refresh_tokens",
    "guesses",
    "invite_codes",
    "access_changes",
    "disabled_external_users",
    "audit_windows",
    "audit_outbox",
];

/// Examines the database.
pub(super) async fn examine(database: &Result<SecretString, String>, findings: &mut Vec<Finding>) {
    let pool = match database {
        Err(reason) => {
            findings.push(Finding::skipped(SUBJECT, reason.as_str()));
            return;
        }
        Ok(url) => store::connect(url, 1),
    };
    let Ok(pool) = pool else {
        findings.push(Finding::wrong(
            SUBJECT,
            "DATABASE_URL is not the URL of a PostgreSQL database",
            "Set DATABASE_URL.",
        ));
        return;
    };
    let server = "SELECT current_setting('server_version'), now(), pg_is_in_recovery(), \
                  current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on', \
                  current_setting('full_page_writes') = 'on', current_setting('server_encoding')";
    let asked_at = Instant::now();
    let server: (String, OffsetDateTime, bool, bool, bool, bool, String) =
        match timeout(TIMEOUT, sqlx::query_as(server).fetch_one(&pool)).await {
            Ok(Ok(server)) => server,
            Ok(Err(error)) => {
                let action = "Check DATABASE_URL, the network, and that PostgreSQL runs and accepts the role.";
                findings.push(Finding::wrong(SUBJECT, store::describe(&error), action));
                return;
            }
            Err(_) => {
                let found = format!("no answer within {} s", TIMEOUT.as_secs());
                findings.push(Finding::wrong(
                    SUBJECT,
                    found,
                    "Check DATABASE_URL, the network, and that PostgreSQL runs.",
                ));
                return;
            }
        };
    let (version, now, is_standby, is_read_only, syncs, writes_pages, encoding) = server;
    let delay = asked_at.elapsed();
    findings.push(Finding::ok(SUBJECT, format!("PostgreSQL {version} answers in {} ms", delay.as_millis())));
    if is_standby || is_read_only {
        let found = if is_standby { "the server is a standby" } else { "this role or server is read-only" };
        let action = "Let DATABASE_URL lead to the primary (several hosts, target_session_attrs=read-write).";
        findings.push(Finding::wrong(SUBJECT, found, action));
    }
    if !(syncs && writes_pages) {
        let action = "Set fsync and full_page_writes to on: a crash of the machine can lose what was recorded.";
        findings.push(Finding::warning(SUBJECT, "the server does not write durably", action));
    }
    if encoding != "UTF8" {
        let found = format!("the encoding of the database is {encoding}");
        findings.push(Finding::wrong(SUBJECT, found, "Make the database with the encoding UTF8."));
    }
    let skew = (OffsetDateTime::now_utc() - now).abs();
    if skew > MAX_SKEW + delay {
        let found = format!("the clocks of the database and of this machine differ by {} s", skew.whole_seconds());
        findings.push(Finding::wrong(SUBJECT, found, "Set the clocks with NTP."));
    }
    if examine_schema(&pool, findings).await {
        examine_rights(&pool, findings).await;
        examine_record(&pool, findings).await;
    }
    examine_connections(&pool, findings).await;
}

/// Compares the version of the tables. Returns false if the tables cannot be used.
async fn examine_schema(pool: &PgPool, findings: &mut Vec<Finding>) -> bool {
    let missing = match timeout(TIMEOUT, store::missing_migrations(pool)).await {
        Ok(Ok(missing)) => missing,
        Ok(Err(error)) => {
            let action = "Give the role its rights: deploy/postgres/roles.sql.";
            findings.push(Finding::wrong(
                "tables",
                format!("their version cannot be read: {}", store::describe(&error)),
                action,
            ));
            return false;
        }
        Err(_) => return false,
    };
    if !missing.is_empty() {
        let found =
            format!("the tables lack {} migrations of this version, the first is {}", missing.len(), missing[0]);
        findings.push(Finding::wrong("tables", found, "Run `recorder migrate`."));
        return false;
    }
    let latest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let newer = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM _sqlx_migrations WHERE version > $1");
    let newer = timeout(TIMEOUT, newer.bind(latest).fetch_one(pool)).await;
    findings.push(match newer {
        Ok(Ok(newer @ 1..)) => {
            let found = format!("the tables have {newer} migrations that this version does not know");
            Finding::warning("tables", found, "Upgrade this program: another version has migrated the database.")
        }
        _ => Finding::ok("tables", format!("the tables have the version of this program ({latest})")),
    });
    true
}

/// Examines for which programs the rights of the role suffice.
async fn examine_rights(pool: &PgPool, findings: &mut Vec<Finding>) {
    let record: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
    let written = [&record[..], &WORK_TABLES].concat();
    let all = "SELECT, INSERT, UPDATE, DELETE";
    let (consume, serve) = match (
        has_rights(pool, &written, all).await,
        has_rights(pool, &record, "SELECT").await && has_rights(pool, &ACCOUNT_TABLES, all).await,
    ) {
        (true, true) => {
            return findings.push(Finding::ok("rights", "enough for `recorder consume` and `recorder serve`"));
        }
        rights => rights,
    };
    findings.push(match (consume, serve) {
        (true, _) => Finding::ok("rights", "enough for `recorder consume`"),
        (_, true) => Finding::ok("rights", "enough for `recorder serve`"),
        _ => {
            let action = "Run deploy/postgres/roles.sql, after each `recorder migrate` and `recorder rebuild` too.";
            Finding::wrong("rights", "too few for `recorder consume` and for `recorder serve`", action)
        }
    });
}

/// Returns true if the role has all rights on all tables.
async fn has_rights(pool: &PgPool, tables: &[&str], rights: &str) -> bool {
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let rights: Vec<String> = rights.split(", ").map(str::to_owned).collect();
    let asked = sqlx::query_scalar::<_, Option<bool>>(
        "SELECT bool_and(has_table_privilege(name, granted)) FROM unnest($1::text[]) AS name, unnest($2::text[]) AS granted",
    );
    let answer = timeout(TIMEOUT, asked.bind(tables).bind(rights).fetch_one(pool)).await;
    matches!(answer, Ok(Ok(Some(true))))
}

/// Reports what the record itself says: quarantine, and the latest verification.
async fn examine_record(pool: &PgPool, findings: &mut Vec<Finding>) {
    if let Ok(Ok(count)) = timeout(TIMEOUT, quarantine::count(pool)).await {
        findings.push(match count {
            0 => Finding::ok("record", "no event is in quarantine"),
            count => {
                let action = "Read them with `recorder quarantine list` (docs/OPERATIONS.md).";
                Finding::wrong("record", format!("{count} events are in quarantine"), action)
            }
        });
    }
    let Ok(Ok(latest)) = timeout(TIMEOUT, verifications::latest(pool)).await else { return };
    findings.push(match latest {
        Some((_, differences @ 1..)) => {
            let found = format!("the latest `recorder verify` found {differences} rows that differ from the log");
            Finding::wrong("record", found, "Run `recorder verify` again, and read docs/REBUILD.md.")
        }
        Some((at, _)) if OffsetDateTime::now_utc() - at < MAX_VERIFIED_AGE => {
            Finding::ok("record", "the latest `recorder verify` found no difference")
        }
        Some(_) => Finding::warning(
            "record",
            "the latest `recorder verify` is over a week old",
            "Run `recorder verify` every day.",
        ),
        None => Finding::warning(
            "record",
            "the tables were never compared with the log",
            "Run `recorder verify` every day.",
        ),
    });
}

/// Examines how many connections of the server are in use.
async fn examine_connections(pool: &PgPool, findings: &mut Vec<Finding>) {
    let used = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
                current_setting('max_connections')::bigint";
    let Ok(Ok((used, limit))) = timeout(TIMEOUT, sqlx::query_as::<_, (i64, i64)>(used).fetch_one(pool)).await else {
        return;
    };
    if used * 100 >= limit * BUSY_PERCENT {
        let action = "Raise max_connections, or lower RECORDER_SERVE_CONNECTIONS and the number of recorders.";
        findings.push(Finding::warning(SUBJECT, format!("{used} of {limit} connections are in use"), action));
    }
}
