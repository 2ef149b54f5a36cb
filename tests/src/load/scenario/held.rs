//! Scenario of very many open streams on a fresh target. Measures the memory of a stream, and the share that is given back: at
//! rest, and after a few more chats, because an allocator gives memory back only when called.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::{Notify, Semaphore};

use crate::load::answer::{Answer, Writes};
use crate::load::client::{Reply, Request};
use crate::load::scenario::closed::Closed;
use crate::load::scenario::outcome::{Outcome, Target};
use crate::load::scenario::window::{ScenarioState, chat_within};
use crate::load::stream_check::UsageChunk;

/// Number of streams that are opened at the same time.
const OPENING: usize = 64;
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Settings of the scenario.
#[derive(Clone, Debug)]
pub struct Held {
    /// Number of open streams.
    pub streams: u32,
    /// Answer of each stream. Has to last longer than the opening of all streams.
    pub answer: Answer,
    /// Time from the opening of the last stream to the measurement.
    pub settle: Duration,
    /// Time from the end of all streams to the next measurement.
    pub afterwards: Duration,
}

impl Held {
    /// Settings for so many streams with a chunk each second.
    pub fn streams(streams: u32) -> Self {
        Self {
            streams,
            answer: Answer::paced(14, Duration::from_secs(1)),
            settle: Duration::from_secs(2),
            afterwards: Duration::from_secs(5),
        }
    }

    /// Runs the scenario on a target.
    pub async fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        let meter = target.meter.context("memory can be measured only for a known process: set --pid")?;
        let idle = meter.resident_kb()?;
        let shared = ScenarioState::new();
        let request =
            Rc::new(Request::new(&target.endpoint, &self.answer.to_string(), Reply::Stream, UsageChunk::NotAsked));
        let limit = self.answer.duration() + OPEN_LIMIT;
        let opening = Arc::new(Semaphore::new(OPENING));
        let (open, ended, changed) = (Rc::new(Cell::new(0u32)), Rc::new(Cell::new(0u32)), Rc::new(Notify::new()));
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..self.streams {
            let (shared, request, endpoint) = (shared.clone(), request.clone(), target.endpoint.clone());
            let (open, ended, changed) = (open.clone(), ended.clone(), changed.clone());
            let permit = opening.clone().acquire_owned().await?;
            streams.spawn_local(async move {
                let mut permit = Some(permit);
                let mut on_chunk = |_| {
                    if permit.take().is_some() {
                        open.set(open.get() + 1);
                        changed.notify_one();
                    }
                };
                match chat_within(limit, &mut None, &endpoint, &request, &mut on_chunk).await {
                    Ok(_) => shared.completed.set(shared.completed.get() + 1),
                    Err(error) => shared.failures.borrow_mut().add(&error),
                }
                ended.set(ended.get() + 1);
                changed.notify_one();
            });
        }
        let all_open = async {
            while open.get() < self.streams && ended.get() == 0 {
                changed.notified().await;
            }
        };
        tokio::time::timeout(OPEN_LIMIT, all_open).await.context("the streams did not all open in time")?;
        tokio::time::sleep(self.settle).await;
        let ended_early = ended.get();
        let held = meter.resident_kb()?;
        while let Some(stream) = streams.join_next().await {
            stream?;
        }
        tokio::time::sleep(self.afterwards).await;
        let closed = meter.resident_kb()?;
        let few = Closed::short(4, Writes::Each, self.afterwards / 2).run(target).await?;
        tokio::time::sleep(self.afterwards / 2).await;
        let after = meter.resident_kb()?;
        let mut outcome = shared.outcome();
        outcome.completed += few.completed;
        outcome.failures.count += few.failures.count;
        outcome.failures.reasons.extend(few.failures.reasons);
        ensure!(
            ended_early == 0 || outcome.failures.count > 0,
            "{ended_early} streams ended before all {} were open: the target opens them too slowly for this answer",
            self.streams
        );
        outcome.measure("idle_mb", megabytes(idle));
        outcome.measure("held_mb", megabytes(held));
        outcome.measure("closed_mb", megabytes(closed));
        outcome.measure("afterwards_mb", megabytes(after));
        outcome.measure("kept_percent", kept_percent(idle, held, after));
        outcome.measure("kb_per_stream", megabytes(held.saturating_sub(idle)) * 1024.0 / f64::from(self.streams));
        Ok(outcome)
    }
}

#[expect(clippy::cast_precision_loss, reason = "rounding is acceptable in a printed report")]
fn megabytes(kb: u64) -> f64 {
    kb as f64 / 1024.0
}

/// Share of the streams' memory that is still in use afterwards.
fn kept_percent(idle: u64, held: u64, after: u64) -> f64 {
    megabytes(after.saturating_sub(idle)) / megabytes(held.saturating_sub(idle).max(1)) * 100.0
}
