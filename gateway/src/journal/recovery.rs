//! Opening a journal: what the last gateway left, whatever became of it.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Instant;

use super::checkpoint::{Released, ReleasedFile};
use super::error::OpenError;
use super::log::{Beginning as LogBeginning, Bounds, Log, Sealed};
use super::open_chats::OpenChats;
use super::record::Kind;
use super::segment::{Beginning, Directory, Found, HEADER, Records, beginning};

/// A journal that was opened.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) released_file: ReleasedFile,
    pub(super) released: Released,
    /// In how many places something was damaged.
    pub(super) damaged: u64,
    /// Events that the broker has not acknowledged.
    pub(super) waiting: u64,
}

/// What was found in the segments.
#[derive(Debug, Default)]
struct Survey {
    open: OpenChats,
    sealed: VecDeque<Sealed>,
    next_segment: u64,
    next_number: u64,
    damaged: u64,
    waiting: u64,
}

/// Reads what is there, and begins a segment of our own behind it.
pub(super) fn recover(directory: Directory, bounds: Bounds) -> Result<Recovered, OpenError> {
    let path = directory.path().to_owned();
    let unusable = |error| OpenError::Unusable { path: path.clone(), error };
    let (released_file, mut released) = ReleasedFile::open(&path).map_err(unusable)?;
    // Events are numbered from 1.
    released.below = released.below.max(1);
    directory.remove_spares().map_err(unusable)?;
    let mut survey = Survey { next_segment: 1, next_number: released.below, ..Survey::default() };
    for number in directory.segments().map_err(unusable)? {
        survey.segment(&directory, number, released.below)?;
    }
    let (damaged, waiting) = (survey.damaged, survey.waiting);
    let beginning = LogBeginning {
        open: survey.open,
        sealed: survey.sealed,
        next_segment: survey.next_segment,
        next_number: survey.next_number,
        released_below: released.below,
    };
    let log = Log::begin(directory, bounds, beginning).map_err(unusable)?;
    Ok(Recovered { log, released_file, released, damaged, waiting })
}

impl Survey {
    fn segment(&mut self, directory: &Directory, number: u64, released_below: u64) -> Result<(), OpenError> {
        let path = directory.file(number);
        let unusable = |error| OpenError::Unusable { path: path.clone(), error };
        self.next_segment = self.next_segment.max(number + 1);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(unusable)?;
        let length = file.metadata().map_err(unusable)?.len();
        let header = beginning(&file).map_err(unusable)?;
        let start = match header {
            Beginning::Good(_) => HEADER,
            Beginning::OtherVersion(version) => return Err(OpenError::OtherVersion { path, version }),
            // Made ahead and not used; or made, and the machine stopped before anything was written.
            Beginning::Unused | Beginning::Damaged => 0,
        };
        if let Beginning::Good(header) = &header {
            self.next_number = self.next_number.max(header.first);
        }
        let trimmed = file.try_clone().map_err(unusable)?;
        let mut records = Records::new(file, start, length);
        let mut damaged = 0;
        let mut count = 0_u64;
        let mut lowest = u64::MAX;
        let end = loop {
            match records.next().map_err(unusable)? {
                Found::Record(entry, gap) => {
                    // Where the header is damaged, that is counted below.
                    damaged += u64::from(gap.bytes > 0 && !(count == 0 && start == 0));
                    count += 1;
                    if entry.kind == Kind::Event {
                        self.next_number = self.next_number.max(entry.number + 1);
                        lowest = lowest.min(entry.number);
                        self.waiting += u64::from(entry.number >= released_below);
                    }
                    if !self.open.saw_record(&entry) {
                        tracing::error!(
                            path = %path.display(), number = entry.number,
                            "a record of the journal is whole and cannot be understood: it goes to the broker as it is"
                        );
                    }
                }
                Found::End(end, tail) => {
                    if tail.has_data && (count > 0 || start > 0) {
                        damaged += 1;
                        // Most likely what was being written when the gateway died: nobody was told that it was recorded.
                        tracing::warn!(path = %path.display(), bytes = tail.bytes, "the last record of a segment is torn");
                    }
                    break end;
                }
            }
        };
        if count == 0 && header == Beginning::Unused {
            let _ = directory.remove(number);
            return Ok(());
        }
        damaged += u64::from(header == Beginning::Damaged && count > 0);
        if damaged > 0 {
            self.damaged += damaged;
            tracing::error!(path = %path.display(), places = damaged, "the journal is damaged; the damage was stepped over");
        }
        // The room that was reserved and not used.
        trimmed.set_len(end).map_err(unusable)?;
        // The last gateway may have been killed before it synced.
        trimmed.sync_all().map_err(unusable)?;
        self.sealed.push_back(Sealed {
            number,
            lowest,
            last: self.next_number.saturating_sub(1),
            end,
            released_at: Some(Instant::now()).filter(|_| self.next_number <= released_below),
        });
        Ok(())
    }
}

/// Makes the directory if it is not there.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    std::fs::create_dir_all(path).map_err(|error| OpenError::Unusable { path: path.to_owned(), error })
}
