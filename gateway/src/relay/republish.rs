//! Republication: publishes events again that the broker had acknowledged and has lost.

use tokio::time::Instant;

use super::in_flight::PublishReason;
use super::loss_check::{self, Republication, StreamCheck};
use super::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Relay};

impl Relay {
    /// Publishes the next batch of lost events.
    pub(super) async fn republish(&mut self) {
        let Some(mut cursor) = self.republication.as_mut().and_then(|republication| republication.cursor.take()) else {
            return;
        };
        let consumer = self.consumer.clone();
        let read = move || {
            let batch = consumer.read_for_republication(&mut cursor, MAX_BATCH_EVENTS, MAX_BATCH_BYTES);
            (cursor, batch)
        };
        let Ok((cursor, batch)) = tokio::task::spawn_blocking(read).await else {
            // The log has not been read to the end, so republication is not finished. The next check finds the same
            // loss and starts again.
            self.republication = None;
            return;
        };
        let entries = batch.map(|batch| batch.entries).unwrap_or_default();
        let read = entries.len();
        let is_read_completely = read == 0 || entries.iter().any(|entry| entry.number >= self.taken_below);
        for entry in entries {
            let is_taken_by_this_run = entry.number >= self.taken_below || self.in_flight.contains_key(&entry.number);
            if !is_taken_by_this_run {
                self.metrics.journal_republished.inc();
                self.publish_and_track(entry, PublishReason::Lost).await;
            }
        }
        if let Some(republication) = &mut self.republication
            && !is_read_completely
        {
            republication.cursor = Some(cursor);
        }
    }

    /// Ends the republication when all released events have been read and all lost events acknowledged.
    pub(super) fn end_republication(&mut self) {
        let is_under_way = |republication: &Republication| {
            republication.cursor.is_some() || self.in_flight.values().any(|event| event.reason == PublishReason::Lost)
        };
        if let Some(republication) = self.republication.take_if(|republication| !is_under_way(republication)) {
            self.checkpoint.stream_created = Some(republication.stream_created);
            self.checkpoint.last_acknowledged = republication.last_acknowledged;
            self.consumer.finish_republication();
            tracing::warn!("the events that the broker had lost have been published again");
        }
    }

    /// Starts a check for lost events, unless a check is in progress or the broker is disconnected.
    pub(super) fn start_stream_check(&mut self) {
        if self.pending_stream_check.is_none() && self.broker_health.is_connected() {
            self.stream_checked_at = Instant::now();
            let client = self.client.clone();
            let (last_acknowledged, stream_created) = match &self.republication {
                Some(republication) => (republication.last_acknowledged, Some(republication.stream_created)),
                None => (self.checkpoint.last_acknowledged, self.checkpoint.stream_created),
            };
            self.pending_stream_check = Some(tokio::spawn(async move {
                loss_check::check_stream(&client, last_acknowledged, stream_created).await
            }));
        }
    }

    pub(super) fn apply_stream_check(&mut self, check: Option<StreamCheck>) {
        match check {
            Some(StreamCheck::Intact { stream_created }) if self.republication.is_none() => {
                self.checkpoint.stream_created = Some(stream_created);
            }
            Some(StreamCheck::EventsLost { stream_created }) => {
                tracing::error!(
                    "the broker has lost acknowledged events; those that the journal still keeps are published again"
                );
                let cursor = self.consumer.start_republication();
                self.republication = Some(Republication { cursor, stream_created, last_acknowledged: None });
            }
            Some(StreamCheck::Intact { .. }) | None => {}
        }
    }
}
