//! Segments: the files of the log. A segment is a header, followed by records, followed by reserved room that is still
//! zero.
//!
//! All writes to segments go through this module, so tests inject disk failures here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::directory::LogDirectory;
use super::record::{JournalEntry, RECORD_HEADER_BYTES};
use super::scan::{ScanStep, next_step};

/// The size of a segment header in bytes.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 48;

/// The magic number at the start of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"STENOLOG";

/// The format version of segments and records.
const FORMAT_VERSION: u32 = 1;

/// The number of bytes to read at once, unless a record needs more.
const READ_WINDOW_BYTES: usize = 1 << 20;

/// The contents of a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The random id of the gateway process that wrote the segment.
    pub(super) incarnation: u64,
    /// The segment's number, also used as the file name.
    pub(super) segment: u64,
    /// The number of the next event at the time of the segment's activation.
    pub(super) first_number: u64,
    /// The time of the segment's activation, in milliseconds since 1970.
    pub(super) created_at_ms: u64,
}

/// The state of the first bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// A valid header with the supported format version.
    Valid(SegmentHeader),
    /// Only zeros: the header was never written.
    Unused,
    /// A valid header with another format version.
    UnsupportedVersion(u32),
    /// Bytes that are neither a valid header nor zeros.
    Damaged,
}

/// A preallocated file that will become a segment. The file has no segment number yet, because segments are numbered in
/// the order of their activation.
#[derive(Debug)]
pub(super) struct SpareSegment {
    directory: LogDirectory,
    file: File,
    path: PathBuf,
}

/// A numbered segment that can be written.
#[derive(Debug)]
pub(super) struct Segment {
    directory: LogDirectory,
    file: File,
    pub(super) number: u64,
    /// Set when the file's name is on the disk. From then on a sync needs no sync of the directory.
    is_name_synced: AtomicBool,
}

impl SpareSegment {
    /// Creates a spare segment of `size` bytes, preallocated on the disk if the file system can. `number` must be
    /// unique among the spare segments of the process.
    pub(super) fn create(directory: &LogDirectory, number: u64, size: u64) -> io::Result<Self> {
        let _running = directory.operations.writes.begin();
        #[cfg(test)]
        directory.disk.check_create()?;
        let path = directory.spare_path(number);
        let file =
            directory.open_file(&path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))?;
        let spare = Self { directory: directory.clone(), file, path };
        match rustix::fs::fallocate(&spare.file, rustix::fs::FallocateFlags::empty(), 0, size) {
            // Some file systems cannot preallocate. A later write without room then fails like any other write.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(spare),
            Err(error) => {
                spare.discard();
                Err(error.into())
            }
        }
    }

    /// Renames the file to the segment's name, and writes the header.
    pub(super) fn activate(self, header: &SegmentHeader) -> io::Result<Segment> {
        let renaming = self.directory.operations.writes.begin();
        let renamed = std::fs::rename(&self.path, self.directory.segment_path(header.segment));
        drop(renaming);
        if let Err(error) = renamed {
            self.discard();
            return Err(error);
        }
        let segment = Segment {
            directory: self.directory,
            file: self.file,
            number: header.segment,
            is_name_synced: AtomicBool::new(false),
        };
        segment.write_header(header)?;
        Ok(segment)
    }

    /// Removes the file, which gives the reserved room back.
    pub(super) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Segment {
    /// Writes the magic number, the version, the checksum and the four header fields, all little endian.
    fn write_header(&self, header: &SegmentHeader) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for number in [header.incarnation, header.segment, header.first_number, header.created_at_ms] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        // The checksum was computed with four zero bytes in its own place.
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        self.write_at(&bytes, 0)
    }

    pub(super) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let _running = self.directory.operations.writes.begin();
        #[cfg(test)]
        self.directory.disk.check_write(self.number, bytes, at, |part| self.file.write_all_at(part, at))?;
        self.file.write_all_at(bytes, at)
    }

    /// Syncs the segment's data and, the first time, the directory, so that the file can be found after a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        let _running = self.directory.operations.syncs.begin();
        #[cfg(test)]
        self.directory.disk.check_sync(self.number)?;
        self.file.sync_data()?;
        if !self.is_name_synced.load(Ordering::Relaxed) {
            self.directory.sync()?;
            self.is_name_synced.store(true, Ordering::Relaxed);
        }
        #[cfg(test)]
        self.directory.disk.mark_synced(self.number);
        Ok(())
    }

    /// Truncates the file to `at` bytes, which gives back the reserved room behind the records.
    pub(super) fn truncate(&self, at: u64) -> io::Result<()> {
        let _running = self.directory.operations.writes.begin();
        self.file.set_len(at)
    }
}

/// Reads and checks the header of a segment file.
pub(super) fn read_header(file: &File) -> io::Result<HeaderState> {
    let mut bytes = Vec::with_capacity(48);
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    while bytes.len() < header.len() {
        let read = file.read_at(&mut header, bytes.len() as u64)?;
        if read == 0 {
            break;
        }
        let wanted = read.min(48 - bytes.len());
        bytes.extend_from_slice(&header[..wanted]);
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(HeaderState::Unused);
    }
    let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
    let u64_at = |at: usize| bytes.get(at..at + 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let crc = u32_at(12);
    let mut unsigned = bytes.clone();
    if let Some(place) = unsigned.get_mut(12..16) {
        place.fill(0);
    }
    if bytes.len() < 48 || !bytes.starts_with(&SEGMENT_MAGIC) || crc != Some(crc32fast::hash(&unsigned)) {
        return Ok(HeaderState::Damaged);
    }
    let header = (|| {
        Some(SegmentHeader {
            incarnation: u64_at(16)?,
            segment: u64_at(24)?,
            first_number: u64_at(32)?,
            created_at_ms: u64_at(40)?,
        })
    })();
    Ok(match (u32_at(8), header) {
        (Some(FORMAT_VERSION), Some(header)) => HeaderState::Valid(header),
        (Some(other), Some(_)) => HeaderState::UnsupportedVersion(other),
        _ => HeaderState::Damaged,
    })
}

/// A reader over the records of a segment. Damaged bytes are skipped.
#[derive(Debug)]
pub(super) struct RecordReader {
    file: File,
    window: Bytes,
    /// The file offset at which the window begins.
    offset: u64,
    /// The file offset at which the segment ends.
    end_offset: u64,
    gap: Gap,
}

/// The bytes that were skipped since the last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// The number of skipped bytes.
    pub(super) bytes: u64,
    /// True if the skipped bytes include data, not only zeros.
    pub(super) has_data: bool,
}

/// The result of [`RecordReader::next`].
#[derive(Debug)]
pub(super) enum NextRecord {
    /// A record, and the gap before the record.
    Record(JournalEntry, Gap),
    /// The end of the segment: the file offset behind the last record, and the gap after the last record.
    End(u64, Gap),
}

impl RecordReader {
    /// Creates a reader for the records between two file offsets.
    pub(super) fn new(file: File, offset: u64, end_offset: u64) -> Self {
        Self { file, window: Bytes::new(), offset, end_offset, gap: Gap::default() }
    }

    /// Returns the file offset at which the next record is searched.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Moves the end of the segment, because the segment has grown.
    pub(super) fn set_end_offset(&mut self, end_offset: u64) {
        self.end_offset = end_offset;
    }

    /// Reads the next intact record, or finds the end of the segment.
    pub(super) fn next(&mut self) -> io::Result<NextRecord> {
        loop {
            let needed = match next_step(&self.window) {
                ScanStep::Record { skipped, header } => {
                    self.skip(skipped);
                    let record = self.window.split_to(header.record_len());
                    self.offset += record.len() as u64;
                    return Ok(NextRecord::Record(JournalEntry::new(&header, record), std::mem::take(&mut self.gap)));
                }
                ScanStep::Damaged { skipped, len } => {
                    self.skip(skipped + len);
                    self.gap.has_data = true;
                    continue;
                }
                ScanStep::NeedMore { skipped, needed } => {
                    self.skip(skipped);
                    needed
                }
                ScanStep::NoRecord { skipped } => {
                    self.skip(skipped);
                    RECORD_HEADER_BYTES
                }
            };
            if !self.fill(needed)? {
                let end_offset = self.offset - self.gap.bytes;
                let remaining = self.window.len();
                self.skip(remaining);
                return Ok(NextRecord::End(end_offset, std::mem::take(&mut self.gap)));
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        let skipped = self.window.split_to(bytes);
        self.offset += bytes as u64;
        self.gap.bytes += bytes as u64;
        self.gap.has_data |= skipped.iter().any(|&byte| byte != 0);
    }

    /// Extends the window, to at least `needed` bytes if the segment is long enough. Returns false if the window did
    /// not grow.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        let left = usize::try_from(self.end_offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let wanted = left.min(needed.max(READ_WINDOW_BYTES));
        if wanted <= self.window.len() {
            return Ok(false);
        }
        let mut window = self.window.to_vec();
        let mut filled = window.len();
        window.resize(wanted, 0);
        while filled < wanted {
            match self.file.read_at(&mut window[filled..], self.offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        let grown = filled > self.window.len();
        window.truncate(filled);
        self.window = window.into();
        Ok(grown)
    }
}
