//! Reading from the journal's disk while the relay is behind. The relay does not wait for a read: a disk that hangs keeps
//! nothing from being published that is in memory.

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::journal::{Cursor, EntryBatch, JournalConsumer};

/// The maximum number of entries taken from the journal at once, and the maximum number of bytes read from the disk at
/// once.
pub(super) const MAX_BATCH_EVENTS: usize = 64;
const MAX_BATCH_BYTES: usize = 1 << 20;

/// The read position on the disk.
#[derive(Debug)]
pub(super) enum ReadPosition {
    /// The relay takes entries from memory, or has not begun to read.
    CaughtUp,
    /// The relay is behind, and reads on at the given time.
    At(Cursor, Instant),
    /// A read is in progress.
    Reading(DiskRead),
}

/// A read in progress.
#[derive(Debug)]
pub(super) struct DiskRead {
    /// The segment in which the read began.
    segment: u64,
    task: JoinHandle<(Cursor, Option<EntryBatch>)>,
}

impl DiskRead {
    /// Starts `read` at the cursor, on a thread that may block.
    pub(super) fn start(
        consumer: &JournalConsumer,
        mut cursor: Cursor,
        read: impl Fn(&JournalConsumer, &mut Cursor, usize, usize) -> Option<EntryBatch> + Send + 'static,
    ) -> Self {
        let (segment, consumer) = (cursor.segment(), consumer.clone());
        let task = tokio::task::spawn_blocking(move || {
            let batch = read(&consumer, &mut cursor, MAX_BATCH_EVENTS, MAX_BATCH_BYTES);
            (cursor, batch)
        });
        Self { segment, task }
    }
}

/// The result of a read: the next position, and the entries; no entries at the end of the log. `None` if the reading thread
/// failed.
pub(super) type ReadResult = Option<(Cursor, Option<EntryBatch>)>;

/// Waits for the result of a read. `None` means that no read is in progress.
pub(super) async fn result(read: Option<&mut DiskRead>) -> Option<ReadResult> {
    Some((&mut read?.task).await.ok())
}

impl ReadPosition {
    /// Returns the read in progress.
    pub(super) fn read(&mut self) -> Option<&mut DiskRead> {
        if let Self::Reading(read) = self { Some(read) } else { None }
    }

    /// Returns the segment from which on entries may be unread, while the relay is behind.
    pub(super) fn segment(&self) -> Option<u64> {
        match self {
            Self::CaughtUp => None,
            Self::At(cursor, _) => Some(cursor.segment()),
            Self::Reading(read) => Some(read.segment),
        }
    }

    /// Notes that the relay has got entries from memory. The result of a read in progress says the same.
    pub(super) fn mark_caught_up(&mut self) {
        if let Self::At(..) = self {
            *self = Self::CaughtUp;
        }
    }
}
