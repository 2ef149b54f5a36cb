//! The form of a record: what one event is on disk. Pure.
//!
//! ```text
//! 0   4  magic: ff 53 4a fe; the bytes ff and fe are in no UTF-8 text, so no event can hold something that looks like a record
//! 4   4  length of the body
//! 8   8  number of the event; 0 for what is not an event
//! 16  8  when it was written, in milliseconds since 1970
//! 24  1  kind, and three bytes of zero
//! 28  4  CRC-32 of the 28 bytes before
//! 32  4  CRC-32 of the body
//! 36     the body
//! ```
//!
//! All numbers are little endian. The head has a checksum of its own, so that the length can be trusted where the body is
//! damaged: then exactly this record is lost, and the next one begins where it should.

use bytes::Bytes;
use shared::envelope::Envelope;
use shared::event::Event;

/// The size of a record's head.
pub(super) const HEAD: usize = 36;

/// What every record begins with.
pub(super) const MAGIC: [u8; 4] = [0xff, b'S', b'J', 0xfe];

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event that goes to the broker.
    Event,
    /// Who a chat is that was open when the segment was begun. It goes nowhere.
    OpenChat,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::OpenChat => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Event),
            2 => Some(Self::OpenChat),
            _ => None,
        }
    }
}

/// The head of a record, read and found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) at_ms: u64,
    body: u32,
    body_crc: u32,
}

impl Head {
    /// Reads a head; `None` if it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        if head[..4] != MAGIC || crc32fast::hash(&head[..28]) != u32_at(28)? {
            return None;
        }
        let kind = Kind::from_code(head[24])?;
        Some(Self { kind, number: u64_at(8)?, at_ms: u64_at(16)?, body: u32_at(4)?, body_crc: u32_at(32)? })
    }

    /// The size of the record with its body.
    pub(super) fn record_len(&self) -> usize {
        HEAD + self.body as usize
    }

    /// Whether the body is the one that was written.
    pub(super) fn vouches_for(&self, body: &[u8]) -> bool {
        body.len() == self.body as usize && crc32fast::hash(body) == self.body_crc
    }
}

/// A record that has no number yet.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    kind: Kind,
}

/// An event is too long for a record, or is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("the event could not be encoded")]
pub(super) struct Unencodable;

impl Draft {
    /// The record of an event, published by `source`. This is the only time that the event is encoded.
    pub(super) fn of_event(event: &Event, source: &str) -> Result<Self, Unencodable> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.resize(HEAD, 0);
        bytes.extend_from_slice(event.id().0.as_bytes());
        let time = shared::envelope::time_of(event);
        let subject = shared::subject::of(event.kind(), event.user_id());
        for text in [&subject, event.kind().type_name(), &time, source] {
            let length = u16::try_from(text.len()).map_err(|_| Unencodable)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        event.encode_into(&mut bytes).map_err(|_| Unencodable)?;
        Self::finish(bytes, Kind::Event)
    }

    /// The record of something else, already encoded.
    pub(super) fn of_bytes(kind: Kind, body: &[u8]) -> Result<Self, Unencodable> {
        let mut bytes = vec![0; HEAD];
        bytes.extend_from_slice(body);
        Self::finish(bytes, kind)
    }

    fn finish(mut bytes: Vec<u8>, kind: Kind) -> Result<Self, Unencodable> {
        let (head, body) = bytes.split_at_mut(HEAD);
        let length = u32::try_from(body.len()).map_err(|_| Unencodable)?;
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[24] = kind.code();
        head[32..36].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        Ok(Self { bytes, kind })
    }

    /// The size of the record.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives it its number and time.
    pub(super) fn number(mut self, number: u64, at_ms: u64) -> Entry {
        self.bytes[8..16].copy_from_slice(&number.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&at_ms.to_le_bytes());
        let crc = crc32fast::hash(&self.bytes[..28]);
        self.bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        Entry { number, at_ms, kind: self.kind, record: self.bytes.into() }
    }
}

/// A record, as it is on disk.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's number in this journal: they grow, and are never used again.
    pub number: u64,
    /// When it was recorded, in milliseconds since 1970.
    pub at_ms: u64,
    pub(super) kind: Kind,
    record: Bytes,
}

/// An event as it goes to the broker.
#[derive(Debug)]
pub struct StoredEvent<'a> {
    /// Where it goes.
    pub subject: Bytes,
    /// Its envelope.
    pub envelope: Envelope<'a>,
    /// Its payload.
    pub payload: Bytes,
}

impl Entry {
    pub(super) fn new(head: &Head, record: Bytes) -> Self {
        Self { number: head.number, at_ms: head.at_ms, kind: head.kind, record }
    }

    /// The whole record.
    pub(super) fn record(&self) -> &Bytes {
        &self.record
    }

    /// The same record under another number.
    pub(super) fn renumbered(&self, number: u64, at_ms: u64) -> Self {
        Draft { bytes: self.record.to_vec(), kind: self.kind }.number(number, at_ms)
    }

    /// What follows the head.
    pub(super) fn body(&self) -> Bytes {
        self.record.slice(HEAD..)
    }

    /// The size of the record.
    pub fn len(&self) -> usize {
        self.record.len()
    }

    /// Never: a record has a head.
    pub fn is_empty(&self) -> bool {
        self.record.is_empty()
    }

    /// The id of the event in it.
    pub fn id(&self) -> Option<uuid::Uuid> {
        uuid::Uuid::from_slice(self.record.get(HEAD..HEAD + 16)?).ok()
    }

    /// The event in it. `None` if the record is not of that form, which its checksum rules out for records of this version.
    pub fn event(&self) -> Option<StoredEvent<'_>> {
        let body = self.record.get(HEAD..)?;
        let id = uuid::Uuid::from_slice(body.get(..16)?).ok()?;
        let mut at = 16;
        let mut text = || -> Option<&str> {
            let length = usize::from(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
            let text = std::str::from_utf8(body.get(at + 2..at + 2 + length)?).ok()?;
            at += 2 + length;
            Some(text)
        };
        let (subject, type_name, time, source) = (text()?, text()?, text()?, text()?);
        let envelope = Envelope { id: shared::id::EventId(id), type_name, time, source };
        let subject = self.record.slice_ref(subject.as_bytes());
        Some(StoredEvent { subject, envelope, payload: self.record.slice(HEAD + at..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives() {
        let event = crate::journal::tests::conversation_created(7);
        let entry = Draft::of_event(&event, "/gateway/g").unwrap().number(42, 1_763_856_000_000);
        let head = Head::read(entry.record()).unwrap();
        assert_eq!((head.number, head.at_ms, head.kind), (42, 1_763_856_000_000, Kind::Event));
        assert_eq!(head.record_len(), entry.len());
        assert!(head.vouches_for(&entry.body()));
        let stored = entry.event().unwrap();
        assert_eq!(stored.subject, shared::subject::of(event.kind(), event.user_id()));
        assert_eq!(stored.envelope.headers(), shared::envelope::headers(&event, "/gateway/g"));
        assert_eq!(stored.payload, event.encode().unwrap());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let draft = Draft::of_event(&crate::journal::tests::conversation_created(1), "/gateway/g").unwrap();
        let record = draft.number(1, 2).record().to_vec();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let is_good = Head::read(&damaged).is_some_and(|head| head.vouches_for(&damaged[HEAD..]));
            assert!(!is_good, "bit {bit}");
        }
    }
}
