//! Scenario of an open loop: chats start at a fixed rate, whatever the state of earlier chats, and each latency counts from the
//! due time of the start. A target that stalls is charged for all delayed chats.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::answer::{Answer, Writes};
use crate::load::client::{ChatError, Connection, Reply, Request};
use crate::load::pacer::Pacer;
use crate::load::scenario::outcome::{Latency, Outcome, Target};
use crate::load::scenario::window::{MeasurementWindow, Phase, ScenarioState, chat_within};
use crate::load::stream_check::UsageChunk;

const CHAT_LIMIT: Duration = Duration::from_secs(30);
/// Upper bound of concurrent chats. Beyond the bound the target cannot keep up, and further chats count as failed.
const MOST_AT_ONCE: u32 = 4_000;

/// Settings of the scenario.
#[derive(Clone, Debug)]
pub struct Open {
    /// Number of chats started each second.
    pub rate: u32,
    /// Model of the requests.
    pub model: String,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub window: Duration,
}

struct Latencies {
    first_byte: Latency,
    total: Latency,
    /// Delay of the load generator behind the schedule.
    lag: Latency,
}

impl Open {
    /// Settings for short streams.
    pub fn short(rate: u32, window: Duration) -> Self {
        Self { rate, model: Answer::short(20, Writes::Each).to_string(), warm_up: window / 4, window }
    }

    /// Runs the scenario on a target.
    pub async fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        let shared = ScenarioState::new();
        let latencies =
            Rc::new(RefCell::new(Latencies { first_byte: Latency::new(), total: Latency::new(), lag: Latency::new() }));
        let request = Rc::new(Request::new(&target.endpoint, &self.model, Reply::Stream, UsageChunk::NotAsked));
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let at_once = Rc::new(Cell::new(0u32));
        let mut chats = tokio::task::JoinSet::new();
        let mut pacer = Pacer::start(Duration::from_secs(1) / self.rate.max(1))?;
        let begin = Instant::now();
        let mut window = None;
        let mut before = 0;
        loop {
            let due = pacer.tick().await?;
            if window.is_none() && due >= begin + self.warm_up {
                before = shared.completed.get();
                window = Some(MeasurementWindow::open(target)?);
                shared.phase.set(Phase::Measuring);
            }
            if due >= begin + self.warm_up + self.window {
                break;
            }
            if at_once.get() >= MOST_AT_ONCE {
                shared.failures.borrow_mut().add(&ChatError::Late);
                continue;
            }
            let (shared, latencies, request) = (shared.clone(), latencies.clone(), request.clone());
            let (idle, at_once, endpoint) = (idle.clone(), at_once.clone(), target.endpoint.clone());
            let measured = shared.phase.get() == Phase::Measuring;
            chats.spawn_local(async move {
                let lag = due.elapsed();
                at_once.set(at_once.get() + 1);
                let mut kept = idle.borrow_mut().pop();
                match chat_within(CHAT_LIMIT, &mut kept, &endpoint, &request, &mut |_| {}).await {
                    Ok(reading) => {
                        shared.completed.set(shared.completed.get() + 1);
                        if measured {
                            let latencies = &mut *latencies.borrow_mut();
                            latencies.first_byte.record(reading.first_byte - due);
                            latencies.total.record(reading.finished - due);
                            latencies.lag.record(lag);
                        }
                    }
                    Err(error) => shared.failures.borrow_mut().add(&error),
                }
                idle.borrow_mut().extend(kept);
                at_once.set(at_once.get() - 1);
            });
        }
        let used = window.map(MeasurementWindow::close).transpose()?;
        let count = shared.completed.get() - before;
        while let Some(chat) = chats.join_next().await {
            chat?;
        }
        let mut outcome = shared.outcome();
        if let Some(used) = used {
            used.per(&mut outcome, "chat", count);
        }
        let latencies = &*latencies.borrow();
        outcome.latency("first_byte", &latencies.first_byte);
        outcome.latency("total", &latencies.total);
        outcome.latency("generator_lag", &latencies.lag);
        Ok(outcome)
    }
}
