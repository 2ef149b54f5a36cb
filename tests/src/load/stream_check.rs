//! Checker of a stream: counts events while the stream arrives, and at the end compares the counts with the expected stream.

use crate::load::answer::Answer;
use crate::load::wire_format::{self, Stamp};

/// The chunk with the usage at the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageChunk {
    /// The request asked for the chunk, so the chunk is required.
    Asked,
    /// The request did not ask for the chunk, so the chunk is an error.
    NotAsked,
}

/// Expected size of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    events: u64,
    bytes: u64,
}

impl Expected {
    /// Expected size of the stream of this answer, to the byte.
    pub fn of(answer: Answer, usage: UsageChunk) -> Self {
        let bytes = wire_format::Events::new().length(answer);
        match usage {
            UsageChunk::NotAsked => Self { events: answer.chunks.into(), bytes },
            UsageChunk::Asked => Self {
                events: u64::from(answer.chunks) + 1,
                bytes: bytes + wire_format::usage_event(answer).len() as u64,
            },
        }
    }
}

/// Defect of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// The stream has no `[DONE]`.
    #[error("the stream ended without [DONE] after {0} events")]
    NoDone(u64),
    /// The number of events is wrong.
    #[error("expected {expected} events, found {found}")]
    Events {
        /// Expected number of events.
        expected: u64,
        /// Received number of events.
        found: u64,
    },
    /// The number of events is right, the number of bytes is wrong.
    #[error("expected {expected} bytes of events, found {found}")]
    Bytes {
        /// Expected number of bytes.
        expected: u64,
        /// Received number of bytes.
        found: u64,
    },
}

/// State of the check of one stream.
#[derive(Debug, Default)]
pub struct StreamCheck {
    /// Start of an event that has not arrived completely.
    partial: Vec<u8>,
    bytes: u64,
    events: u64,
    done: bool,
}

impl StreamCheck {
    /// Takes more of the body. Calls `on_chunk` with the stamp of each completed chunk.
    pub fn feed(&mut self, mut data: &[u8], on_chunk: &mut impl FnMut(Stamp)) {
        self.bytes += data.len() as u64;
        if !self.partial.is_empty() {
            // The blank line itself may lie across the boundary, so look for it from one byte back.
            let from = self.partial.len() - 1;
            self.partial.extend_from_slice(data);
            let Some(at) = memchr::memmem::find(&self.partial[from..], b"\n\n") else { return };
            let end = from + at + 2;
            let rest = self.partial.len() - end;
            let partial = std::mem::take(&mut self.partial);
            self.event(&partial[..end], on_chunk);
            data = &data[data.len() - rest..];
            self.partial = partial;
            self.partial.clear();
        }
        while let Some(at) = memchr::memmem::find(data, b"\n\n") {
            self.event(&data[..at + 2], on_chunk);
            data = &data[at + 2..];
        }
        self.partial.extend_from_slice(data);
    }

    fn event(&mut self, event: &[u8], on_chunk: &mut impl FnMut(Stamp)) {
        if event == wire_format::DONE {
            self.done = true;
        } else if event.starts_with(b"data:") {
            self.events += 1;
            if let Some(stamp) = Stamp::find(event) {
                on_chunk(stamp);
            }
        }
    }

    /// Checks the stream at the end. Without an expectation, `[DONE]` after at least one event is enough.
    pub fn judge(&self, expected: Option<Expected>) -> Result<(), Incomplete> {
        if !self.done || self.events == 0 {
            return Err(Incomplete::NoDone(self.events));
        }
        let Some(Expected { events, bytes }) = expected else { return Ok(()) };
        if self.events != events {
            return Err(Incomplete::Events { expected: events, found: self.events });
        }
        if self.bytes != bytes {
            return Err(Incomplete::Bytes { expected: bytes, found: self.bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::answer::Writes;

    fn stream(answer: Answer) -> Vec<u8> {
        let mut events = wire_format::Events::new();
        let mut bytes = Vec::new();
        for index in 0..answer.chunks {
            bytes.extend_from_slice(events.chunk(answer, index, Stamp { due: index.into(), sent: 7 }));
        }
        bytes.extend_from_slice(wire_format::DONE);
        bytes
    }

    #[test]
    fn any_split_counts_alike_and_any_cut_is_noticed() {
        let answer = Answer::short(5, Writes::Each);
        let wire = stream(answer);
        let expected = Some(Expected::of(answer, UsageChunk::NotAsked));
        for at in 0..=wire.len() {
            let (mut check, mut stamps) = (StreamCheck::default(), Vec::new());
            check.feed(&wire[..at], &mut |stamp| stamps.push(stamp.due));
            assert_eq!(check.judge(expected).is_ok(), at == wire.len(), "cut at {at}");
            check.feed(&wire[at..], &mut |stamp| stamps.push(stamp.due));
            assert_eq!(check.judge(expected), Ok(()), "split at {at}");
            assert_eq!(stamps, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_missing_an_extra_and_an_altered_event_are_noticed() {
        let expected = Some(Expected::of(Answer::short(5, Writes::Each), UsageChunk::NotAsked));
        let judge = |wire: &[u8]| {
            let mut check = StreamCheck::default();
            check.feed(wire, &mut |_| {});
            check.judge(expected)
        };
        assert_eq!(judge(&stream(Answer::short(4, Writes::Each))), Err(Incomplete::Events { expected: 5, found: 4 }));
        let with_usage =
            [wire_format::usage_event(Answer::short(5, Writes::Each)), stream(Answer::short(5, Writes::Each))].concat();
        assert_eq!(judge(&with_usage), Err(Incomplete::Events { expected: 5, found: 6 }));
        let altered = [b": comment\n\n".to_vec(), stream(Answer::short(5, Writes::Each))].concat();
        assert!(matches!(judge(&altered), Err(Incomplete::Bytes { .. })));
    }
}
