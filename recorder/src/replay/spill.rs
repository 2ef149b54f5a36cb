//! Spill files: the events of an export, sorted on disk into small files by the start time of the chat, so that each
//! file can be projected separately.
//!
//! All events of a chat carry the start time of the chat, so all events of a chat are in the same file, wherever the
//! events stand in the log. After an interruption, events may be added twice and the last event of a file may be
//! incomplete: the projection ignores repeated events, and the reader ignores an incomplete end. A file too large to be
//! projected at once is split by chat.
//!
//! Format of an event: the type (1 byte), a hash shared by all events of the chat (4 bytes), the length of the payload
//! (4 bytes), the payload. Hash and length are little endian.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use shared::event::{About, Event, EventType};
use time::{Date, OffsetDateTime, UtcOffset};

/// The span of start times in a file, in minutes.
const SPAN_MINUTES: u32 = 10;

/// The maximum number of open files. Above the maximum, the least recently used file is closed.
const MAX_OPEN_FILES: usize = 48;

/// The maximum number of bytes projected at once; a larger file is split.
const MAX_PROJECTED_BYTES: u64 = 64 << 20;

/// The maximum number of pieces written in one pass over a file, as all pieces are open at once. More pieces take more
/// passes.
const MAX_PIECES_AT_ONCE: usize = 256;

/// The size of the header before a payload, in bytes.
const HEADER_BYTES: usize = 9;

/// The maximum size of an event, in bytes. A greater length marks an incomplete event.
const MAX_EVENT_BYTES: u32 = 1 << 30;

/// A writer of spill files.
#[derive(Debug)]
pub struct Spill {
    directory: PathBuf,
    open: HashMap<PathBuf, (BufWriter<File>, u64)>,
    clock: u64,
}

/// A spill file: events of chats that started within the same ten minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillFile(PathBuf);

impl Spill {
    /// Opens the spill files below `directory`, created if missing. Files of an interrupted run are continued.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), open: HashMap::new(), clock: 0 })
    }

    /// Appends an event to the file for the start time of its chat. `payload` is the event as published with the given type.
    pub fn add(&mut self, event: &Event, event_type: EventType, payload: &[u8]) -> io::Result<()> {
        let path = self.path(started_at(event));
        self.clock += 1;
        if !self.open.contains_key(&path) {
            self.close_least_recently_used()?;
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            let whole = complete_length(&path)?;
            // An incomplete event left by an interrupted run would make all later events unreadable.
            if file.metadata()?.len() > whole {
                file.set_len(whole)?;
            }
            self.open.insert(path.clone(), (BufWriter::new(file), self.clock));
        }
        let Some((file, used)) = self.open.get_mut(&path) else { return Ok(()) };
        *used = self.clock;
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("an event is too large"))?;
        write(file, EventHeader { event_type, subject: subject_hash(event), length }, payload)
    }

    /// Writes all buffered events to the files.
    pub fn flush(&mut self) -> io::Result<()> {
        self.open.values_mut().try_for_each(|(file, _)| file.flush())
    }

    /// Returns the spill files by UTC day, in order of time.
    pub fn days(directory: &Path) -> io::Result<BTreeMap<String, Vec<SpillFile>>> {
        let mut days = BTreeMap::new();
        if !directory.exists() {
            return Ok(days);
        }
        for day in fs::read_dir(directory)? {
            let day = day?;
            let mut files = Vec::new();
            for slot in fs::read_dir(day.path())? {
                files.push(SpillFile(slot?.path()));
            }
            files.sort_by(|one, other| one.0.cmp(&other.0));
            days.insert(day.file_name().to_string_lossy().into_owned(), files);
        }
        Ok(days)
    }

    fn close_least_recently_used(&mut self) -> io::Result<()> {
        while self.open.len() >= MAX_OPEN_FILES {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            if let Some((mut file, _)) = oldest.and_then(|path| self.open.remove(&path)) {
                file.flush()?;
            }
        }
        Ok(())
    }

    fn path(&self, at: OffsetDateTime) -> PathBuf {
        let at = at.to_offset(UtcOffset::UTC);
        let minute = u32::from(at.hour()) * 60 + u32::from(at.minute());
        self.directory.join(day(at.date())).join(format!("{:04}", minute / SPAN_MINUTES))
    }
}

impl SpillFile {
    /// Returns this file if small enough to be projected at once; otherwise splits the file into pieces below
    /// `directory`, with all events of a chat in the same piece. Existing content of `directory` is removed.
    pub fn split_if_large(&self, directory: &Path) -> io::Result<Vec<Self>> {
        self.split_into(directory, MAX_PROJECTED_BYTES, MAX_PIECES_AT_ONCE)
    }

    fn split_into(&self, directory: &Path, most: u64, at_once: usize) -> io::Result<Vec<Self>> {
        let pieces = fs::metadata(&self.0)?.len() / most + 1;
        if pieces == 1 {
            return Ok(vec![self.clone()]);
        }
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        let paths: Vec<_> = (0..pieces).map(|piece| directory.join(piece.to_string())).collect();
        for (number, paths) in paths.chunks(at_once).enumerate() {
            let files: io::Result<Vec<_>> = paths.iter().map(|path| Ok(BufWriter::new(File::create(path)?))).collect();
            let mut files = files?;
            self.for_each(|header, payload| {
                let place = header.piece(pieces).checked_sub(number * at_once);
                match place.and_then(|place| files.get_mut(place)) {
                    Some(file) => write(file, header, payload),
                    None => Ok(()),
                }
            })?;
            files.iter_mut().try_for_each(BufWriter::flush)?;
        }
        Ok(paths.into_iter().map(Self).collect())
    }

    /// Decodes the events in order and calls `visit` with each event.
    pub fn read(&self, mut visit: impl FnMut(Event)) -> io::Result<()> {
        self.for_each(|header, payload| {
            visit(Event::decode(header.event_type, payload).map_err(io::Error::other)?);
            Ok(())
        })
    }

    fn for_each(&self, mut visit: impl FnMut(EventHeader, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut reader, mut payload) = (BufReader::with_capacity(1 << 20, File::open(&self.0)?), Vec::new());
        while let Some(header) = next(&mut reader, &mut payload)? {
            visit(header, &payload)?;
        }
        Ok(())
    }
}

/// Returns the directory name of a day, such as `2026-01-31`.
pub fn day(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// Returns the time shared by all events of the same chat: the start time. For other events, the event's own time.
fn started_at(event: &Event) -> OffsetDateTime {
    if let About::Chat { started_at, .. } = event.about() { started_at } else { event.time() }
}

fn subject_hash(event: &Event) -> u32 {
    let id = if let About::Chat { chat_id, .. } = event.about() { chat_id.0 } else { event.id().0 };
    // The first bytes of an id are a time: only the last bytes differ between ids of the same time.
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The header before a payload.
#[derive(Clone, Copy, Debug)]
struct EventHeader {
    event_type: EventType,
    subject: u32,
    length: u32,
}

impl EventHeader {
    /// Returns the piece of this event, from 0 to `pieces` - 1. Multiplicative hashing gives pieces of similar size for
    /// random and for consecutive ids.
    fn piece(&self, pieces: u64) -> usize {
        let scattered = u64::from(self.subject.wrapping_mul(0x9E37_79B1));
        usize::try_from((scattered * pieces) >> u32::BITS).unwrap_or_default()
    }
}

fn number(event_type: EventType) -> u8 {
    EventType::ALL
        .iter()
        .position(|one| *one == event_type)
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn write(file: &mut impl io::Write, header: EventHeader, payload: &[u8]) -> io::Result<()> {
    file.write_all(&[number(header.event_type)])?;
    file.write_all(&header.subject.to_le_bytes())?;
    file.write_all(&header.length.to_le_bytes())?;
    file.write_all(payload)
}

/// Reads the next event of a file. Returns `None` at the end of the file, or at an incomplete event.
fn next(reader: &mut impl io::Read, payload: &mut Vec<u8>) -> io::Result<Option<EventHeader>> {
    let mut header = [0; HEADER_BYTES];
    match reader.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [event_type, s0, s1, s2, s3, l0, l1, l2, l3] = header;
    let (subject, length) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([l0, l1, l2, l3]));
    let Some(event_type) = EventType::ALL.get(usize::from(event_type)).filter(|_| length <= MAX_EVENT_BYTES) else {
        return Ok(None);
    };
    payload.clear();
    reader.take(u64::from(length)).read_to_end(payload)?;
    Ok((payload.len() == length as usize).then_some(EventHeader { event_type: *event_type, subject, length }))
}

/// Returns the length of the file's complete events, in bytes.
fn complete_length(path: &Path) -> io::Result<u64> {
    let (mut reader, mut payload) = (BufReader::new(File::open(path)?), Vec::new());
    let mut whole = 0;
    while next(&mut reader, &mut payload)?.is_some() {
        whole += (HEADER_BYTES + payload.len()) as u64;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use shared::event::EventKind;
    use uuid::Uuid;

    use super::*;

    fn chat(number: u128) -> [(EventKind, String); 2] {
        let id = Uuid::from_u128(0x0193_6b6e_2f00_7abc_8def_0000_0000_0000 + number);
        let both = json!({"chat_id": id, "operation": "chat", "conversation_id": Uuid::from_u128(1), "user_id": "u", "gateway": "g",
            "started_at": "2026-11-22T10:00:00Z", "model": "m"});
        let with = |more: serde_json::Value| {
            let mut event = both.clone();
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event.to_string()
        };
        [
            (
                EventKind::ChatStarted,
                with(
                    json!({"conversation_origin": "minted", "dialect": "openai_chat", "stream": true, "parameters": {},
                    "messages": [], "assistant_message_id": Uuid::nil()}),
                ),
            ),
            (
                EventKind::ChatFailed,
                with(
                    json!({"failed_at": "2026-11-22T10:00:01Z", "stage": "upstream_stream", "error": {"message": "broke"},
                    "usage": {"source": "unknown", "parts": {"uncached_input": 0, "cache_read": 0, "cache_write": 0,
                    "output": 0, "reasoning": 0}}, "duration_ms": 5, "attempts": []}),
                ),
            ),
        ]
    }

    fn ids(slot: &SpillFile) -> Vec<(Uuid, EventKind)> {
        let mut ids = Vec::new();
        slot.read(|event| {
            let id = match &event {
                Event::ChatStarted(event) => event.chat_id.0,
                Event::ChatFailed(event) => event.chat_id.0,
                _ => panic!("{event:?}"),
            };
            ids.push((id, event.kind()));
        })
        .unwrap();
        ids
    }

    #[test]
    fn a_file_that_is_too_large_is_split_by_chat_and_a_torn_end_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(&directory.path().join("spill")).unwrap();
        for (kind, payload) in (0..200).flat_map(chat) {
            spill.add(&Event::decode(kind, payload.as_bytes()).unwrap(), kind.latest(), payload.as_bytes()).unwrap();
        }
        spill.flush().unwrap();
        let days = Spill::days(&directory.path().join("spill")).unwrap();
        let [slot] = &days["2026-11-22"][..] else { panic!("{days:?}") };
        let whole = ids(slot);
        assert_eq!(whole.len(), 400);

        let torn = fs::metadata(&slot.0).unwrap().len() - 1;
        OpenOptions::new().write(true).open(&slot.0).unwrap().set_len(torn).unwrap();
        let split = directory.path().join("split");
        assert_eq!(slot.split_if_large(&split).unwrap(), std::slice::from_ref(slot), "small enough as it is");
        let pieces = slot.split_into(&split, torn / 7, 3).unwrap();
        assert_eq!(pieces.len(), 8);
        let mut seen = BTreeSet::new();
        let mut events = Vec::new();
        for piece in &pieces {
            assert!(fs::metadata(&piece.0).unwrap().len() < torn / 7 * 2, "a piece is larger than the limit");
            let piece = ids(piece);
            let chats: BTreeSet<_> = piece.iter().map(|(id, _)| *id).collect();
            assert!(chats.iter().all(|chat| seen.insert(*chat)), "a chat in two pieces");
            events.extend(piece);
        }
        let mut whole = whole[..399].to_vec();
        whole.sort_by_key(|(id, kind)| (*id, number(kind.latest())));
        events.sort_by_key(|(id, kind)| (*id, number(kind.latest())));
        assert_eq!(events, whole);
        // Pieces left by splitting another file must not come back.
        assert_eq!(
            slot.split_into(&split, torn / 2, MAX_PIECES_AT_ONCE)
                .unwrap()
                .iter()
                .map(|piece| ids(piece).len())
                .sum::<usize>(),
            399
        );
    }
}
