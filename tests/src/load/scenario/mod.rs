//! What is done to a target, and what is measured of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::client::{ChatError, Connection, Endpoint, Request};
use super::meter::Meter;

pub mod closed;
pub mod held;
pub mod open;
pub mod paced;

/// What is put under load.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in the report.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its process, if that is known.
    pub meter: Option<Meter>,
    /// The broker's, if it has one of its own.
    pub broker: Option<Meter>,
}

/// What came out of one scenario on one target.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Chats that were complete, those outside the measured window too.
    pub completed: u64,
    /// Chats that were not.
    pub failures: Failures,
    /// What was measured, by name; the unit is the name's end.
    pub measures: BTreeMap<String, f64>,
}

impl Outcome {
    fn measure(&mut self, name: &str, value: f64) {
        self.measures.insert(name.to_owned(), value);
    }

    /// The quantiles of a latency, in microseconds.
    fn latency(&mut self, name: &str, latency: &Latency) {
        for (quantile, label) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            self.measure(&format!("{name}_{label}_us"), latency.micros(quantile));
        }
    }
}

/// Chats that did not count, and what the first of them said.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// Why, for the first few.
    pub reasons: Vec<String>,
}

impl Failures {
    fn add(&mut self, error: &ChatError) {
        self.count += 1;
        if self.reasons.len() < 3 {
            self.reasons.push(error.to_string());
        }
    }
}

/// A distribution of durations: to the nanosecond at the low end, three digits everywhere, up to 2 minutes.
#[derive(Debug)]
struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Self {
        // These bounds are valid, so the fallback is never taken.
        Self(Histogram::new_with_bounds(1, 120_000_000_000, 3).unwrap_or_else(|_| unreachable!("fixed bounds")))
    }

    fn record(&mut self, duration: Duration) {
        self.record_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Whether what happens is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    Over,
}

/// What the tasks of one scenario share; they all run on one thread.
struct Shared {
    phase: Cell<Phase>,
    completed: Cell<u64>,
    failures: RefCell<Failures>,
}

impl Shared {
    fn new() -> Rc<Self> {
        Rc::new(Self { phase: Cell::new(Phase::WarmUp), completed: Cell::new(0), failures: RefCell::default() })
    }

    fn outcome(&self) -> Outcome {
        let failures = self.failures.borrow().clone();
        Outcome { completed: self.completed.get(), failures, ..Outcome::default() }
    }
}

/// The CPU that a target, and its broker, use in a window.
struct Window {
    target: Target,
    start: tokio::time::Instant,
    cpu: Option<super::meter::CpuTime>,
    broker_cpu: Option<super::meter::CpuTime>,
}

/// What they used.
struct Used {
    seconds: f64,
    cpu: Option<Duration>,
    broker_cpu: Option<Duration>,
}

impl Window {
    fn open(target: &Target) -> anyhow::Result<Self> {
        let cpu = target.meter.map(Meter::cpu).transpose()?;
        let broker_cpu = target.broker.map(Meter::cpu).transpose()?;
        Ok(Self { target: target.clone(), start: tokio::time::Instant::now(), cpu, broker_cpu })
    }

    fn close(self) -> anyhow::Result<Used> {
        let seconds = self.start.elapsed().as_secs_f64();
        let since = |meter: Option<Meter>, earlier: Option<super::meter::CpuTime>| {
            let Some((meter, earlier)) = meter.zip(earlier) else { return Ok(None) };
            meter.cpu().map(|now| Some(now.since(&earlier)))
        };
        let cpu = since(self.target.meter, self.cpu)?;
        Ok(Used { seconds, cpu, broker_cpu: since(self.target.broker, self.broker_cpu)? })
    }
}

impl Used {
    /// Puts down the CPU for each of `count` things called `thing`, and how many of them there were in a second.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    fn per(&self, outcome: &mut Outcome, thing: &str, count: u64) {
        outcome.measure(&format!("{thing}s_per_s"), count as f64 / self.seconds);
        for (name, cpu) in [("cpu", self.cpu), ("broker_cpu", self.broker_cpu)] {
            if let Some(cpu) = cpu.filter(|_| count > 0) {
                outcome.measure(&format!("{name}_us_per_{thing}"), cpu.as_secs_f64() * 1e6 / count as f64);
            }
        }
        if let Some(cpu) = self.cpu {
            outcome.measure("core_percent", cpu.as_secs_f64() / self.seconds * 100.0);
        }
    }
}

/// One chat on a connection of its own or a kept one, which is left behind for the next if it is still good.
async fn chat_within(
    limit: Duration,
    kept: &mut Option<Connection>,
    endpoint: &Endpoint,
    request: &Request,
    on_chunk: &mut impl FnMut(super::client::Arrival),
) -> Result<super::client::Reading, ChatError> {
    let chat = async {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::open(endpoint.address).await?,
        };
        let reading = connection.chat(request, on_chunk).await?;
        *kept = Some(connection);
        Ok(reading)
    };
    tokio::time::timeout(limit, chat).await.map_err(|_| ChatError::Late)?
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::closed::Closed;
    use super::held::Held;
    use super::open::Open;
    use super::paced::Paced;
    use super::*;
    use crate::load::answer::{Answer, Writes};
    use crate::load::{passthrough, upstream};

    /// The upstream and the yardstick, in this process.
    async fn yardstick() -> Target {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (origin, proxy) = (listen().await.unwrap(), listen().await.unwrap());
        let url = format!("http://{}", origin.local_addr().unwrap());
        let address = proxy.local_addr().unwrap();
        tokio::task::spawn_local(upstream::serve(origin));
        tokio::task::spawn_local(passthrough::serve(proxy, url));
        let endpoint =
            Endpoint { address, host: address.to_string(), path: "/v1/chat/completions".to_owned(), token: None };
        Target { name: "passthrough".to_owned(), endpoint, meter: Some(Meter::of(std::process::id())), broker: None }
    }

    fn check(outcome: &Outcome, measures: &[&str]) {
        assert!(outcome.completed > 0 && outcome.failures.count == 0, "{outcome:?}");
        for name in measures {
            assert!(outcome.measures.get(*name).is_some_and(|value| *value > 0.0), "{name}: {outcome:?}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn every_scenario_completes_on_the_yardstick() {
        let target = yardstick().await;
        let window = Duration::from_millis(200);
        let chat = ["cpu_us_per_chat", "chats_per_s", "first_byte_p50_us", "total_p99_us"];
        check(&Closed::short(3, Writes::Each, window).run(&target).await.unwrap(), &chat);
        check(&Closed::short(3, Writes::Once, window).run(&target).await.unwrap(), &chat);
        check(&Closed::whole(3, window).run(&target).await.unwrap(), &chat);
        check(&Open::short(50, window).run(&target).await.unwrap(), &chat);
        let paced = Paced { streams: 5, pause: Duration::from_millis(20), window };
        check(&paced.run(&target).await.unwrap(), &["cpu_us_per_chunk", "chunks_per_s", "late_p50_us"]);
        let answer = Answer::paced(5, Duration::from_millis(100));
        let held = Held { streams: 10, answer, settle: Duration::from_millis(50), afterwards: window };
        check(&held.run(&target).await.unwrap(), &["idle_mb", "held_mb", "afterwards_mb"]);
    }

    #[tokio::test(flavor = "local")]
    async fn chats_that_are_refused_are_failures() {
        let target = yardstick().await;
        let closed =
            Closed { model: "no-such-model".to_owned(), ..Closed::short(2, Writes::Each, Duration::from_millis(50)) };
        let outcome = closed.run(&target).await.unwrap();
        assert_eq!(outcome.completed, 0);
        assert!(outcome.failures.count > 0 && outcome.failures.reasons[0].contains("404"), "{outcome:?}");
    }
}
