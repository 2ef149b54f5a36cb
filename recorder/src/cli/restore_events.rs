//! `recorder restore-events`: arguments and the printed report.

use clap::Args;

use super::output::print;
use super::progress::Progress;
use super::rebuild::{cancel_on_signal, connect_servers, summary_suffix};
use crate::config::Config;
use crate::rebuild::restore::{RestoreOptions, RestoreReport, restore_events};
use crate::store::losses::Losses;

/// Publish again, marked as restored, the events that the log has lost and whose rows the tables have, while everything
/// runs: after the broker was put back from an older copy. Exit status 4 if rows are left without events.
#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// Publish nothing, and print the number of events of each kind.
    #[arg(long)]
    dry_run: bool,
    /// Take events for lost that are in the log and cannot be read, as after the loss of bodies in bucket BODIES.
    #[arg(long)]
    unreadable_as_lost: bool,
    /// Take chats for lost that are older than the first event of a log whose oldest events were removed.
    #[arg(long)]
    older_as_lost: bool,
}

/// The error for rows whose events cannot be made again.
#[derive(Debug, thiserror::Error)]
#[error(
    "rows whose events cannot be made again, because no event gives these rows: {0}. `recorder verify` lists the rows"
)]
pub(super) struct NotAllRestored(Losses);

pub(super) async fn run(arguments: RestoreArguments, config: Config) -> anyhow::Result<()> {
    let RestoreArguments { dry_run, unreadable_as_lost, older_as_lost } = arguments;
    let (mut connection, client) = connect_servers(&config).await?;
    config.log.start_on_stderr();
    let progress = Progress::new();
    let options = RestoreOptions { dry_run, unreadable_as_lost, older_as_lost };
    let done = restore_events(&mut connection, client, &options, cancel_on_signal(), &progress).await;
    progress.clear();
    let RestoreReport { stats, restored, left } = done?;
    let total: u64 = restored.values().sum();
    let kinds = restored.iter().map(|(kind, number)| {
        let name = kind.type_name().split('.').nth(1).unwrap_or_default();
        format!("{number} {name}")
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let suffix = summary_suffix(stats);
    match (total, dry_run) {
        (0, _) => print(&format!("published nothing: no event was lost that can be made again{suffix}"))?,
        (_, true) => print(&format!("would publish {total} events: {kinds}{suffix}"))?,
        (_, false) => print(&format!("published {total} events: {kinds}{suffix}"))?,
    }
    if left.is_empty() { Ok(()) } else { Err(NotAllRestored(left).into()) }
}
