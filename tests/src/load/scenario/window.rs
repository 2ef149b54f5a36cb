//! State shared by the tasks of a scenario, and the CPU time of the measured window.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::load::client::{Arrival, ChatError, Connection, Endpoint, Reading, Request};
use crate::load::process_meter::{CpuTime, ProcessMeter};
use crate::load::scenario::outcome::{Failures, Outcome, Target};

/// Phase of a scenario. Only the second phase is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    WarmUp,
    Measuring,
    Over,
}

/// State shared by the tasks of one scenario, which run on one thread.
pub(super) struct ScenarioState {
    pub(super) phase: Cell<Phase>,
    pub(super) completed: Cell<u64>,
    pub(super) failures: RefCell<Failures>,
}

impl ScenarioState {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { phase: Cell::new(Phase::WarmUp), completed: Cell::new(0), failures: RefCell::default() })
    }

    pub(super) fn outcome(&self) -> Outcome {
        let failures = self.failures.borrow().clone();
        Outcome { completed: self.completed.get(), failures, ..Outcome::default() }
    }
}

/// CPU time of a target and of the target's broker at the start of the measured window.
pub(super) struct MeasurementWindow {
    target: Target,
    start: tokio::time::Instant,
    cpu: Option<CpuTime>,
    broker_cpu: Option<CpuTime>,
}

/// Duration and CPU time of the measured window.
pub(super) struct CpuUsage {
    seconds: f64,
    cpu: Option<Duration>,
    broker_cpu: Option<Duration>,
}

impl MeasurementWindow {
    pub(super) fn open(target: &Target) -> anyhow::Result<Self> {
        let cpu = target.meter.map(ProcessMeter::cpu).transpose()?;
        let broker_cpu = target.broker.map(ProcessMeter::cpu).transpose()?;
        Ok(Self { target: target.clone(), start: tokio::time::Instant::now(), cpu, broker_cpu })
    }

    pub(super) fn close(self) -> anyhow::Result<CpuUsage> {
        let seconds = self.start.elapsed().as_secs_f64();
        let since = |meter: Option<ProcessMeter>, earlier: Option<CpuTime>| {
            let Some((meter, earlier)) = meter.zip(earlier) else { return Ok(None) };
            meter.cpu().map(|now| Some(now.since(&earlier)))
        };
        let cpu = since(self.target.meter, self.cpu)?;
        Ok(CpuUsage { seconds, cpu, broker_cpu: since(self.target.broker, self.broker_cpu)? })
    }
}

impl CpuUsage {
    /// Adds the CPU time for each of `count` things called `thing`, and the number of things in a second.
    #[expect(clippy::cast_precision_loss, reason = "rounding is acceptable in a printed report")]
    pub(super) fn per(&self, outcome: &mut Outcome, thing: &str, count: u64) {
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

/// Sends a chat on the kept connection, or on a new one. Keeps the connection for the next chat if the chat succeeds.
pub(super) async fn chat_within(
    limit: Duration,
    kept: &mut Option<Connection>,
    endpoint: &Endpoint,
    request: &Request,
    on_chunk: &mut impl FnMut(Arrival),
) -> Result<Reading, ChatError> {
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
