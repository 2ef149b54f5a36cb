//! One long outage under load, of the broker or of the database with further faults. Reports latencies, memory of the gateway
//! and the time to catch up, and checks the invariants of a round.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

use crate::chaos::clients::{Client, ObservedChat, ObservedEnd};
use crate::chaos::invariants::{ChatCounts, answer_text, violations};
use crate::chaos::plan::{Broker, Fault, FaultTarget, GATEWAYS};
use crate::chaos::testbed::REST;
use crate::chaos::testbed::Testbed;
use crate::oracle::Oracle;
use harness::upstream::answer;

/// The server that fails during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Outage {
    /// nats-server is killed and started again.
    Broker,
    /// PostgreSQL is killed and started again, then read-only for a fifth of the time, as after a failover. Meanwhile a
    /// recorder and a gateway are killed.
    Database,
}

/// Duration of the load before the outage, and after the outage.
const WELL: Duration = Duration::from_secs(30);

/// Range of the pause between two chats of one client, in milliseconds.
const BETWEEN: std::ops::Range<u64> = 100..300;

/// Index of the surviving gateway, and of the gateway that may be killed.
const LIVES: usize = 0;
const DIES: usize = 1;

/// A period of time, measured by the clients of the surviving gateway.
#[derive(Clone, Debug)]
pub struct Period {
    name: &'static str,
    chats: u64,
    broken: u64,
    /// Time from the request to the end of the answer, in microseconds.
    median: u64,
    p99: u64,
    /// Maximum memory of the surviving gateway in the period, in KB.
    resident_kb: u64,
}

/// Results of an outage.
#[derive(Clone, Debug)]
pub struct Report {
    /// The periods before, during and after the outage.
    pub periods: Vec<Period>,
    /// Numbers of chats, of all gateways together.
    pub counts: ChatCounts,
    /// Time from the end of the outage until all chats were recorded. Load continues in the first part of the time.
    pub caught_up: Duration,
}

/// Plays an outage. An error is a violated invariant, or a process that did not come back.
pub async fn outage(
    outage: Outage,
    lasting: Duration,
    clients: usize,
    gateway: &[(String, String)],
) -> anyhow::Result<Report> {
    let mut testbed = Testbed::start(Broker::Single, gateway).await?;
    let result = play(&testbed, outage, lasting, clients).await;
    if result.is_err() {
        testbed.keep_directory();
    }
    result.with_context(|| format!("logs and data are in {}", testbed.directory().display()))
}

async fn play(testbed: &Testbed, outage: Outage, lasting: Duration, clients: usize) -> anyhow::Result<Report> {
    testbed.upstream.respond_with(|request| {
        let question = harness::openai::ChatRequest::parse(&request.body).map(|chat| chat.question());
        answer(request, &answer_text(&question.unwrap_or_default()))
    });
    let user = testbed.user("ann").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let urls = testbed.gateway_urls().await;
    let clients = (0..clients).map(|number| Client {
        number,
        user: user.clone(),
        // Each client has one gateway, so that the clients of the surviving gateway do not see the end of the other
        // gateway.
        gateways: vec![urls[number % GATEWAYS].clone()],
        stop: Arc::clone(&stop),
        between: BETWEEN,
        leaves: false,
        padding: String::new(),
    });
    let clients: Vec<_> = clients.map(|client| tokio::spawn(client.run(0))).collect();

    let began = Instant::now();
    let mut memory = Vec::new();
    watch(testbed, WELL, &mut memory).await?;
    let broke = Instant::now();
    let (injected, watched) =
        tokio::join!(inject(testbed, outage, lasting), watch(testbed, whole(outage, lasting), &mut memory));
    injected.and(watched)?;
    let mended = Instant::now();
    watch(testbed, WELL, &mut memory).await?;
    stop.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for client in clients {
        seen.extend(client.await?);
    }
    testbed.recover().await?;
    testbed.at_rest(REST).await?;
    let oracle = Oracle::settled(&testbed.nats_url, &testbed.direct.database_url, REST).await?;
    let caught_up = mended.elapsed();
    let (wrong, counts) = violations(&seen, &testbed.upstream.chats(), &oracle);
    ensure!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));

    let of = |name, from: Instant, to: Instant| period(name, &seen, &urls[LIVES], &memory, from, to);
    let periods =
        vec![of("before", began, broke)?, of("meanwhile", broke, mended)?, of("after", mended, Instant::now())?];
    Ok(Report { periods, counts, caught_up })
}

/// Total duration of the outage.
fn whole(outage: Outage, lasting: Duration) -> Duration {
    match outage {
        Outage::Broker => lasting,
        Outage::Database => lasting + lasting / 5,
    }
}

async fn inject(testbed: &Testbed, outage: Outage, lasting: Duration) -> anyhow::Result<()> {
    match outage {
        Outage::Broker => testbed.inject(Fault::Kill(FaultTarget::Broker(0), lasting)).await,
        Outage::Database => {
            let database = async {
                testbed.inject(Fault::Kill(FaultTarget::Database, lasting)).await?;
                testbed.inject(Fault::ReadOnly(lasting / 5)).await
            };
            let others = async {
                sleep(lasting / 4).await;
                // A recorder started during the outage of the database may refuse to start until the database is back.
                tokio::try_join!(
                    testbed.inject(Fault::Kill(FaultTarget::Gateway(DIES), lasting / 20)),
                    testbed.inject(Fault::Kill(FaultTarget::Recorder(0), lasting)),
                )
            };
            tokio::try_join!(database, others).map(drop)
        }
    }
}

/// Samples the memory of the surviving gateway for this time.
async fn watch(testbed: &Testbed, long: Duration, memory: &mut Vec<(Instant, u64)>) -> anyhow::Result<()> {
    let end = Instant::now() + long;
    while Instant::now() < end {
        memory.push((Instant::now(), testbed.gateway_resident_kb(LIVES).await?));
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

fn period(
    name: &'static str,
    seen: &[ObservedChat],
    gateway: &str,
    memory: &[(Instant, u64)],
    from: Instant,
    to: Instant,
) -> anyhow::Result<Period> {
    let mut took = Histogram::<u64>::new(3)?;
    let mut broken = 0;
    for chat in seen.iter().filter(|chat| chat.gateway == gateway && chat.began >= from && chat.began < to) {
        if chat.saw_the_end() {
            took.record(u64::try_from(chat.took.as_micros())?)?;
        } else if chat.end != ObservedEnd::Left {
            broken += 1;
        }
    }
    let resident_kb = memory.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, kb)| *kb).max().unwrap_or(0);
    let (median, p99) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
    Ok(Period { name, chats: took.len(), broken, median, p99, resident_kb })
}

impl Report {
    /// Difference of the median latencies during and before the outage. Zero if the outage was no slower.
    pub fn added(&self) -> Duration {
        let median = |name| self.periods.iter().find(|period| period.name == name).map_or(0, |s| s.median);
        Duration::from_micros(median("meanwhile").saturating_sub(median("before")))
    }

    /// Number of the surviving gateway's chats that broke or were refused.
    pub fn broken(&self) -> u64 {
        self.periods.iter().map(|period| period.broken).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>10} {:>8} {:>8} {:>12} {:>12} {:>10}",
            "", "chats", "broken", "median, ms", "p99, ms", "MB at most"
        )?;
        #[expect(clippy::cast_precision_loss, reason = "the value is printed with two digits")]
        let (ms, mb) = (|micros: u64| micros as f64 / 1000.0, |kb: u64| kb as f64 / 1024.0);
        for Period { name, chats, broken, median, p99, resident_kb } in &self.periods {
            let (median, p99, resident) = (ms(*median), ms(*p99), mb(*resident_kb));
            writeln!(f, "{name:>10} {chats:>8} {broken:>8} {median:>12.2} {p99:>12.2} {resident:>10.1}")?;
        }
        let ChatCounts { asked, seen, recorded, events, .. } = self.counts;
        writeln!(
            f,
            "{asked} chats asked of all gateways, {seen} seen to the end, {recorded} recorded, {events} events"
        )?;
        writeln!(f, "added at the median: {:.2} ms", ms(u64::try_from(self.added().as_micros()).unwrap_or(u64::MAX)))?;
        write!(f, "everything was on the record {:.1?} after the outage, of which {WELL:.0?} more load", self.caught_up)
    }
}
