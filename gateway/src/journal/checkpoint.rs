//! The checkpoint: the broker's progress, on disk. With the checkpoint, a restarted gateway does not publish
//! acknowledged events again, and notices a broker that has lost acknowledged events.
//!
//! Writes alternate between two slots, so that a torn write costs the newer checkpoint and not both. Correctness does
//! not depend on the checkpoint: without one, the remaining events of the journal are published again, and each event
//! still counts once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The size of each of the two slots, in bytes.
const SLOT_BYTES: usize = 256;

/// The broker's progress: the acknowledged events, and the identity of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number below which every event has been acknowledged.
    #[serde(rename = "below")]
    pub released_below: u64,
    /// The newest acknowledgement of the earliest connection that no check has confirmed.
    #[serde(rename = "newest")]
    pub last_acknowledged: Option<AcknowledgedEvent>,
    /// True if acknowledgements of later connections are not confirmed either, so that `last_acknowledged` does not
    /// stand for them.
    #[serde(rename = "more", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_incomplete: bool,
    /// The time of the stream's creation, in nanoseconds since 1970.
    pub stream_created: Option<i64>,
}

/// An event that the broker has acknowledged, and may have lost since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgedEvent {
    /// The event's sequence number in the stream.
    pub sequence: u64,
    /// The id in the event's envelope.
    #[serde(rename = "event")]
    pub event_id: Uuid,
}

/// The checkpoint file, `released` in the journal's directory.
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
    /// Opens or creates the file, and returns the newest intact checkpoint, or the default checkpoint if there is none.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Checkpoint)> {
        let path = directory.join("released");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let newest = [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max_by_key(|slot| slot.generation);
        let (generation, checkpoint) = newest.map_or_else(Default::default, |slot| (slot.generation, slot.checkpoint));
        Ok((Self { file, generation }, checkpoint))
    }

    /// Writes a checkpoint over the older of the two slots.
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
        // The longest numbers fit.
        for turn in 0..5 {
            let checkpoint = Checkpoint {
                released_below: u64::MAX - turn,
                last_acknowledged: newest,
                is_incomplete: true,
                stream_created: Some(i64::MIN),
            };
            file.write(&checkpoint).unwrap();
        }
        assert_eq!(CheckpointFile::open(directory.path()).unwrap().1.released_below, u64::MAX - 4);
        // The fifth checkpoint is in the second slot.
        file.file.write_all_at(b"~", SLOT_BYTES as u64 + 30).unwrap();
        let (_, left) = CheckpointFile::open(directory.path()).unwrap();
        assert_eq!((left.released_below, left.last_acknowledged), (u64::MAX - 3, newest));
    }

    #[test]
    fn a_slot_is_json_with_the_names_that_earlier_releases_wrote() {
        let last_acknowledged = Some(AcknowledgedEvent { sequence: 7, event_id: Uuid::nil() });
        let checkpoint =
            Checkpoint { released_below: 5, last_acknowledged, is_incomplete: false, stream_created: Some(9) };
        let text = serde_json::to_string(&CheckpointSlot { generation: 3, checkpoint }).unwrap();
        let expected = r#"{"turn":3,"released":{"below":5,"newest":{"sequence":7,"event":"00000000-0000-0000-0000-000000000000"},"stream_created":9}}"#;
        assert_eq!(text, expected);
    }
}
