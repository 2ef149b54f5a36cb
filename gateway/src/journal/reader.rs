//! Reading the log from the disk, segment by segment.

use std::fs::File;
use std::io;

use super::log::Log;
use super::record::{JournalEntry, RecordKind};
use super::segment::{self, HeaderState, LogDirectory, NextRecord, RecordReader, SEGMENT_HEADER_BYTES};

/// A place in the log that is read from.
#[derive(Debug)]
pub struct Cursor {
    segment: u64,
    records: Option<RecordReader>,
    /// Events below this are stepped over. It stays as it is all the way: a higher number may lie before a lower one.
    from_number: u64,
}

/// What was read.
#[derive(Debug)]
pub struct EntryBatch {
    /// The events.
    pub entries: Vec<JournalEntry>,
    /// In how many places something was damaged.
    pub damaged: u64,
    /// The end of this segment was reached.
    pub(super) is_segment_end: bool,
}

impl Cursor {
    /// The beginning of this segment, for events of the number `from_number` and higher.
    pub(super) fn new(segment: u64, from_number: u64) -> Self {
        Self { segment, records: None, from_number }
    }

    /// Reads on, up to `end` in this segment: at most so many events, and little more than so many bytes.
    pub(super) fn read(
        &mut self,
        directory: &LogDirectory,
        end: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> io::Result<EntryBatch> {
        let mut batch = EntryBatch { entries: Vec::new(), damaged: 0, is_segment_end: false };
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
                    batch.damaged += u64::from(gap.bytes > 0);
                    if entry.kind == RecordKind::Event && entry.number >= self.from_number {
                        bytes += entry.len();
                        batch.entries.push(entry);
                    }
                }
                NextRecord::End(_, gap) => {
                    batch.damaged += u64::from(gap.bytes > 0);
                    batch.is_segment_end = true;
                    break;
                }
            }
        }
        if batch.damaged > 0 {
            let segment = self.segment;
            tracing::error!(
                segment,
                places = batch.damaged,
                "records of the journal are damaged and were stepped over"
            );
        }
        Ok(batch)
    }

    /// Goes on, where this segment is over: to the next one if there is one. False if everything has been read.
    pub(super) fn advance(&mut self, log: &Log) -> bool {
        let (end, next) = log.extent(self.segment);
        if self.records.as_ref().is_none_or(|records| records.offset() < end) {
            return true;
        }
        self.go_to(next)
    }

    /// Gives this segment up: it cannot be read. False if there is no other.
    pub(super) fn skip_segment(&mut self, log: &Log) -> bool {
        self.go_to(log.extent(self.segment).1)
    }

    /// Goes on at the beginning of this segment, if there is one.
    pub(super) fn go_to(&mut self, segment: Option<u64>) -> bool {
        segment.map(|segment| *self = Self::new(segment, self.from_number)).is_some()
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }
}

fn open_segment(directory: &LogDirectory, segment: u64, end: u64) -> io::Result<RecordReader> {
    let file = File::open(directory.segment_path(segment))?;
    let at = match segment::read_header(&file)? {
        HeaderState::Valid(_) => SEGMENT_HEADER_BYTES,
        // The records speak for themselves.
        HeaderState::Damaged | HeaderState::Unused | HeaderState::UnsupportedVersion(_) => 0,
    };
    Ok(RecordReader::new(file, at, end))
}
