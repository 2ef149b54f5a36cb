//! Checks for lost events, and republication: publishes events again that the broker had acknowledged and has lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Relay;
use super::disk_read::{DiskRead, ReadResult};
use super::in_flight::PublishReason;
use super::loss_check::{self, Republication, RepublicationRead, StreamCheck};
use crate::journal::JournalConsumer;

/// The interval at which the broker is asked for the newest acknowledged event, to notice lost events.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The interval of checks until one has had a result on the current connection.
const STREAM_CHECK_RETRY_INTERVAL: Duration = Duration::from_secs(10);

impl Relay {
    /// Starts to read the next batch of lost events, unless a read is in progress.
    pub(super) fn start_republication_read(&mut self) {
        if let Some(republication) = &mut self.republication
            && let Some(cursor) = republication.read.take_cursor()
        {
            let read = DiskRead::start(&self.consumer, cursor, JournalConsumer::read_for_republication);
            republication.read = RepublicationRead::Reading(read);
        }
    }

    /// Publishes a batch of lost events.
    pub(super) async fn publish_lost(&mut self, read: ReadResult) {
        let Some((cursor, batch)) = read else {
            // The log has not been read to the end, so republication is not finished. The next check finds the same
            // loss and starts again.
            self.republication = None;
            return;
        };
        if let Some(republication) = &mut self.republication {
            republication.read = RepublicationRead::Done;
        }
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
            republication.read = RepublicationRead::At(cursor);
        }
    }

    /// Ends the republication when all released events have been read and all lost events acknowledged.
    pub(super) fn end_republication(&mut self) {
        let is_under_way = |republication: &Republication| {
            !matches!(republication.read, RepublicationRead::Done)
                || self.in_flight.values().any(|event| event.reason == PublishReason::Lost)
        };
        if let Some(republication) = self.republication.take_if(|republication| !is_under_way(republication)) {
            self.checkpoint.stream_created = Some(republication.stream_created);
            self.consumer.finish_republication();
            tracing::warn!("the events that the broker had lost have been published again");
        }
    }

    /// Notes a new connection. Returns true if there is one since the last call.
    pub(super) fn note_connection(&mut self) -> bool {
        let connection = self.connections.connects.load(Ordering::Relaxed);
        if self.connection == connection {
            return false;
        }
        self.connection = connection;
        self.acknowledged.begin_connection();
        true
    }

    /// Starts a check for lost events, unless the broker is disconnected. A check in progress is given up if the check
    /// runs on an earlier connection.
    pub(super) fn start_stream_check(&mut self) {
        if !self.broker_health.is_connected() {
            return;
        }
        if let Some(check) = self.pending_stream_check.take() {
            check.abort();
        }
        self.stream_checked_at = Instant::now();
        let client = self.client.clone();
        let (connection, asked) = (self.connection, self.acknowledged.to_check());
        let stream_created = match &self.republication {
            Some(republication) => Some(republication.stream_created),
            None => self.checkpoint.stream_created,
        };
        self.pending_stream_check = Some(tokio::spawn(async move {
            let found = loss_check::check_stream(&client, &asked, stream_created).await;
            StreamCheck { connection, asked, found }
        }));
    }

    /// Starts a check when one is due: soon while a check on this connection has had no result, else from time to time.
    pub(super) fn start_due_stream_check(&mut self) {
        let interval =
            if self.acknowledged.is_check_due() { STREAM_CHECK_RETRY_INTERVAL } else { STREAM_CHECK_INTERVAL };
        if self.pending_stream_check.is_none() && self.stream_checked_at.elapsed() >= interval {
            self.start_stream_check();
        }
    }

    pub(super) fn apply_stream_check(&mut self, check: StreamCheck) {
        self.note_connection();
        let StreamCheck { connection, asked, found: Some(state) } = check else { return };
        if connection != self.connection {
            return;
        }
        let is_intact = state.is_known && !self.acknowledged.is_incomplete() && state.held.len() == asked.len();
        if is_intact {
            self.acknowledged.confirm(&asked);
            if self.republication.is_none() {
                self.checkpoint.stream_created = Some(state.created);
            }
            return;
        }
        tracing::error!(
            "the broker has lost acknowledged events; those that the journal still keeps are published again"
        );
        self.acknowledged.start_over(&asked, &state.held);
        let read = self.consumer.start_republication().map_or(RepublicationRead::Done, RepublicationRead::At);
        self.republication = Some(Republication { read, stream_created: state.created });
    }
}
