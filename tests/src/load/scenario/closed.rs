//! A closed loop: so many connections, each with its next chat as soon as the last is over. What the CPU of a chat is.

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
/// After so many, the run has failed; there is no use in more of them.
const MOST_FAILURES: u64 = 20;

/// How the loop is run.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Connections.
    pub connections: usize,
    /// What is asked for.
    pub model: String,
    /// As a stream or in one piece.
    pub reply: Reply,
    /// With a usage chunk or without.
    pub usage: UsageChunk,
    /// Not measured yet.
    pub warm_up: Duration,
    /// Measured.
    pub window: Duration,
}

impl Closed {
    /// Short streams.
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

    /// The same answers in one piece.
    pub fn whole(connections: usize, window: Duration) -> Self {
        Self { reply: Reply::Whole, ..Self::short(connections, Writes::Each, window) }
    }

    /// Runs it.
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
