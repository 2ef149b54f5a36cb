//! `recorder replay`: reads the log and writes lines of JSON or Parquet files.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use shared::event::EventKind;
use shared::id::{ConversationId, UserId};
use shared::nats::BrokerRole;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::Config;
use crate::replay::dedup::SeenEvents;
use crate::replay::export::{Export, ExportProgress};
use crate::replay::filter::Filter;
use crate::replay::json_lines::{EventLine, FieldPath};
use crate::replay::parquet;
use crate::source::log::{LogRange, LogReader, RangeEnd, RangeStart};
use crate::source::{self};

/// The maximum number of event ids kept in memory; further ids go to temporary files.
const SEEN_IN_MEMORY: usize = 500_000;

/// The number of buffered bytes after which lines are written.
const BLOCK: usize = 64 << 10;

/// The tolerated clock difference: the broker may have stored an event this much before the event's own time.
const CLOCK_SKEW: time::Duration = time::Duration::minutes(5);

/// Read the log as JSON lines on standard output, or as Parquet files. Each event comes once; recorders are not
/// affected.
#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Directory for Parquet files: a new directory, or the directory of an interrupted export to resume.
    #[arg(long, required_if_eq("format", "parquet"), value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Only these members of each line, such as id,time,data.usage.total_tokens.
    #[arg(long, value_delimiter = ',', value_name = "MEMBER,...")]
    fields: Vec<FieldPath>,
    /// Only events that happened at this time (RFC 3339, or a date in UTC) or later.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    since: Option<OffsetDateTime>,
    /// Only events that happened before this time.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    until: Option<OffsetDateTime>,
    /// First sequence of the stream to read.
    #[arg(long, value_name = "SEQUENCE")]
    from_sequence: Option<u64>,
    /// Last sequence of the stream to read.
    #[arg(long, value_name = "SEQUENCE")]
    to_sequence: Option<u64>,
    /// Only this user's events. All filters may be given more than once.
    #[arg(long, value_name = "ID")]
    user: Vec<UserId>,
    /// Only events of this kind: started, completed, failed, conversation_created and so on.
    #[arg(long, value_parser = kind, value_name = "KIND")]
    kind: Vec<EventKind>,
    /// Only events about this model, by the name in the client's request.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Only events of this conversation.
    #[arg(long, value_name = "ID")]
    conversation: Vec<ConversationId>,
    /// Continue with new events as they are published, until interrupted.
    #[arg(long, conflicts_with_all = ["to_sequence", "until"])]
    follow: bool,
    /// Do not show progress.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One event per line, as JSON.
    Jsonl,
    /// One row per chat and one row per message, partitioned by UTC day.
    Parquet,
}

pub(super) async fn run(arguments: ReplayArguments, config: Config) -> anyhow::Result<()> {
    if let (Some(since), Some(until)) = (arguments.since, arguments.until) {
        ensure!(since < until, "expected --since to be before --until");
    }
    if let (Some(from), Some(to)) = (arguments.from_sequence, arguments.to_sequence) {
        ensure!(from <= to, "expected --from-sequence not to be after --to-sequence");
    }
    if arguments.format == Format::Parquet {
        parquet::ensure_built()?;
    }
    let broker = config.broker()?.clone();
    config.log.start_on_stderr();
    let client = source::connect_now(&broker, BrokerRole::Analyst).await?;
    let bar = progress_bar(arguments.quiet || (arguments.format == Format::Jsonl && std::io::stdout().is_terminal()));
    let filter = Filter {
        users: arguments.user.into_iter().collect(),
        kinds: arguments.kind.into_iter().collect(),
        since: arguments.since,
        until: arguments.until,
        models: arguments.model.into_iter().collect(),
        conversations: arguments.conversation.into_iter().collect(),
    };
    let from = match (arguments.from_sequence, arguments.since) {
        (Some(sequence), _) => RangeStart::Sequence(sequence),
        // The broker stores an event at or after the time of the event, apart from clock differences.
        (None, Some(since)) => RangeStart::Time(since.saturating_sub(CLOCK_SKEW)),
        (None, None) => RangeStart::Beginning,
    };
    match (arguments.format, arguments.output) {
        (Format::Parquet, Some(directory)) => {
            if arguments.follow || !arguments.fields.is_empty() {
                bail!("--follow and --fields go with --format jsonl");
            }
            let export = Export { filter, from, to: arguments.to_sequence, directory };
            let done = export.run(client, &mut |progress| show(&bar, progress)).await?;
            bar.finish_and_clear();
            writeln!(
                std::io::stdout(),
                "exported {} chats, {} messages, {} events about conversations; {} deliveries were no readable events",
                done.chats,
                done.messages,
                done.conversation_events,
                done.unreadable
            )?;
            ensure_complete(done.unreadable)
        }
        (Format::Parquet, None) => bail!("--format parquet needs --output"),
        (Format::Jsonl, Some(_)) => bail!("--output goes with --format parquet; lines go to standard output"),
        (Format::Jsonl, None) => {
            let range = LogRange {
                from,
                to: arguments.to_sequence,
                subjects: filter.subjects(),
                end: if arguments.follow { RangeEnd::Follow } else { RangeEnd::Stop },
            };
            let log = LogReader::open(client, range).await?;
            let result = lines(log, &filter, &arguments.fields, &bar).await;
            bar.finish_and_clear();
            match result {
                // The reader of standard output, such as `head`, has closed the pipe: not an error.
                Err(error) if is_broken_pipe(&error) => Ok(()),
                other => other,
            }
        }
    }
}

async fn lines(mut log: LogReader, filter: &Filter, fields: &[FieldPath], bar: &ProgressBar) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut block = Vec::with_capacity(2 * BLOCK);
    let mut seen = SeenEvents::new(SEEN_IN_MEMORY);
    let (mut done, mut unreadable) = (0_u64, 0_u64);
    let mut missing_fields: BTreeSet<&str> = fields.iter().map(FieldPath::name).collect();
    while let Some(delivery) = log.next().await? {
        done += 1;
        if filter.matches_envelope(&delivery) {
            let line = EventLine::from_delivery(&delivery);
            let id = delivery.header(shared::envelope::ID).and_then(|id| id.parse().ok());
            let wanted = match filter.needs_payload().then(|| delivery.decode()) {
                None => Some(true),
                Some(Ok(event)) => Some(filter.matches(&event)),
                // Nobody can say whether the event was asked for.
                Some(Err(_)) => None,
            };
            match (line, id, wanted) {
                (Some(line), Some(id), Some(wanted)) => {
                    if wanted && seen.insert(id).context("the temporary directory cannot be used")? {
                        match fields {
                            [] => line.write(&mut block)?,
                            fields => line.write_fields(fields, &mut block, |name| {
                                missing_fields.remove(name);
                            })?,
                        }
                    }
                }
                _ => {
                    unreadable += 1;
                    let error = delivery.decode().err().map(|error| error.to_string());
                    tracing::warn!(
                        sequence = delivery.sequence(),
                        event = delivery.event_id(),
                        error,
                        "an event is left out: it cannot be read"
                    );
                }
            }
        }
        // Buffered lines are written at once if no more events are due now.
        if block.len() >= BLOCK || log.pending() == 0 {
            out.write_all(&block)?;
            out.flush()?;
            block.clear();
        }
        if done % 256 == 0 {
            show(bar, ExportProgress::Reading { done, left: log.pending() });
        }
    }
    out.write_all(&block)?;
    out.flush()?;
    // A field found in no event may be misspelt.
    missing_fields
        .into_iter()
        .for_each(|member| tracing::warn!(member, "no event has this member: check the spelling in --fields"));
    ensure_complete(unreadable)
}

/// Fails if events were left out, so that no script takes the output for complete.
fn ensure_complete(unreadable: u64) -> anyhow::Result<()> {
    ensure!(
        unreadable == 0,
        "{unreadable} events were left out, because they cannot be read: each is named in the log above. Everything else was \
         written"
    );
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Returns a progress bar on standard error; hidden if standard error is not a terminal.
fn progress_bar(hidden: bool) -> ProgressBar {
    if hidden || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} ({per_sec}, {eta} left)");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, progress: ExportProgress) {
    let (message, done, all) = match progress {
        ExportProgress::Reading { done, left } => ("reading", done, done + left),
        ExportProgress::Writing { done, all } => ("writing days", done, all),
    };
    if bar.message() != message {
        bar.reset();
        bar.set_message(message);
    }
    bar.set_length(all);
    bar.set_position(done);
}

fn kind(text: &str) -> Result<EventKind, String> {
    let found = EventKind::ALL.into_iter().find(|kind| kind.subject_token() == text);
    found.ok_or_else(|| {
        let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.subject_token()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    let whole = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    OffsetDateTime::parse(&whole, &Rfc3339)
        .map_err(|_| "expected a time such as 2026-01-31T12:00:00Z, or a date in UTC such as 2026-01-31".to_owned())
}
