//! The format of a record, in which the log stores one event. Pure: no I/O.
//!
//! ```text
//! 0   4  magic: ff 53 4a fe; the bytes ff and fe are in no UTF-8 text, so no event can hold something that looks like a record
//! 4   4  length of the body
//! 8   8  number of the event; 0 for other kinds of records
//! 16  8  time of recording, in milliseconds since 1970
//! 24  1  kind, and three bytes of zero
//! 28  4  CRC-32 of the preceding 28 bytes
//! 32  4  CRC-32 of the body
//! 36     the body
//! ```
//!
//! All numbers are little endian. The header has a checksum of its own, so that the length can be trusted even if the
//! body is damaged: exactly one record is lost then, and the next record is found where it should begin.

use bytes::Bytes;
use shared::envelope::Envelope;
use shared::event::Event;
use shared::trace_context::TraceContext;

/// The size of a record header in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 36;

/// The magic number at the start of every record.
pub(super) const RECORD_MAGIC: [u8; 4] = [0xff, b'S', b'J', 0xfe];

/// The kind of a record, which decides the form of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// An event, to be published to the broker.
    Event,
    /// A chat that was unended when the segment was activated. Such a record is never published.
    UnendedChat,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::UnendedChat => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Event),
            2 => Some(Self::UnendedChat),
            _ => None,
        }
    }
}

/// The header of a record, with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: RecordKind,
    pub(super) number: u64,
    pub(super) recorded_at_ms: u64,
    body_len: u32,
    body_crc: u32,
}

impl RecordHeader {
    /// Parses a header. Returns `None` if the magic number, the checksum or the kind is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        if header[..4] != RECORD_MAGIC || crc32fast::hash(&header[..28]) != u32_at(28)? {
            return None;
        }
        let kind = RecordKind::from_code(header[24])?;
        Some(Self {
            kind,
            number: u64_at(8)?,
            recorded_at_ms: u64_at(16)?,
            body_len: u32_at(4)?,
            body_crc: u32_at(32)?,
        })
    }

    /// Returns the size of the record in bytes, header and body.
    pub(super) fn record_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_len as usize
    }

    /// Returns true if the length and the checksum of `body` match the header.
    pub(super) fn matches_body(&self, body: &[u8]) -> bool {
        body.len() == self.body_len as usize && crc32fast::hash(body) == self.body_crc
    }
}

/// An encoded record that has no number yet.
#[derive(Debug)]
pub(super) struct UnnumberedRecord {
    bytes: Vec<u8>,
    kind: RecordKind,
    trace: Option<TraceContext>,
}

/// The event cannot be encoded as JSON, or a text or the body is too long for its length field.
#[derive(Debug, thiserror::Error)]
#[error("the event could not be encoded")]
pub(super) struct EncodeError;

/// The size of the texts of an event that can be large, in bytes. A record of megabytes that grew by doubling would be copied
/// several times.
fn text_bytes(event: &Event) -> usize {
    match event {
        Event::ChatStarted(event) => {
            let said: usize = event.new_messages.iter().map(|message| message.text.len()).sum();
            event.messages.as_ref().map_or(0, |messages| messages.get().len()) + event.parameters.get().len() + said
        }
        _ => 0,
    }
}

impl UnnumberedRecord {
    /// Encodes an event, to be published by `source`. Each event is encoded only here, once.
    pub(super) fn from_event(event: &Event, source: &str) -> Result<Self, EncodeError> {
        let mut bytes = Vec::with_capacity(1024 + text_bytes(event));
        bytes.resize(RECORD_HEADER_BYTES, 0);
        bytes.extend_from_slice(event.id().0.as_bytes());
        let time = shared::envelope::rfc3339_time(event);
        let subject = shared::subject::of(event.kind(), event.user_id());
        for text in [&subject, event.kind().type_name(), &time, source] {
            let length = u16::try_from(text.len()).map_err(|_| EncodeError)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        event.encode_into(&mut bytes).map_err(|_| EncodeError)?;
        let trace = event.traceparent().filter(TraceContext::is_sampled);
        Ok(Self { trace, ..Self::finish(bytes, RecordKind::Event)? })
    }

    /// Makes a record from an encoded body.
    pub(super) fn from_bytes(kind: RecordKind, body: &[u8]) -> Result<Self, EncodeError> {
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        bytes.extend_from_slice(body);
        Self::finish(bytes, kind)
    }

    fn finish(mut bytes: Vec<u8>, kind: RecordKind) -> Result<Self, EncodeError> {
        let (header, body) = bytes.split_at_mut(RECORD_HEADER_BYTES);
        let length = u32::try_from(body.len()).map_err(|_| EncodeError)?;
        header[..4].copy_from_slice(&RECORD_MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[24] = kind.code();
        header[32..36].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        Ok(Self { bytes, kind, trace: None })
    }

    /// Returns the size of the record in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Completes the record with its number and with the time of recording, in milliseconds since 1970.
    pub(super) fn assign_number(mut self, number: u64, recorded_at_ms: u64) -> JournalEntry {
        self.bytes[8..16].copy_from_slice(&number.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&recorded_at_ms.to_le_bytes());
        let crc = crc32fast::hash(&self.bytes[..28]);
        self.bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        JournalEntry { number, recorded_at_ms, kind: self.kind, trace: self.trace, record: self.bytes.into() }
    }
}

/// A numbered record, byte for byte as on disk.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// The event's number in the journal. Numbers ascend and are never reused.
    pub number: u64,
    /// The time of recording, in milliseconds since 1970.
    pub recorded_at_ms: u64,
    pub(super) kind: RecordKind,
    /// The span of the call that the event is about, if its trace is kept. Unknown for an entry that was read from the disk.
    pub trace: Option<TraceContext>,
    record: Bytes,
}

/// An event in the form in which the relay publishes events.
#[derive(Debug)]
pub struct StoredEvent<'a> {
    /// The NATS subject to publish to.
    pub subject: Bytes,
    /// The CloudEvents envelope, published as message headers.
    pub envelope: Envelope<'a>,
    /// The payload, published as the message body.
    pub payload: Bytes,
}

impl JournalEntry {
    pub(super) fn new(header: &RecordHeader, record: Bytes) -> Self {
        Self { number: header.number, recorded_at_ms: header.recorded_at_ms, kind: header.kind, trace: None, record }
    }

    /// Returns the bytes of the whole record, header included.
    pub(super) fn record(&self) -> &Bytes {
        &self.record
    }

    /// Returns a copy of the record under another number and time.
    pub(super) fn renumbered(&self, number: u64, recorded_at_ms: u64) -> Self {
        UnnumberedRecord { bytes: self.record.to_vec(), kind: self.kind, trace: self.trace }
            .assign_number(number, recorded_at_ms)
    }

    /// Returns the bytes after the header.
    pub(super) fn body(&self) -> Bytes {
        self.record.slice(RECORD_HEADER_BYTES..)
    }

    /// Returns the size of the record in bytes.
    pub fn len(&self) -> usize {
        self.record.len()
    }

    /// Returns false, because every record has a header.
    pub fn is_empty(&self) -> bool {
        self.record.is_empty()
    }

    /// Returns the id of the event in the record, or `None` if the body is too short for an id.
    pub fn id(&self) -> Option<uuid::Uuid> {
        uuid::Uuid::from_slice(self.record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + 16)?).ok()
    }

    /// Returns the event in the record, or `None` if the body has another form, which the checksums rule out for
    /// records of the current version.
    pub fn event(&self) -> Option<StoredEvent<'_>> {
        let body = self.record.get(RECORD_HEADER_BYTES..)?;
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
        Some(StoredEvent { subject, envelope, payload: self.record.slice(RECORD_HEADER_BYTES + at..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back_as_it_was_encoded() {
        let event = crate::journal::tests::events::conversation_created(7);
        let entry = UnnumberedRecord::from_event(&event, "/gateway/g").unwrap().assign_number(42, 1_763_856_000_000);
        let header = RecordHeader::parse(entry.record()).unwrap();
        assert_eq!((header.number, header.recorded_at_ms, header.kind), (42, 1_763_856_000_000, RecordKind::Event));
        assert_eq!(header.record_len(), entry.len());
        assert!(header.matches_body(&entry.body()));
        let stored = entry.event().unwrap();
        assert_eq!(stored.subject, shared::subject::of(event.kind(), event.user_id()));
        assert_eq!(stored.envelope.headers(), shared::envelope::headers(&event, "/gateway/g"));
        assert_eq!(stored.payload, event.encode().unwrap());
    }

    #[test]
    fn any_flipped_bit_fails_a_checksum() {
        let record =
            UnnumberedRecord::from_event(&crate::journal::tests::events::conversation_created(1), "/gateway/g")
                .unwrap();
        let record = record.assign_number(1, 2).record().to_vec();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let is_good = RecordHeader::parse(&damaged)
                .is_some_and(|header| header.matches_body(&damaged[RECORD_HEADER_BYTES..]));
            assert!(!is_good, "bit {bit}");
        }
    }
}
