//! How far the broker has come, on disk: so that a gateway that comes back does not publish everything again, and notices a
//! broker that has lost what it had.
//!
//! Two places take turns, so that a torn write costs the newer one and not both. Nothing rests on it: without it, what is
//! left in the journal is published again, and counts once all the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The size of each of the two places.
const SLOT_BYTES: usize = 256;

/// How far the broker has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Every event below this number is acknowledged.
    #[serde(rename = "below")]
    pub released_below: u64,
    /// The last acknowledgement that was not for a repeated event.
    #[serde(rename = "newest")]
    pub last_acknowledged: Option<AcknowledgedEvent>,
    /// When the stream was made, in nanoseconds since 1970.
    pub stream_created: Option<i64>,
}

/// An event that the broker has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgedEvent {
    /// Its place in the stream.
    pub sequence: u64,
    /// The id of the event.
    #[serde(rename = "event")]
    pub event_id: Uuid,
}

/// The file.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    file: File,
    generation: u64,
}

#[derive(Serialize, Deserialize)]
struct CheckpointSlot {
    #[serde(rename = "turn")]
    generation: u64,
    #[serde(rename = "released")]
    checkpoint: Checkpoint,
}

impl CheckpointFile {
    /// Opens it, or makes it; and what it says.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Checkpoint)> {
        let path = directory.join("released");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let newest = [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max_by_key(|slot| slot.generation);
        let (generation, checkpoint) = newest.map_or_else(Default::default, |slot| (slot.generation, slot.checkpoint));
        Ok((Self { file, generation }, checkpoint))
    }

    /// Writes it down.
    pub(super) fn write(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.generation += 1;
        let text = serde_json::to_string(&CheckpointSlot { generation: self.generation, checkpoint: *checkpoint })?;
        let line = format!("{:08x} {text}", crc32fast::hash(text.as_bytes()));
        let line = format!("{line:<width$}\n", width = SLOT_BYTES - 1);
        self.file.write_all_at(line.as_bytes(), (self.generation % 2) * SLOT_BYTES as u64)
    }
}

fn read_slot(file: &File, slot: u64) -> Option<CheckpointSlot> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    let (crc, text) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
    let is_good = u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(text.as_bytes());
    is_good.then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_intact_slot_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, first) = CheckpointFile::open(directory.path()).unwrap();
        assert_eq!(first, Checkpoint::default());
        let newest = Some(AcknowledgedEvent { sequence: u64::MAX, event_id: Uuid::max() });
        for released_below in 1..=5 {
            file.write(&Checkpoint { released_below, last_acknowledged: newest, stream_created: Some(i64::MIN) })
                .unwrap();
        }
        assert_eq!(CheckpointFile::open(directory.path()).unwrap().1.released_below, 5);
        // The fifth checkpoint is in the second slot.
        file.file.write_all_at(b"~", SLOT_BYTES as u64 + 30).unwrap();
        let (_, left) = CheckpointFile::open(directory.path()).unwrap();
        assert_eq!((left.released_below, left.last_acknowledged), (4, newest));
    }

    #[test]
    fn a_slot_is_json_with_the_names_that_earlier_releases_wrote() {
        let last_acknowledged = Some(AcknowledgedEvent { sequence: 7, event_id: Uuid::nil() });
        let checkpoint = Checkpoint { released_below: 5, last_acknowledged, stream_created: Some(9) };
        let text = serde_json::to_string(&CheckpointSlot { generation: 3, checkpoint }).unwrap();
        let expected = r#"{"turn":3,"released":{"below":5,"newest":{"sequence":7,"event":"00000000-0000-0000-0000-000000000000"},"stream_created":9}}"#;
        assert_eq!(text, expected);
    }
}
