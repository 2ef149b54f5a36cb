//! The bytes of an event stream on their way through the tap: which of them pass, are held back or are removed.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::modes::{FeedStatus, UsageChunkPolicy};
use crate::response::dialect::{EventDisposition, Fold};
use crate::response::sse::SseParser;

/// The maximum length of an incomplete event that is withheld until its kind is known: a usage chunk, or the end. Usage
/// chunks are shorter. A longer event is forwarded piece by piece; if the event is the end, its last piece is still
/// held back, and a client cannot parse the event without the last piece.
pub(super) const MAX_WITHHELD_BYTES: usize = 64 << 10;

/// The state of an event stream between two chunks.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    pub(super) parser: SseParser,
    /// The bytes of an incomplete event, withheld until its kind is known: a usage chunk, or the end.
    pub(super) withheld: Vec<u8>,
    /// The start of the current event is already forwarded, so the rest must follow.
    is_partly_forwarded: bool,
    /// The last event was removed. A line feed split off its end must be removed too.
    removed_last_event: bool,
}

impl EventStream {
    /// True within an event whose start is already forwarded.
    pub(super) fn is_partly_forwarded(&self) -> bool {
        self.is_partly_forwarded
    }

    /// Forwards all bytes except the end and, with [`UsageChunkPolicy::Remove`], usage chunks. An event is forwarded
    /// when complete: a client cannot use an incomplete event, and an incomplete event may turn out to be the end.
    pub(super) fn feed(
        &mut self,
        fold: &mut Fold,
        usage_chunk: UsageChunkPolicy,
        chunk: &Bytes,
        (forwarded, held_back): (&mut VecDeque<Bytes>, &mut Vec<Bytes>),
    ) -> FeedStatus {
        let Self { parser, withheld, is_partly_forwarded, removed_last_event } = self;
        let mut decided = parser.split_line_end_length(chunk);
        let mut forward_from = if *removed_last_event { decided } else { 0 };
        let mut end = None;
        parser.feed(chunk, |event| {
            if event.data.is_some() {
                // Another event has arrived, so the event that is held back was not the last.
                forwarded.extend(held_back.drain(..));
            }
            let disposition = fold.fold_event(&event);
            if event.span.end == 0 {
                // The event ended before this chunk. Its bytes are withheld, with the first bytes of the next event.
                let is_removed = disposition == EventDisposition::UsageOnly && usage_chunk == UsageChunkPolicy::Remove;
                if disposition == EventDisposition::End {
                    end = Some(0);
                    return ControlFlow::Break(());
                }
                if !*is_partly_forwarded {
                    let next = withheld.split_off(withheld.len().saturating_sub(event.next_event_bytes));
                    let before = std::mem::replace(withheld, next);
                    let before = (!is_removed && !before.is_empty()).then(|| before.into());
                    if disposition == EventDisposition::PossibleEnd || !held_back.is_empty() {
                        held_back.extend(before);
                    } else {
                        forwarded.extend(before);
                    }
                }
                *is_partly_forwarded &= event.next_event_bytes > 0;
                *removed_last_event = false;
                return ControlFlow::Continue(());
            }
            let began_in_earlier_chunk = event.span.start == 0 && decided == 0;
            decided = event.span.end;
            match disposition {
                EventDisposition::UsageOnly
                    if usage_chunk == UsageChunkPolicy::Remove && !(began_in_earlier_chunk && *is_partly_forwarded) =>
                {
                    if began_in_earlier_chunk {
                        withheld.clear();
                    }
                    if event.span.start > forward_from {
                        forward(forwarded, withheld, chunk.slice(forward_from..event.span.start));
                    }
                    forward_from = event.span.end;
                    *removed_last_event = true;
                    return ControlFlow::Continue(());
                }
                EventDisposition::End => {
                    if event.span.start > forward_from {
                        forward(forwarded, withheld, chunk.slice(forward_from..event.span.start));
                    }
                    end = Some(event.span.start.max(forward_from));
                }
                EventDisposition::PossibleEnd => {
                    if event.span.start > forward_from {
                        forward(forwarded, withheld, chunk.slice(forward_from..event.span.start));
                    }
                    held_back.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
                    held_back.push(chunk.slice(event.span.start.max(forward_from)..event.span.end));
                    forward_from = event.span.end;
                }
                EventDisposition::Forward | EventDisposition::UsageOnly => {}
            }
            (*is_partly_forwarded, *removed_last_event) = (false, false);
            if end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(at) = end {
            held_back.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
            held_back.push(chunk.slice(at..));
            return FeedStatus::End;
        }
        if !parser.in_event() {
            // The remaining bytes are comments or blank lines.
            decided = chunk.len();
        }
        if decided > forward_from && held_back.is_empty() {
            forward(forwarded, withheld, chunk.slice(forward_from..decided));
        } else if decided > forward_from {
            // Comments and blank lines after an event that is held back stay behind the event.
            held_back.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
            held_back.push(chunk.slice(forward_from..decided));
        }
        let rest = &chunk[decided..];
        if *is_partly_forwarded || withheld.len() + rest.len() > MAX_WITHHELD_BYTES {
            *is_partly_forwarded = true;
            forwarded.extend(held_back.drain(..));
            if !rest.is_empty() || !withheld.is_empty() {
                forward(forwarded, withheld, chunk.slice(decided..));
            }
        } else {
            withheld.extend_from_slice(rest);
        }
        FeedStatus::Continue
    }
}

/// Forwards the withheld bytes, followed by the chunk.
pub(super) fn forward(forwarded: &mut VecDeque<Bytes>, withheld: &mut Vec<u8>, chunk: Bytes) {
    if !withheld.is_empty() {
        forwarded.push_back(std::mem::take(withheld).into());
    }
    if !chunk.is_empty() {
        forwarded.push_back(chunk);
    }
}
