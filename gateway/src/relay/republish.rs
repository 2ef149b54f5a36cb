//! Publishing again what the broker had acknowledged and has lost.

use tokio::time::Instant;

use super::in_flight::Why;
use super::loss_check::{self, Again, Finding};
use super::{BATCH, BATCH_BYTES, Relay};

impl Relay {
    /// Publishes some of the events again that the broker had and has lost.
    pub(super) async fn republish(&mut self) {
        let Some(mut cursor) = self.again.as_mut().and_then(|again| again.cursor.take()) else { return };
        let outlet = self.outlet.clone();
        let read = move || {
            let batch = outlet.read_beside(&mut cursor, BATCH, BATCH_BYTES);
            (cursor, batch)
        };
        let Ok((cursor, batch)) = tokio::task::spawn_blocking(read).await else {
            // Not all has been read, so nothing is over: the next look finds what this one did, and begins again.
            self.again = None;
            return;
        };
        let entries = batch.map(|batch| batch.entries).unwrap_or_default();
        let lost = entries.len();
        let is_over = lost == 0 || entries.iter().any(|entry| entry.number >= self.taken_below);
        for entry in entries {
            let is_ours = entry.number >= self.taken_below || self.in_flight.contains_key(&entry.number);
            if !is_ours {
                self.metrics.journal_republished.inc();
                self.publish_first(entry, Why::Lost).await;
            }
        }
        if let Some(again) = &mut self.again
            && !is_over
        {
            again.cursor = Some(cursor);
        }
    }

    /// Ends publishing again, when all of it has been read and acknowledged.
    pub(super) fn end_republication(&mut self) {
        let is_on_its_way =
            |again: &Again| again.cursor.is_some() || self.in_flight.values().any(|held| held.why == Why::Lost);
        if let Some(again) = self.again.take_if(|again| !is_on_its_way(again)) {
            self.released.stream_created = Some(again.stream_created);
            self.released.newest = again.newest;
            self.outlet.republished();
            tracing::warn!("what the broker had lost has been published again");
        }
    }

    /// Asks the broker whether it still has what it had.
    pub(super) fn look(&mut self) {
        if self.looking.is_none() && self.health.is_connected() {
            self.looked_at = Instant::now();
            let client = self.client.clone();
            let (newest, created) = match &self.again {
                Some(again) => (again.newest, Some(again.stream_created)),
                None => (self.released.newest, self.released.stream_created),
            };
            self.looking = Some(tokio::spawn(async move { loss_check::look(&client, newest, created).await }));
        }
    }

    pub(super) fn looked(&mut self, finding: Option<Finding>) {
        match finding {
            Some(Finding::Whole { stream_created }) if self.again.is_none() => {
                self.released.stream_created = Some(stream_created);
            }
            Some(Finding::WentBack { stream_created }) => {
                tracing::error!(
                    "the broker has lost events that it had acknowledged; what is kept of them is published again"
                );
                let cursor = self.outlet.cursor_at_oldest();
                self.again = Some(Again { cursor, stream_created, newest: None });
            }
            Some(Finding::Whole { .. }) | None => {}
        }
    }
}
