//! A simulated disk that fails on request.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

/// The failures to simulate, and the writes that a power cut may lose.
#[derive(Debug, Default)]
pub(in crate::journal) struct FaultyDisk(Mutex<DiskState>, Condvar);

#[derive(Debug, Default)]
pub(in crate::journal) struct DiskState {
    /// True if no segment can be created.
    is_full: bool,
    /// The number of segments for which the disk has room, if the room is limited. A removed segment makes room.
    room: Option<usize>,
    /// The number of further files that cannot be opened for lack of file descriptors.
    exhausted_descriptors: u32,
    /// The operations that hang.
    hanging: Option<Hanging>,
    /// True if every write fails.
    is_broken: bool,
    /// The number of syncs that will fail.
    failing_syncs: u32,
    /// Writes that are not synced, by segment number.
    unsynced: BTreeMap<u64, Vec<UnsyncedWrite>>,
}

/// The operations that hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::journal) enum Hanging {
    Syncs,
    Everything,
}

/// The bytes and the file offset of a write.
#[derive(Clone, Debug)]
pub(in crate::journal) struct UnsyncedWrite {
    pub(in crate::journal) at: u64,
    pub(in crate::journal) bytes: Vec<u8>,
}

impl FaultyDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets if the creation of segments fails.
    pub(in crate::journal) fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Limits the room for further segments.
    pub(in crate::journal) fn set_room(&self, segments: usize) {
        self.state().room = Some(segments);
    }

    /// Makes the next `count` openings of files fail for lack of file descriptors.
    pub(in crate::journal) fn exhaust_descriptors(&self, count: u32) {
        self.state().exhausted_descriptors = count;
    }

    /// Returns the number of openings that are still to fail.
    pub(in crate::journal) fn exhausted_descriptors(&self) -> u32 {
        self.state().exhausted_descriptors
    }

    /// Lets operations hang until the returned value is dropped.
    pub(in crate::journal) fn hang(self: &std::sync::Arc<Self>, operations: Hanging) -> HangingDisk {
        self.state().hanging = Some(operations);
        HangingDisk(std::sync::Arc::clone(self))
    }

    /// Waits while the disk hangs.
    pub(in crate::journal) fn wait(&self) -> std::sync::MutexGuard<'_, DiskState> {
        let waited = self.1.wait_while(self.state(), |state| state.hanging == Some(Hanging::Everything));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::journal) fn check_open(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.exhausted_descriptors > 0 {
            state.exhausted_descriptors -= 1;
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
    }

    /// Sets if every write fails.
    pub(in crate::journal) fn set_broken(&self, is_broken: bool) {
        self.state().is_broken = is_broken;
    }

    /// Makes the next `count` syncs fail.
    pub(in crate::journal) fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// Returns the writes that a power cut may lose.
    pub(in crate::journal) fn unsynced(&self) -> BTreeMap<u64, Vec<UnsyncedWrite>> {
        self.state().unsynced.clone()
    }

    pub(in crate::journal) fn check_create(&self) -> io::Result<()> {
        let mut state = self.wait();
        if state.is_full || state.is_broken || state.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.room = state.room.map(|room| room - 1);
        Ok(())
    }

    /// Writes half of the bytes and fails if the disk is broken. Otherwise notes the write as unsynced.
    pub(in crate::journal) fn check_write(
        &self,
        segment: u64,
        bytes: &[u8],
        at: u64,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.wait();
        if state.is_broken {
            write(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::from_raw_os_error(5));
        }
        state.unsynced.entry(segment).or_default().push(UnsyncedWrite { at, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(in crate::journal) fn check_sync(&self, _segment: u64) -> io::Result<()> {
        let waited = self.1.wait_while(self.state(), |state| state.hanging.is_some());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    pub(in crate::journal) fn mark_synced(&self, segment: u64) {
        self.state().unsynced.remove(&segment);
    }

    pub(in crate::journal) fn mark_removed(&self, segment: u64) {
        let mut state = self.wait();
        state.unsynced.remove(&segment);
        state.room = state.room.map(|room| room + 1);
    }
}

/// A disk that hangs until the value is dropped.
pub(in crate::journal) struct HangingDisk(std::sync::Arc<FaultyDisk>);

impl Drop for HangingDisk {
    fn drop(&mut self) {
        self.0.state().hanging = None;
        self.0.1.notify_all();
    }
}
