//! Events per second and peak memory of recording, exporting, rebuilding and verifying a log. Yardsticks from the same
//! run are reading the log alone, and raw COPY of the same rows into the same tables.
//!
//!     DATABASE_URL=postgres://... NATS_URL=nats://... cargo bench -p recorder --bench rebuild
//!
//! DATABASE_URL names a server that allows the creation of databases (best over a Unix socket: see the benchmark of the
//! store). NATS_URL names a server with JetStream and without Stenograph's stream. The benchmark creates its own
//! database and stream, and drops both. CHATS sets the number of chats, TEXT the bytes of text in each message.
//! Temporary files in TMPDIR need about as many bytes as the log.
#![expect(clippy::print_stdout, reason = "a benchmark prints its measurements")]

mod copy;
mod events;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use prometheus_client::registry::Registry;
use recorder::metrics::Metrics;
use recorder::pipeline::consume::Pipeline;
use recorder::pipeline::consumer_watchdog::ConsumerWatchdog;
use recorder::policy::batch::BatchLimits;
use recorder::policy::blockage::Blockage;
use recorder::projection::tables::Table;
use recorder::rebuild::reprojection::ReprojectionStats;
use recorder::rebuild::verify::verify;
use recorder::rebuild::{ProgressListener, RebuildOptions, RebuildPhase, rebuild};
use recorder::replay::export::Export;
use recorder::replay::filter::Filter;
use recorder::source::log::{LogRange, LogReader, RangeEnd, RangeStart};
use recorder::source::{Source, connect, setup};
use recorder::store;
use secrecy::SecretString;
use shared::nats::BrokerConfig;
use shared::traces::Tracer;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio_util::sync::CancellationToken;

use events::Chats;

/// The number of events published but not yet acknowledged by the broker.
const IN_FLIGHT: usize = 256;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
    let client = connect(&BrokerConfig::from_url(&std::env::var("NATS_URL").context("NATS_URL is not set")?)?).await?;
    let mut chats = Chats::of(std::env::var("CHATS").map_or(Ok(100_000), |text| text.parse())?);
    if let Ok(text) = std::env::var("TEXT") {
        chats.text = text.parse().context("TEXT: expected a number of bytes")?;
    }
    let jetstream = jetstream::new(client.clone());
    ensure!(
        jetstream.get_stream(shared::stream::NAME).await.is_err(),
        "the broker already has Stenograph's stream: expected a broker without the stream"
    );
    let name = format!("stenograph_bench_{}", std::process::id());
    let server = PgPool::connect(&url).await?;
    server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let (base, _) =
        url.rsplit_once('/').context("DATABASE_URL: expected the name of a database after the last slash")?;
    let measured = measure(&client, &jetstream, format!("{base}/{name}"), chats).await;
    jetstream.delete_stream(shared::stream::NAME).await?;
    server.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    measured
}

async fn measure(client: &Client, jetstream: &Context, url: String, chats: Chats) -> anyhow::Result<()> {
    let pool = store::connect(&SecretString::from(url), 4)?;
    store::migrate(&pool).await?;
    setup::create(jetstream, setup::StreamOptions::default()).await?;
    let meter = Meter::start()?;
    let events = publish(jetstream, chats).await?;
    println!("{events} events, {} bytes of text in each message", chats.text);
    meter.stop("publish", events)?;

    let meter = Meter::start()?;
    let mut log = LogReader::open(client.clone(), whole_log()).await?;
    while log.next().await?.is_some() {}
    meter.stop("reading the log alone", events)?;

    let meter = Meter::start()?;
    let mut log = LogReader::open(client.clone(), whole_log()).await?;
    while let Some(delivery) = log.next().await? {
        delivery.decode()?;
    }
    let read = meter.stop("reading and decoding the log", events)?;

    let meter = Meter::start()?;
    let directory = tempfile::tempdir()?;
    let (filter, directory) = (Filter::default(), directory.path().join("export"));
    let export = Export { filter, from: RangeStart::Beginning, to: None, directory };
    export.run(client.clone(), &mut |_| {}).await?;
    let exported = meter.stop("replay to Parquet", events)?;
    std::fs::remove_dir_all(&export.directory)?;

    let meter = Meter::start()?;
    consume(client, jetstream, &pool).await?;
    meter.stop("consume, one recorder", events)?;

    let mut connection = pool.acquire().await?.detach();
    let meter = Meter::start()?;
    rebuild(&mut connection, client.clone(), &RebuildOptions::default(), CancellationToken::new(), &Phases::default())
        .await?;
    let rebuilt = meter.stop("rebuild", events)?;

    let mut connection = pool.acquire().await?.detach();
    let meter = Meter::start()?;
    let verified = verify(&mut connection, client.clone(), None, CancellationToken::new(), &Phases::default()).await?;
    ensure!(verified.differences() == 0, "{} rows differ", verified.differences());
    meter.stop("verify", events)?;

    let rows = Arc::new(copy::Rows::read(&pool).await?);
    copy::empty(&pool).await?;
    let meter = Meter::start()?;
    copy::all(&pool, &rows, &Table::ALL, events.div_ceil(4000), 1).await?;
    let copied = meter.stop("COPY of all rows, indexes there", events)?;

    copy::empty(&pool).await?;
    let indexes = drop_indexes(&pool).await?;
    let meter = Meter::start()?;
    copy::all(&pool, &rows, &Table::ALL, events.div_ceil(4000), 1).await?;
    for index in indexes {
        pool.execute(AssertSqlSafe(format!("SET statement_timeout = 0; {index}"))).await?;
    }
    let bare = meter.stop("COPY of all rows, then the indexes", events)?;
    println!("replay/reading {:.2}", read / exported);
    println!("rebuild/COPY {:.2}, with the indexes made afterwards {:.2}", copied / rebuilt, bare / rebuilt);
    Ok(())
}

/// Drops all indexes except for keys, and returns the statements that create the indexes again.
async fn drop_indexes(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    let tables = Table::ALL.map(|table| table.name().to_owned()).to_vec();
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE schemaname = 'public' AND tablename = ANY($1)
           AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)",
    )
    .bind(tables)
    .fetch_all(pool)
    .await?;
    let mut definitions = Vec::new();
    for (name, definition) in indexes {
        pool.execute(AssertSqlSafe(format!("DROP INDEX {name}"))).await?;
        definitions.push(definition);
    }
    Ok(definitions)
}

fn whole_log() -> LogRange {
    LogRange { from: RangeStart::Beginning, to: None, subjects: Vec::new(), end: RangeEnd::Stop }
}

/// Measures the time and memory of one step.
struct Meter {
    began: Instant,
    memory: u64,
}

impl Meter {
    fn start() -> anyhow::Result<Self> {
        // Resets the peak memory (VmHWM) of the process to the current memory.
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self { began: Instant::now(), memory: memory("VmRSS")? })
    }

    /// Prints the measurements, and returns the duration in seconds.
    fn stop(self, what: &str, events: usize) -> anyhow::Result<f64> {
        let took = self.began.elapsed().as_secs_f64();
        let rate = events as f64 / took;
        let (before, peak) = (self.memory, memory("VmHWM")?);
        println!("{what:36} {took:7.1} s {rate:8.0} events/s {peak:6} MB at most, {before} MB before");
        Ok(took)
    }
}

/// A memory figure of this process, in MB.
fn memory(what: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .context("/proc/self/status has no such memory figure")?;
    let kilobytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kilobytes / 1024)
}

/// Prints the time at which each phase begins.
struct Phases(Instant);

impl Default for Phases {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl ProgressListener for Phases {
    fn phase_started(&self, phase: RebuildPhase) {
        println!("    {:7.1} s {phase:?}", self.0.elapsed().as_secs_f64());
    }

    fn advanced(&self, _: ReprojectionStats) {}
}

async fn publish(jetstream: &Context, chats: Chats) -> anyhow::Result<usize> {
    let mut events = 0;
    let mut waiting = std::collections::VecDeque::new();
    for event in chats.events() {
        events += 1;
        let decoded = event.decode();
        let subject = shared::subject::of(event.kind, decoded.user_id());
        let mut headers = HeaderMap::new();
        for (name, value) in shared::envelope::headers(&decoded, "/gateway/gateway-1") {
            headers.insert(name, value);
        }
        waiting.push_back(jetstream.publish_with_headers(subject, headers, event.payload.into()).await?);
        if waiting.len() == IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await?;
        }
    }
    for acknowledgement in waiting {
        acknowledgement.await?;
    }
    Ok(events)
}

/// Records until no event is left in the consumer.
async fn consume(client: &Client, jetstream: &Context, pool: &PgPool) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::register(&mut Registry::default()));
    let blockage = Arc::new(Blockage::default());
    let source = Source::new(client.clone(), BatchLimits::default(), Arc::clone(&blockage));
    let watchdog = ConsumerWatchdog::new(client.clone(), pool.clone(), Arc::clone(&metrics));
    let consuming = tokio::spawn(
        Pipeline::new(source, watchdog, pool.clone(), metrics, blockage, (stop.clone(), Tracer::default())).run(),
    );
    let mut consumer = setup::verified_consumer(jetstream).await?;
    loop {
        let info = consumer.info().await?;
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    Ok(consuming.await??)
}
