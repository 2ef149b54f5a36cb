//! `recorder rebuild` and `recorder verify`: arguments, progress bar and the printed report.

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;
use shared::nats::BrokerRole;
use sqlx::postgres::PgConnection;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use super::connect::pool;
use super::output::print;
use super::progress::Progress;
use crate::config::Config;
use crate::rebuild::reprojection::ReprojectionStats;
use crate::rebuild::verify::{ExplainedDifference, VerifyReport, verify};
use crate::rebuild::{RebuildOptions, RebuildReport, rebuild};
use crate::source;
use crate::store::compare::DifferenceKind;

#[derive(Debug, Args)]
pub(super) struct RebuildArguments {
    /// Build the tables as of this time, such as 2026-11-22T00:00:00Z: only earlier events count.
    #[arg(long, value_parser = time_of, requires = "into")]
    until: Option<OffsetDateTime>,
    /// Build the tables in this new schema, and leave the present tables unchanged.
    #[arg(long, value_parser = schema)]
    into: Option<String>,
    /// Continue although events cannot be read and are not in quarantine: their rows in the present tables are lost.
    #[arg(long, conflicts_with = "into")]
    without_unreadable: bool,
    /// Continue although the log lacks rows of the present tables: the rows are dropped, and the numbers printed.
    #[arg(long, conflicts_with = "into")]
    drop_missing: bool,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Compare only rows of this UTC day and later days, such as 2026-11-22.
    #[arg(long, value_parser = day)]
    since: Option<Date>,
}

/// The error of `recorder verify` for tables that differ from the log, with the number of rows.
#[derive(Debug, thiserror::Error)]
#[error("{0} rows differ from the log")]
pub(super) struct TablesDiffer(i64);

pub(super) async fn run_rebuild(arguments: RebuildArguments, config: Config) -> anyhow::Result<()> {
    let RebuildArguments { until, into, without_unreadable, drop_missing } = arguments;
    let (mut connection, client) = connect_servers(&config).await?;
    config.log.start_on_stderr();
    let progress = Progress::new();
    let options = RebuildOptions { into, as_of: until, without_unreadable, drop_missing };
    let done = rebuild(&mut connection, client, &options, cancel_on_signal(), &progress).await;
    progress.clear();
    let RebuildReport { stats, lost } = done?;
    let lost = if lost.is_empty() { String::new() } else { format!("; the log lacked rows: {lost}") };
    let place = options.into.map_or("the tables".to_owned(), |schema| format!("schema {schema}"));
    print(&format!("rebuilt {place} from {} events{}{lost}", stats.events, summary_suffix(stats)))
}

pub(super) async fn run_verify(arguments: VerifyArguments, config: Config) -> anyhow::Result<()> {
    let (mut connection, client) = connect_servers(&config).await?;
    config.log.start_on_stderr();
    let progress = Progress::new();
    let verified = verify(&mut connection, client, arguments.since, cancel_on_signal(), &progress).await;
    progress.clear();
    let verified = verified?;
    for row in &verified.explained {
        print(&line(row))?;
    }
    for table in &verified.tables {
        let untold = table.differences - i64::try_from(table.listed.len()).unwrap_or_default();
        if untold > 0 {
            print(&format!("{}: {untold} more differ", table.table.name()))?;
        }
    }
    if verified.unrecorded > 0 {
        print(&format!("{} events of the log are not in the tables yet", verified.unrecorded))?;
    }
    let rows = rows(&verified);
    match verified.differences() {
        0 => print(&format!("identical: {rows}{}", summary_suffix(verified.stats))),
        differences => {
            print(&format!("different: {differences} of {rows}{}", summary_suffix(verified.stats)))?;
            Err(TablesDiffer(differences).into())
        }
    }
}

/// Connects to the broker, and to the database over a connection taken out of the pool: session state is never reused.
pub(super) async fn connect_servers(config: &Config) -> anyhow::Result<(PgConnection, async_nats::Client)> {
    let client = source::connect_now(config.broker()?, BrokerRole::Operator).await?;
    let connection = pool(config)?.acquire().await.context("the database cannot be reached")?.detach();
    Ok((connection, client))
}

/// Returns a token that is cancelled at the first signal.
pub(super) fn cancel_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        if shared::shutdown::requested().await.is_ok() {
            token.cancel();
        }
    });
    stop
}

fn rows(verified: &VerifyReport) -> String {
    let mut tables: Vec<_> = verified.tables.iter().collect();
    tables.sort_by_key(|table| table.table);
    tables.into_iter().map(|table| format!("{} {}", table.rows, table.table.row_label())).collect::<Vec<_>>().join(", ")
}

/// Returns the rest of the summary line: chats older than the log, and events left out.
pub(super) fn summary_suffix(done: ReprojectionStats) -> String {
    let some = |number: u64, what: &str| if number > 0 { format!("; {number} {what}") } else { String::new() };
    some(done.carried_over, "chats are older than the log and taken as they are")
        + &some(done.undecodable - done.lost, "events cannot be read, as when they were put into quarantine")
        + &some(done.lost, "events cannot be read, and are not in quarantine")
        + &some(done.refused, "events were refused, as when they were put into quarantine")
}

fn line(row: &ExplainedDifference) -> String {
    let difference = &row.difference;
    let key = difference.key.iter().map(|(column, value)| format!("{column}={}", unquoted(value)));
    let what = match &difference.kind {
        DifferenceKind::Extra => "is in the table, and not in the log".to_owned(),
        DifferenceKind::Missing => "is in the log, and not in the table".to_owned(),
        DifferenceKind::Columns(columns) => columns.iter().map(column).collect::<Vec<_>>().join("; "),
    };
    let events = row.events.iter().map(|event| {
        let name = event.event_type.name();
        format!("{name} {} at sequence {}", event.id, event.sequence)
    });
    let events = match row.count {
        0 => "no event in the log is about it".to_owned(),
        count if count > row.events.len() => {
            format!("{count} events in the log are about it, the last ones {}", events.collect::<Vec<_>>().join(", "))
        }
        _ => format!("see {}", events.collect::<Vec<_>>().join(", ")),
    };
    format!("{} {}: {what} ({events})", difference.table.name(), key.collect::<Vec<_>>().join(" "))
}

/// Returns a difference in one column. Text of a chat is never printed: for such columns, only the sizes.
fn column((column, table, log): &(String, Value, Value)) -> String {
    let shown = ["status", "role", "stage", "dialect", "usage_source", "finish_reason", "model", "date"];
    let may_show = shown.contains(&column.as_str()) || column.ends_with("_id") || column.ends_with("_at");
    match (table, log) {
        (Value::String(_) | Value::Array(_) | Value::Object(_), _) | (_, Value::String(_)) if !may_show => {
            format!("{column} differs ({}, the log says {})", value_size(table), value_size(log))
        }
        _ => format!("{column} is {}, the log says {}", unquoted(table), unquoted(log)),
    }
}

fn value_size(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => format!("{} characters", text.chars().count()),
        value => format!("{} bytes of JSON", value.to_string().len()),
    }
}

fn unquoted(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn time_of(text: &str) -> anyhow::Result<OffsetDateTime> {
    if let Ok(day) = day(text) {
        return Ok(day.midnight().assume_utc());
    }
    OffsetDateTime::parse(text, &Rfc3339).context("expected a time such as 2026-11-22T00:00:00Z, or a day")
}

fn day(text: &str) -> anyhow::Result<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).context("expected a day such as 2026-11-22")
}

fn schema(text: &str) -> anyhow::Result<String> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let sound = plain && (1..=63).contains(&text.len()) && !text.starts_with(|c: char| c.is_ascii_digit());
    ensure!(sound && !text.starts_with("pg_"), "expected a name of lower-case letters, digits and _, not pg_...");
    Ok(text.to_owned())
}
