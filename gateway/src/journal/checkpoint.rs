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
const PLACE: usize = 256;

/// How far the broker has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Every event below this number is acknowledged.
    pub below: u64,
    /// The last acknowledgement that was not for a repeated event.
    pub newest: Option<Acknowledged>,
    /// When the stream was made, in nanoseconds since 1970.
    pub stream_created: Option<i64>,
}

/// An event that the broker has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Its place in the stream.
    pub sequence: u64,
    /// Which it is.
    pub event: Uuid,
}

/// The file.
#[derive(Debug)]
pub(super) struct ReleasedFile {
    file: File,
    turn: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    turn: u64,
    released: Released,
}

impl ReleasedFile {
    /// Opens it, or makes it; and what it says.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Released)> {
        let path = directory.join("released");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let newest = [0, 1].into_iter().filter_map(|place| read(&file, place)).max_by_key(|written| written.turn);
        let (turn, released) = newest.map_or_else(Default::default, |written| (written.turn, written.released));
        Ok((Self { file, turn }, released))
    }

    /// Writes it down.
    pub(super) fn write(&mut self, released: &Released) -> io::Result<()> {
        self.turn += 1;
        let text = serde_json::to_string(&Written { turn: self.turn, released: *released })?;
        let line = format!("{:08x} {text}", crc32fast::hash(text.as_bytes()));
        let line = format!("{line:<width$}\n", width = PLACE - 1);
        self.file.write_all_at(line.as_bytes(), (self.turn % 2) * PLACE as u64)
    }
}

fn read(file: &File, place: u64) -> Option<Written> {
    let mut bytes = [0; PLACE];
    file.read_exact_at(&mut bytes, place * PLACE as u64).ok()?;
    let (crc, text) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
    let is_good = u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(text.as_bytes());
    is_good.then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_is_whole_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, first) = ReleasedFile::open(directory.path()).unwrap();
        assert_eq!(first, Released::default());
        let newest = Some(Acknowledged { sequence: u64::MAX, event: Uuid::max() });
        for below in 1..=5 {
            file.write(&Released { below, newest, stream_created: Some(i64::MIN) }).unwrap();
        }
        assert_eq!(ReleasedFile::open(directory.path()).unwrap().1.below, 5);
        // The fifth is in the second place.
        file.file.write_all_at(b"~", PLACE as u64 + 30).unwrap();
        let (_, left) = ReleasedFile::open(directory.path()).unwrap();
        assert_eq!((left.below, left.newest), (4, newest));
    }
}
