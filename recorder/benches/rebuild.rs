//! Events per second of recording, rebuilding and verifying a log, against reading it alone and against raw COPY of the very
//! rows into the same tables with the same indexes, in the same run.
//!
//!     DATABASE_URL=postgres://... NATS_URL=nats://... cargo bench -p recorder --bench rebuild
//!
//! DATABASE_URL names a server on which databases may be created (best over a Unix socket: see the benchmark of the store),
//! NATS_URL one with JetStream and without our stream: the benchmark makes both of its own and drops them. CHATS changes how
//! much is written.
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]

mod copy;
mod events;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use prometheus_client::registry::Registry;
use recorder::batch::Limits;
use recorder::consume::Consume;
use recorder::metrics::Metrics;
use recorder::projection::tables::Table;
use recorder::rebuild::{Phase, Plan, Tell, rebuild};
use recorder::reproject::Done;
use recorder::source::log::{Ending, Log, Span, Start};
use recorder::source::{Source, connect, setup};
use recorder::store;
use recorder::verify::verify;
use recorder::watchdog::Watchdog;
use secrecy::SecretString;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio_util::sync::CancellationToken;

const CONVERSATIONS: u64 = 50_000;
/// How many events are on their way to the broker at once.
const IN_FLIGHT: usize = 256;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL").context("expected DATABASE_URL")?;
    let client = connect(&std::env::var("NATS_URL").context("expected NATS_URL")?).await?;
    let chats = std::env::var("CHATS").map_or(Ok(100_000), |text| text.parse())?;
    let jetstream = jetstream::new(client.clone());
    ensure!(jetstream.get_stream(shared::stream::NAME).await.is_err(), "this broker has our stream: expected none");
    let name = format!("stenograph_bench_{}", std::process::id());
    let server = PgPool::connect(&url).await?;
    server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let (base, _) = url.rsplit_once('/').context("expected a database in DATABASE_URL")?;
    let measured = measure(&client, &jetstream, format!("{base}/{name}"), chats).await;
    jetstream.delete_stream(shared::stream::NAME).await?;
    server.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    measured
}

async fn measure(client: &Client, jetstream: &Context, url: String, chats: u64) -> anyhow::Result<()> {
    let pool = store::connect(&SecretString::from(url), 4)?;
    store::migrate(&pool).await?;
    setup::create(jetstream, setup::Choices::default()).await?;
    let events = publish(jetstream, chats).await?;
    let per_second = |what: &str, took: Duration| {
        println!("{what:40} {:8.0} events/s", events as f64 / took.as_secs_f64());
        took.as_secs_f64()
    };

    let began = Instant::now();
    let span = Span { from: Start::Beginning, to: None, subjects: Vec::new(), ending: Ending::Stop };
    let mut log = Log::open(client.clone(), span).await?;
    while let Some(delivery) = log.next().await? {
        delivery.read()?;
    }
    per_second("reading and decoding the log alone", began.elapsed());

    let began = Instant::now();
    consume(client, jetstream, &pool).await?;
    per_second("consume, one recorder", began.elapsed());

    let rows = Arc::new(copy::Rows::read(&pool).await?);
    copy::empty(&pool).await?;
    let began = Instant::now();
    copy::all(&pool, &rows, &Table::ALL, events.div_ceil(4000), 1).await?;
    let copied = per_second("COPY of all rows, indexes included", began.elapsed());

    let mut connection = pool.acquire().await?.detach();
    let began = Instant::now();
    rebuild(&mut connection, client.clone(), &Plan::default(), CancellationToken::new(), &Nobody).await?;
    let rebuilt = per_second("rebuild", began.elapsed());

    let mut connection = pool.acquire().await?.detach();
    let began = Instant::now();
    let verified = verify(&mut connection, client.clone(), None, CancellationToken::new(), &Nobody).await?;
    ensure!(verified.differences() == 0, "{} rows differ", verified.differences());
    per_second("verify", began.elapsed());
    println!("rebuild/COPY {:.2}", copied / rebuilt);
    Ok(())
}

struct Nobody;

impl Tell for Nobody {
    fn phase(&self, _: Phase) {}
    fn done(&self, _: Done) {}
}

async fn publish(jetstream: &Context, chats: u64) -> anyhow::Result<usize> {
    let encoded = events::encoded(chats, CONVERSATIONS);
    let events = encoded.len();
    let mut waiting = std::collections::VecDeque::new();
    for event in encoded {
        let subject = shared::subject::of(event.kind, event.decode().user_id());
        let mut headers = HeaderMap::new();
        headers.insert(shared::envelope::TYPE, event.kind.type_name());
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

/// Records until nothing is left to record.
async fn consume(client: &Client, jetstream: &Context, pool: &PgPool) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::register(&mut Registry::default()));
    let source = Source::new(client.clone(), Limits::default());
    let watchdog = Watchdog::new(client.clone(), pool.clone(), Arc::clone(&metrics));
    let consuming = tokio::spawn(Consume::new(source, watchdog, pool.clone(), metrics, stop.clone()).run());
    let mut consumer = setup::consumer(jetstream).await?;
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
