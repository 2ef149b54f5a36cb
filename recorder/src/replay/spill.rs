//! The events of an export, sorted into small files by when their chat started, so that each can be projected by itself.
//!
//! All events of a chat carry the time at which it started, so they come to lie in the same file, whenever the log has them.
//! Events may be added twice, and the last one may be torn: projecting does not mind the first, reading not the second.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use shared::event::{Event, EventKind};
use time::{Date, OffsetDateTime, UtcOffset};

/// How long the span of a file is, in minutes.
const SPAN_MINUTES: u32 = 10;

/// How many files are open at once.
const MAX_OPEN: usize = 48;

/// The most of a file that is projected in one go; of a longer one, a share of its chats after the other.
const MAX_AT_ONCE: u64 = 64 << 20;

/// The largest event that is believed: past this, a length is a torn one.
const MAX_EVENT: u32 = 1 << 30;

/// The files being written.
#[derive(Debug)]
pub struct Spill {
    directory: PathBuf,
    open: HashMap<PathBuf, (BufWriter<File>, u64)>,
    clock: u64,
}

/// A file of events whose chats started within the same minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot(PathBuf);

impl Spill {
    /// Files below this directory, those of an earlier run included.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), open: HashMap::new(), clock: 0 })
    }

    /// Adds an event.
    pub fn add(&mut self, event: &Event, payload: &[u8]) -> io::Result<()> {
        let path = self.path(started_at(event));
        self.clock += 1;
        if !self.open.contains_key(&path) {
            self.make_room()?;
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            let whole = whole_length(&path)?;
            // What an interrupted run has left unfinished would make the rest unreadable.
            if file.metadata()?.len() > whole {
                file.set_len(whole)?;
            }
            self.open.insert(path.clone(), (BufWriter::new(file), self.clock));
        }
        let Some((file, used)) = self.open.get_mut(&path) else { return Ok(()) };
        *used = self.clock;
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("an event is too large"))?;
        file.write_all(&[number(event.kind())])?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(payload)
    }

    /// Everything so far is in the files.
    pub fn flush(&mut self) -> io::Result<()> {
        self.open.values_mut().try_for_each(|(file, _)| file.flush())
    }

    /// The days there are, each with its files, all in order.
    pub fn days(directory: &Path) -> io::Result<BTreeMap<String, Vec<Slot>>> {
        let mut days = BTreeMap::new();
        if !directory.exists() {
            return Ok(days);
        }
        for day in fs::read_dir(directory)? {
            let day = day?;
            let mut slots = Vec::new();
            for slot in fs::read_dir(day.path())? {
                slots.push(Slot(slot?.path()));
            }
            slots.sort_by(|one, other| one.0.cmp(&other.0));
            days.insert(day.file_name().to_string_lossy().into_owned(), slots);
        }
        Ok(days)
    }

    fn make_room(&mut self) -> io::Result<()> {
        while self.open.len() >= MAX_OPEN {
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

impl Slot {
    /// In how many parts it has to be projected to stay within bounds.
    pub fn parts(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0)?.len() / MAX_AT_ONCE + 1)
    }

    /// Calls `take` with the events of one part: all events of a chat are in the same.
    pub fn read(&self, part: u64, parts: u64, mut take: impl FnMut(Event)) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&self.0)?);
        while let Some((kind, payload)) = next(&mut reader)? {
            let event = Event::decode(kind, &payload).map_err(io::Error::other)?;
            if parts == 1 || subject_hash(&event) % parts == part {
                take(event);
            }
        }
        Ok(())
    }
}

/// The name of a day's directory.
pub fn day(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// The time that all events about the same thing share.
fn started_at(event: &Event) -> OffsetDateTime {
    match event {
        Event::ChatStarted(event) => event.started_at,
        Event::MessageCompleted(event) => event.started_at,
        Event::ChatFailed(event) => event.started_at,
        Event::ConversationCreated(_) | Event::ConversationChanged(_) | Event::ConversationDeleted(_) => event.time(),
    }
}

fn subject_hash(event: &Event) -> u64 {
    let id = match event {
        Event::ChatStarted(event) => event.chat_id.0,
        Event::MessageCompleted(event) => event.chat_id.0,
        Event::ChatFailed(event) => event.chat_id.0,
        Event::ConversationCreated(_) | Event::ConversationChanged(_) | Event::ConversationDeleted(_) => event.id().0,
    };
    // The end of an id is random.
    id.as_u64_pair().1 & 0xffff_ffff
}

fn number(kind: EventKind) -> u8 {
    EventKind::ALL.iter().position(|one| *one == kind).and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// The next event of a file; none at its end, or where it is torn.
fn next(reader: &mut impl io::Read) -> io::Result<Option<(EventKind, Vec<u8>)>> {
    let mut head = [0; 5];
    match reader.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    let Some(kind) = EventKind::ALL.get(usize::from(kind)).filter(|_| length <= MAX_EVENT) else { return Ok(None) };
    let mut payload = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut payload)?;
    Ok((payload.len() == length as usize).then_some((*kind, payload)))
}

/// How much of a file is whole events.
fn whole_length(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut whole = 0;
    while let Some((_, payload)) = next(&mut reader)? {
        whole += 5 + payload.len() as u64;
    }
    Ok(whole)
}
