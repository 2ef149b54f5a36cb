//! Scenario of a closed loop: a number of connections, each with a new chat as soon as the last chat has ended. Measures the
//! CPU time of a chat.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::answer::{Answer, Writes};
use crate::load::client::{Reply, Request};
use crate::load::scenario::outcome::{Latency, Outcome, Target};
use crate::load::scenario::window::{MeasurementWindow, Phase, ScenarioState, chat_within};
use crate::load::stream_check::UsageChunk;

const CHAT_LIMIT: Duration = Duration::from_secs(30);
/// Number of failed chats after which the scenario is given up.
const MOST_FAILURES: u64 = 20;

/// Settings of the scenario.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Number of concurrent connections, with one chat at a time on each.
    pub connections: usize,
    /// Model of the requests.
    pub model: String,
    /// Form of the answers.
    pub reply: Reply,
    /// Usage chunk of the streams.
    pub usage: UsageChunk,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub window: Duration,
}

impl Closed {
    /// Settings for short streams.
    pub fn short(connections: usize, writes: Writes, window: Duration) -> Self {
        Self {
            connections,
            model: Answer::short(20, writes).to_string(),
            reply: Reply::Stream,
            usage: UsageChunk::NotAsked,
            warm_up: window / 4,
            window,
        }
    }

    /// Settings for the same answers as JSON bodies.
    pub fn whole(connections: usize, window: Duration) -> Self {
        Self { reply: Reply::Whole, ..Self::short(connections, Writes::Each, window) }
    }

    /// Runs the scenario on a target.
    pub async fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        let shared = ScenarioState::new();
        let latencies = Rc::new(RefCell::new((Latency::new(), Latency::new())));
        let request = Rc::new(Request::new(&target.endpoint, &self.model, self.reply, self.usage));
        let workers: Vec<_> = (0..self.connections)
            .map(|_| {
                let (shared, latencies, request) = (shared.clone(), latencies.clone(), request.clone());
                let endpoint = target.endpoint.clone();
                tokio::task::spawn_local(async move {
                    let mut kept = None;
                    while shared.phase.get() != Phase::Over && shared.failures.borrow().count < MOST_FAILURES {
                        let sent = Instant::now();
                        match chat_within(CHAT_LIMIT, &mut kept, &endpoint, &request, &mut |_| {}).await {
                            Ok(reading) => {
                                shared.completed.set(shared.completed.get() + 1);
                                if shared.phase.get() == Phase::Measuring {
                                    let (first_byte, total) = &mut *latencies.borrow_mut();
                                    first_byte.record(reading.first_byte - sent);
                                    total.record(reading.finished - sent);
                                }
                            }
                            Err(error) => shared.failures.borrow_mut().add(&error),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(self.warm_up).await;
        let before = shared.completed.get();
        let window = MeasurementWindow::open(target)?;
        shared.phase.set(Phase::Measuring);
        tokio::time::sleep(self.window).await;
        let used = window.close()?;
        let count = shared.completed.get() - before;
        shared.phase.set(Phase::Over);
        for worker in workers {
            worker.await?;
        }
        let mut outcome = shared.outcome();
        used.per(&mut outcome, "chat", count);
        let (first_byte, total) = &*latencies.borrow();
        outcome.latency("first_byte", first_byte);
        outcome.latency("total", total);
        Ok(outcome)
    }
}
