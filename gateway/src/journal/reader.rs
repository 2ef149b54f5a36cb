//! Reading the log from the disk, segment by segment.

use std::fs::File;
use std::io;

use super::log::Log;
use super::record::{Entry, Kind};
use super::segment::{self, Beginning, Directory, Found, HEADER, Records};

/// A place in the log that is read from.
#[derive(Debug)]
pub struct Cursor {
    segment: u64,
    records: Option<Records>,
    /// Events below this are stepped over. It stays as it is all the way: a higher number may lie before a lower one.
    from: u64,
}

/// What was read.
#[derive(Debug)]
pub struct Batch {
    /// The events.
    pub entries: Vec<Entry>,
    /// In how many places something was damaged.
    pub damaged: u64,
    /// The end of this segment was reached.
    pub(super) is_over: bool,
}

impl Cursor {
    /// The beginning of this segment, for events of the number `from` and higher.
    pub(super) fn at(segment: u64, from: u64) -> Self {
        Self { segment, records: None, from }
    }

    /// Reads on, up to `end` in this segment: at most so many events, and little more than so many bytes.
    pub(super) fn read(
        &mut self,
        directory: &Directory,
        end: u64,
        most: usize,
        most_bytes: usize,
    ) -> io::Result<Batch> {
        let mut batch = Batch { entries: Vec::new(), damaged: 0, is_over: false };
        let mut bytes = 0;
        if self.records.is_none() {
            self.records = Some(open(directory, self.segment, end)?);
        }
        let Some(records) = &mut self.records else { return Ok(batch) };
        records.set_end(end);
        while batch.entries.len() < most && bytes < most_bytes {
            if records.at() >= end {
                batch.is_over = true;
                break;
            }
            match records.next()? {
                Found::Record(entry, gap) => {
                    batch.damaged += u64::from(gap.bytes > 0);
                    if entry.kind == Kind::Event && entry.number >= self.from {
                        bytes += entry.len();
                        batch.entries.push(entry);
                    }
                }
                Found::End(_, gap) => {
                    batch.damaged += u64::from(gap.bytes > 0);
                    batch.is_over = true;
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
        if self.records.as_ref().is_none_or(|records| records.at() < end) {
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
        segment.map(|segment| *self = Self::at(segment, self.from)).is_some()
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }
}

fn open(directory: &Directory, segment: u64, end: u64) -> io::Result<Records> {
    let file = File::open(directory.file(segment))?;
    let at = match segment::beginning(&file)? {
        Beginning::Good(_) => HEADER,
        // The records speak for themselves.
        Beginning::Damaged | Beginning::Unused | Beginning::OtherVersion(_) => 0,
    };
    Ok(Records::new(file, at, end))
}
