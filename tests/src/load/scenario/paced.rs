//! Scenario of many concurrent streams with pauses between the chunks. Measures the CPU time of a chunk, and the delay of
//! chunks.
//!
//! The measured time lies inside all streams, so that the start and the end of streams do not count.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::load::answer::Answer;
use crate::load::client::{Reply, Request};
use crate::load::scenario::outcome::{Latency, Outcome, Target};
use crate::load::scenario::window::{MeasurementWindow, Phase, ScenarioState, chat_within};
use crate::load::stream_check::UsageChunk;

const SLACK: Duration = Duration::from_secs(30);

/// Settings of the scenario.
#[derive(Clone, Debug)]
pub struct Paced {
    /// Number of concurrent streams.
    pub streams: u32,
    /// Time from chunk to chunk.
    pub pause: Duration,
    /// Time of the measurement.
    pub window: Duration,
}

impl Paced {
    /// Runs the scenario on a target.
    pub async fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        // Streams begin evenly spread over the pause, and at most one in a millisecond.
        let ramp = self.pause.max(Duration::from_millis(self.streams.into()));
        let settle = Duration::from_millis(500);
        let lasting = ramp + settle + self.window + settle;
        let chunks = u32::try_from(lasting.as_nanos() / self.pause.as_nanos().max(1))?.max(2);
        let answer = Answer::paced(chunks, self.pause);
        let limit = answer.duration() + SLACK;
        let request = Rc::new(Request::new(&target.endpoint, &answer.to_string(), Reply::Stream, UsageChunk::NotAsked));
        let shared = ScenarioState::new();
        let arrived = Rc::new(Cell::new(0u64));
        let latencies = Rc::new(RefCell::new((Latency::new(), Latency::new())));
        let start = tokio::time::Instant::now();
        let streams: Vec<_> = (0..self.streams)
            .map(|index| {
                let (shared, arrived, latencies) = (shared.clone(), arrived.clone(), latencies.clone());
                let (request, endpoint) = (request.clone(), target.endpoint.clone());
                let begin = start + ramp * index / self.streams;
                tokio::task::spawn_local(async move {
                    tokio::time::sleep_until(begin).await;
                    let mut on_chunk = |arrival: crate::load::client::Arrival| {
                        arrived.set(arrived.get() + 1);
                        if shared.phase.get() == Phase::Measuring {
                            let (late, transit) = &mut *latencies.borrow_mut();
                            late.record_nanos(arrival.received.saturating_sub(arrival.stamp.due));
                            transit.record_nanos(arrival.received.saturating_sub(arrival.stamp.sent));
                        }
                    };
                    match chat_within(limit, &mut None, &endpoint, &request, &mut on_chunk).await {
                        Ok(_) => shared.completed.set(shared.completed.get() + 1),
                        Err(error) => shared.failures.borrow_mut().add(&error),
                    }
                })
            })
            .collect();
        tokio::time::sleep_until(start + ramp + settle).await;
        let before = arrived.get();
        let window = MeasurementWindow::open(target)?;
        shared.phase.set(Phase::Measuring);
        tokio::time::sleep(self.window).await;
        let used = window.close()?;
        let count = arrived.get() - before;
        shared.phase.set(Phase::Over);
        for stream in streams {
            stream.await?;
        }
        let mut outcome = shared.outcome();
        used.per(&mut outcome, "chunk", count);
        let (late, transit) = &*latencies.borrow();
        outcome.latency("late", late);
        outcome.latency("transit", transit);
        Ok(outcome)
    }
}
