//! Events per second through the real store (decode, project, one transaction for each batch). The yardstick from the
//! same run is raw COPY of the resulting rows into the same tables with the same indexes.
//!
//!     DATABASE_URL=postgres://... cargo bench -p recorder --bench store
//!
//! Best over a Unix socket (postgres://user@%2Frun%2Fpostgresql/postgres). sqlx does not set TCP_NODELAY, so over TCP
//! each COPY, made of two small writes, waits about 40 ms for a delayed acknowledgement and looks far slower than COPY
//! really is.
//!
//! DATABASE_URL names a server that allows the creation of databases: the benchmark creates its own database and drops
//! the database at the end. CHATS sets the number of chats and ROUNDS the number of rounds; BATCHES and WRITERS (such
//! as BATCHES=1000,2000) set the combinations to measure.
#![expect(clippy::print_stdout, reason = "a benchmark prints its measurements")]

mod copy;
mod events;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use recorder::projection::pricing::Prices;
use recorder::projection::project;
use recorder::projection::tables::Table;
use recorder::store;
use secrecy::SecretString;
use shared::event::Event;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::spawn_blocking;

use events::{Chats, Encoded};

/// The allocator of the recorder binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
    let chats = std::env::var("CHATS").map_or(Ok(20_000), |text| text.parse())?;
    let rounds = std::env::var("ROUNDS").map_or(Ok(3), |text| text.parse())?;
    let ways = (numbers("BATCHES", &[200, 1000, 2000])?, numbers("WRITERS", &[1, 2])?);
    let name = format!("stenograph_bench_{}", std::process::id());
    let server = PgPool::connect(&url).await?;
    server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let (base, _) =
        url.rsplit_once('/').context("DATABASE_URL: expected the name of a database after the last slash")?;
    let measured = measure(format!("{base}/{name}"), chats, rounds, ways).await;
    server.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    measured
}

/// Reads a list of numbers from an environment variable.
fn numbers(name: &str, defaults: &[usize]) -> anyhow::Result<Vec<usize>> {
    let Ok(list) = std::env::var(name) else { return Ok(defaults.to_vec()) };
    list.split(',').map(|number| number.trim().parse().with_context(|| format!("{name}: {number:?}"))).collect()
}

async fn measure(
    url: String,
    chats: u64,
    rounds: usize,
    (batches, concurrencies): (Vec<usize>, Vec<usize>),
) -> anyhow::Result<()> {
    let pool = store::connect(&SecretString::from(url), 4)?;
    store::migrate(&pool).await?;
    let chats = Chats::of(chats);
    let encoded = Arc::new(chats.events().collect::<Vec<_>>());
    println!(
        "{} events of {} bytes of text, {rounds} rounds: median events/s (least to most)",
        encoded.len(),
        chats.text
    );
    println!(
        "batch  writers  store                      COPY of all rows           COPY of messages           store/COPY"
    );
    for batch in batches {
        for &writers in &concurrencies {
            let (mut stored, mut copied, mut messages) = (Rates::default(), Rates::default(), Rates::default());
            for _ in 0..rounds {
                copy::empty(&pool).await?;
                stored.add(encoded.len(), store_all(&pool, &encoded, batch, writers).await?);
                let rows = Arc::new(copy::Rows::read(&pool).await?);
                copy::empty(&pool).await?;
                copied.add(
                    encoded.len(),
                    copy::all(&pool, &rows, &Table::ALL, encoded.len().div_ceil(batch), writers).await?,
                );
                copy::empty(&pool).await?;
                messages.add(
                    encoded.len(),
                    copy::all(&pool, &rows, &[Table::Messages], encoded.len().div_ceil(batch), writers).await?,
                );
            }
            let ratio = stored.median() / copied.median();
            println!("{batch:5}  {writers:7}  {stored:25}  {copied:25}  {messages:25}  {ratio:.2}");
        }
    }
    duplicates(&pool, &encoded).await
}

/// Measures the cost of delivering all events a second time.
async fn duplicates(pool: &PgPool, encoded: &Arc<Vec<Encoded>>) -> anyhow::Result<()> {
    copy::empty(pool).await?;
    store_all(pool, encoded, 1000, 1).await?;
    let mut rate = Rates::default();
    rate.add(encoded.len(), store_all(pool, encoded, 1000, 1).await?);
    println!("all of it once more, in batches of 1000, one writer: {rate}");
    Ok(())
}

async fn store_all(
    pool: &PgPool,
    encoded: &Arc<Vec<Encoded>>,
    batch: usize,
    writers: usize,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (pool, encoded) = (pool.clone(), Arc::clone(encoded));
        tokio::spawn(async move {
            // As in the recorder, the next batch is read and projected while PostgreSQL works on the current batch.
            let read = |from: usize| {
                let encoded = Arc::clone(&encoded);
                let to = encoded.len().min(from + batch);
                spawn_blocking(move || project(&encoded[from..to].iter().map(Encoded::decode).collect::<Vec<Event>>()))
            };
            let mut batches = (0..encoded.len()).step_by(batch).skip(writer).step_by(writers);
            let mut next = batches.next().map(read);
            let mut prices = Prices::default();
            while let Some(changes) = next {
                let changes = changes.await?;
                next = batches.next().map(read);
                store::apply(&pool, &mut prices, changes, &[]).await?;
            }
            anyhow::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(began.elapsed())
}

/// Events per second, one value for each round.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn add(&mut self, events: usize, took: Duration) {
        self.0.push(events as f64 / took.as_secs_f64());
        self.0.sort_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        f.pad(&format!("{:.0} ({least:.0} to {most:.0})", self.median()))
    }
}
