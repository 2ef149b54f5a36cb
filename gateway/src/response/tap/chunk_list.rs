//! The bytes of a streamed JSON list on their way through the tap: which of them pass, and which are held back. Each element is
//! a chunk of the answer, as each event of an event stream is.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::event_stream::{MAX_WITHHELD_BYTES, forward};
use super::modes::FeedStatus;
use crate::response::dialect::{EventDisposition, Fold};
use crate::response::json_list::JsonListParser;

/// The maximum number of bytes that are held back after the end of the list. Clients ignore white space there.
const MAX_TRAILING_BYTES: usize = 64 << 10;

/// The state of a list between two chunks.
#[derive(Debug, Default)]
pub(super) struct ChunkList {
    parser: JsonListParser,
    /// The bytes of an incomplete element, withheld until the element is known not to be the end.
    withheld: Vec<u8>,
    /// The start of the current element is already forwarded, so the rest must follow.
    is_partly_forwarded: bool,
}

impl ChunkList {
    /// Forwards all bytes except a possible end: an element with a finish reason until the next element is complete, and the
    /// bracket that closes the list. An element is forwarded when complete, or piece by piece if the element is long. If a
    /// long element is the end, its last piece is still held back.
    pub(super) fn feed(
        &mut self,
        fold: &mut Fold,
        chunk: &Bytes,
        (forwarded, held_back): (&mut VecDeque<Bytes>, &mut Vec<Bytes>),
    ) -> FeedStatus {
        let Self { parser, withheld, is_partly_forwarded } = self;
        let mut decided = 0;
        let mut has_ended = false;
        parser.feed(chunk, |element| {
            // Another element has arrived, so the element that is held back was not the last.
            forwarded.extend(held_back.drain(..));
            let disposition = fold.fold_event(&element.as_event());
            let bytes = chunk.slice(decided..element.end);
            decided = element.end;
            *is_partly_forwarded = false;
            match disposition {
                EventDisposition::Forward | EventDisposition::UsageOnly => {
                    forward(forwarded, withheld, bytes);
                    ControlFlow::Continue(())
                }
                EventDisposition::PossibleEnd | EventDisposition::End => {
                    held_back.extend((!withheld.is_empty()).then(|| std::mem::take(withheld).into()));
                    held_back.push(bytes);
                    has_ended = disposition == EventDisposition::End;
                    if has_ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                }
            }
        });
        let rest = chunk.slice(decided..);
        if has_ended {
            held_back.push(rest);
            return FeedStatus::End;
        }
        if parser.in_element() {
            if *is_partly_forwarded || withheld.len() + rest.len() > MAX_WITHHELD_BYTES {
                *is_partly_forwarded = true;
                forwarded.extend(held_back.drain(..));
                forward(forwarded, withheld, rest);
            } else {
                withheld.extend_from_slice(&rest);
            }
        } else if parser.is_closed() || !held_back.is_empty() {
            if held_back.iter().map(Bytes::len).sum::<usize>() > MAX_TRAILING_BYTES && parser.is_closed() {
                forwarded.extend(held_back.drain(..));
            }
            held_back.extend(Some(rest).filter(|rest| !rest.is_empty()));
        } else {
            // The bytes between two elements.
            forward(forwarded, withheld, rest);
        }
        FeedStatus::Continue
    }

    /// Ends the list. An incomplete element is folded, and its bytes are held back.
    pub(super) fn finish(&mut self, fold: &mut Fold, held_back: &mut Vec<Bytes>) {
        self.parser.finish(|element| {
            fold.fold_event(&element.as_event());
            ControlFlow::Continue(())
        });
        if self.parser.has_trailing_content() {
            fold.note("unreadable_document");
        }
        let rest = std::mem::take(&mut self.withheld);
        held_back.extend((!rest.is_empty()).then(|| rest.into()));
    }

    /// True if the list is complete.
    pub(super) fn is_whole(&self) -> bool {
        self.parser.is_closed()
    }
}
