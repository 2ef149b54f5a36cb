//! A few short rounds of chaos; `target/debug/chaos` plays as many as one has time for. See docs/RELIABILITY.md.

use std::time::Duration;

use tests::chaos::plan::{Broker, JournalSize};
use tests::chaos::round::{Settings, round};

/// Plays a round. The faults depend on the seed alone; the scheduling of processes does not.
async fn play(seed: u64, (broker, journals): (Broker, JournalSize), gateway: &[(&str, &str)]) -> anyhow::Result<()> {
    let settings = Settings {
        seed,
        broker,
        journals,
        span: Duration::from_secs(5),
        every: Duration::from_millis(600),
        clients: 12,
        gateway: gateway.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let report = round(&settings).await?;
    assert!(report.counts.recorded > 0, "nothing was recorded, so the round proves nothing: {report:?}");
    Ok(())
}

// A single test runs the rounds in sequence, because parallel rounds slow each other down.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_says_what_the_clients_saw() -> anyhow::Result<()> {
    for (seed, level) in [(11, "replicated"), (12, "synced"), (13, "journal")] {
        play(seed, (Broker::Single, JournalSize::Large), &[("GATEWAY_DURABILITY", level)]).await?;
    }
    play(14, (Broker::Cluster, JournalSize::Large), &[]).await?;
    play(15, (Broker::Single, JournalSize::Small), &[]).await
}
