//! Reads the log from the disk, segment by segment.

use std::io;

use super::directory::LogDirectory;
use super::log::LogView;
use super::record::{JournalEntry, RecordKind};
use super::segment::{self, HeaderState, NextRecord, RecordReader, SEGMENT_HEADER_BYTES};

/// A read position in the log.
#[derive(Debug)]
pub struct Cursor {
    segment: u64,
    records: Option<RecordReader>,
    /// Events below this number are skipped. The bound never changes, because a higher number may precede a lower
    /// number.
    from_number: u64,
    /// The number of damaged places in the segment so far.
    damaged: u64,
}

/// The result of one read from the log. Empty if the log cannot be read now, and can be later.
#[derive(Debug, Default)]
pub struct EntryBatch {
    /// The events in the order of writing.
    pub entries: Vec<JournalEntry>,
    /// True if the end of the segment was reached.
    pub(super) is_segment_end: bool,
}

impl Cursor {
    /// Creates a cursor at the start of a segment, for events numbered `from_number` or higher.
    pub(super) fn new(segment: u64, from_number: u64) -> Self {
        Self { segment, records: None, from_number, damaged: 0 }
    }

    /// Reads on in the segment, up to the file offset `end`. Stops after `max_entries` events, or after the event that
    /// reaches `max_bytes`.
    pub(super) fn read(
        &mut self,
        directory: &LogDirectory,
        end: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> io::Result<EntryBatch> {
        let mut batch = EntryBatch { entries: Vec::new(), is_segment_end: false };
        let mut bytes = 0;
        if self.records.is_none() {
            self.records = Some(open_segment(directory, self.segment, end)?);
        }
        let Some(records) = &mut self.records else { return Ok(batch) };
        records.set_end_offset(end);
        while batch.entries.len() < max_entries && bytes < max_bytes {
            if records.offset() >= end {
                batch.is_segment_end = true;
                break;
            }
            match records.next()? {
                NextRecord::Record(entry, gap) => {
                    self.damaged += u64::from(gap.bytes > 0);
                    if entry.kind == RecordKind::Event && entry.number >= self.from_number {
                        bytes += entry.len();
                        batch.entries.push(entry);
                    }
                }
                NextRecord::End(_, gap) => {
                    self.damaged += u64::from(gap.bytes > 0);
                    batch.is_segment_end = true;
                    break;
                }
            }
        }
        Ok(batch)
    }

    /// Moves to the next segment, if the segment has been read to its end. Returns false if the whole log has been
    /// read.
    pub(super) fn advance(&mut self, view: &LogView) -> bool {
        let (end, next) = view.extent(self.segment);
        if self.records.as_ref().is_none_or(|records| records.offset() < end) {
            return true;
        }
        self.go_to(next)
    }

    /// Moves to the next segment, because the segment cannot be read. Returns false if no segment follows.
    pub(super) fn skip_segment(&mut self, view: &LogView) -> bool {
        self.go_to(view.extent(self.segment).1)
    }

    /// Moves to the start of a segment. Returns false if there is no segment.
    pub(super) fn go_to(&mut self, segment: Option<u64>) -> bool {
        segment.map(|segment| *self = Self::new(segment, self.from_number)).is_some()
    }

    /// Returns the number of the segment in which the cursor stands.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Returns the number of damaged places from the beginning of the segment to the cursor.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }
}

fn open_segment(directory: &LogDirectory, segment: u64, end: u64) -> io::Result<RecordReader> {
    let file = directory.open_segment(segment)?;
    let at = match segment::read_header(&file)? {
        HeaderState::Valid(_) => SEGMENT_HEADER_BYTES,
        // Records have checksums of their own, so a segment without a valid header can be read from the start.
        HeaderState::Damaged | HeaderState::Unused | HeaderState::UnsupportedVersion(_) => 0,
    };
    Ok(RecordReader::new(file, at, end))
}
