//! Recovery: opens the journal of an earlier process, even after a crash or a power cut.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::directory::LogDirectory;
use super::error::JournalOpenError;
use super::log::{InitialState, Log, LogLimits, SealedSegment};
use super::record::RecordKind;
use super::segment::{HeaderState, NextRecord, RecordReader, SEGMENT_HEADER_BYTES, read_header};
use super::unended_chats::UnendedChats;

/// The state of a recovered journal.
#[derive(Debug)]
pub(super) struct RecoveredJournal {
    pub(super) log: Log,
    pub(super) checkpoint_file: CheckpointFile,
    pub(super) checkpoint: Checkpoint,
    /// The number of damaged places by segment.
    pub(super) damage: BTreeMap<u64, u64>,
    /// The number of events that the broker has not acknowledged.
    pub(super) waiting: u64,
}

/// The findings from all existing segments.
#[derive(Debug, Default)]
struct SegmentSurvey {
    unended_chats: UnendedChats,
    sealed: VecDeque<SealedSegment>,
    next_segment: u64,
    next_number: u64,
    /// The number of damaged places by segment.
    damage: BTreeMap<u64, u64>,
    waiting: u64,
}

/// Reads all existing segments, and starts a log with a new segment behind them.
pub(super) fn recover(directory: LogDirectory, limits: LogLimits) -> Result<RecoveredJournal, JournalOpenError> {
    let path = directory.path().to_owned();
    let unusable = |error| JournalOpenError::Unusable { path: path.clone(), error };
    let (checkpoint_file, mut checkpoint) = CheckpointFile::open(&path).map_err(unusable)?;
    // Events are numbered from 1.
    checkpoint.released_below = checkpoint.released_below.max(1);
    directory.handle().map_err(unusable)?;
    directory.remove_spare_segments().map_err(unusable)?;
    let mut survey =
        SegmentSurvey { next_segment: 1, next_number: checkpoint.released_below, ..SegmentSurvey::default() };
    for number in directory.segment_numbers().map_err(unusable)? {
        survey.read_segment(&directory, number, checkpoint.released_below)?;
    }
    let (damage, waiting) = (survey.damage, survey.waiting);
    let initial_state = InitialState {
        unended_chats: survey.unended_chats,
        sealed: survey.sealed,
        next_segment: survey.next_segment,
        next_number: survey.next_number,
        released_below: checkpoint.released_below,
    };
    let log = Log::start(directory, limits, initial_state).map_err(unusable)?;
    Ok(RecoveredJournal { log, checkpoint_file, checkpoint, damage, waiting })
}

impl SegmentSurvey {
    fn read_segment(
        &mut self,
        directory: &LogDirectory,
        number: u64,
        released_below: u64,
    ) -> Result<(), JournalOpenError> {
        let path = directory.segment_path(number);
        let unusable = |error| JournalOpenError::Unusable { path: path.clone(), error };
        self.next_segment = self.next_segment.max(number + 1);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(unusable)?;
        let length = file.metadata().map_err(unusable)?.len();
        let header = read_header(&file).map_err(unusable)?;
        let start = match header {
            HeaderState::Valid(_) => SEGMENT_HEADER_BYTES,
            HeaderState::UnsupportedVersion(version) => {
                return Err(JournalOpenError::UnsupportedVersion { path, version });
            }
            // Unused: the segment was created, and the machine stopped before the header was written.
            HeaderState::Unused | HeaderState::Damaged => 0,
        };
        if let HeaderState::Valid(header) = &header {
            self.next_number = self.next_number.max(header.first_number);
        }
        let trimmed = file.try_clone().map_err(unusable)?;
        let mut records = RecordReader::new(file, start, length);
        let mut damaged = 0;
        let mut count = 0_u64;
        let mut lowest_number = u64::MAX;
        let end = loop {
            match records.next().map_err(unusable)? {
                NextRecord::Record(entry, gap) => {
                    // A damaged header is counted below.
                    damaged += u64::from(gap.bytes > 0 && !(count == 0 && start == 0));
                    count += 1;
                    if entry.kind == RecordKind::Event {
                        self.next_number = self.next_number.max(entry.number + 1);
                        lowest_number = lowest_number.min(entry.number);
                        self.waiting += u64::from(entry.number >= released_below);
                    }
                    if !self.unended_chats.apply_record(&entry) {
                        tracing::error!(
                            path = %path.display(), number = entry.number,
                            "a journal record with valid checksums cannot be decoded; an event in it is published unchanged"
                        );
                    }
                }
                NextRecord::End(end, gap) => {
                    if gap.has_data && (count > 0 || start > 0) {
                        damaged += 1;
                        // Most likely the record that was being written when the gateway died. No caller was told that
                        // the event is recorded.
                        tracing::warn!(
                            path = %path.display(), bytes = gap.bytes,
                            "the last record of a journal segment is torn"
                        );
                    }
                    break end;
                }
            }
        };
        if count == 0 && header == HeaderState::Unused {
            let _ = directory.remove_segment(number);
            return Ok(());
        }
        damaged += u64::from(header == HeaderState::Damaged && count > 0);
        if damaged > 0 {
            self.damage.insert(number, damaged);
            tracing::error!(
                path = %path.display(), places = damaged,
                "the journal is damaged; the damaged records were skipped"
            );
        }
        // Give back the room that was reserved and not used.
        trimmed.set_len(end).map_err(unusable)?;
        // The previous process may have been killed before its last sync.
        trimmed.sync_all().map_err(unusable)?;
        self.sealed.push_back(SealedSegment {
            number,
            lowest_number,
            last_number: self.next_number.saturating_sub(1),
            end_offset: end,
            released_at: Some(Instant::now()).filter(|_| self.next_number <= released_below),
        });
        Ok(())
    }
}

/// Creates the directory, unless the directory exists. Nobody but the gateway's user may enter the directory, because the
/// segments hold chats.
pub(super) fn create_directory(path: &Path) -> Result<(), JournalOpenError> {
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, private))
        .map_err(|error| JournalOpenError::Unusable { path: path.to_owned(), error })
}
