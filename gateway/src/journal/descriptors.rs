//! File descriptors in reserve: the journal can open a segment even while the process has no free descriptor.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

/// The number of descriptors in reserve. The log opens one file at a time, and so does the relay.
const RESERVED: usize = 8;

/// Descriptors in reserve, shared by all clones.
#[derive(Clone, Debug, Default)]
pub(super) struct DescriptorReserve(Arc<Mutex<Vec<File>>>);

/// No file could be opened, because the process or the machine has no free file descriptor.
#[derive(Debug, thiserror::Error)]
#[error(
    "no file descriptor is free: raise the hard limit of open files (RLIMIT_NOFILE), or lower GATEWAY_MAX_CONNECTIONS and GATEWAY_MAX_CHATS"
)]
struct DescriptorsExhausted;

/// Returns true if the error of [`DescriptorReserve::open`] says that no descriptor is free.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<DescriptorsExhausted>)
}

impl DescriptorReserve {
    /// Fills the reserve with duplicates of an open file, as far as descriptors are free.
    pub(super) fn fill(&self, file: &File) {
        let mut reserved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while reserved.len() < RESERVED {
            let Ok(duplicate) = file.try_clone() else { break };
            reserved.push(duplicate);
        }
    }

    /// Opens a file. While the process has no free descriptor, gives a reserved descriptor back and tries again.
    pub(super) fn open<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => {
                    let given_back = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    if given_back.is_none() {
                        return Err(io::Error::other(DescriptorsExhausted));
                    }
                }
                opened => return opened,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_file_is_opened_from_the_reserve_when_no_descriptor_is_free() {
        let reserve = DescriptorReserve::default();
        reserve.fill(&tempfile::tempfile().unwrap());
        let attempts = Cell::new(0);
        let opened = reserve.open(|| {
            attempts.set(attempts.get() + 1);
            if attempts.get() <= 3 { Err(Errno::MFILE.into()) } else { Ok(()) }
        });
        assert!(opened.is_ok());
        assert_eq!(reserve.0.lock().unwrap().len(), RESERVED - 3);
        let refused = reserve.open(|| io::Result::<()>::Err(Errno::MFILE.into())).unwrap_err();
        assert!(is_exhausted(&refused), "the reserve is bounded: {refused}");
        assert!(refused.to_string().contains("RLIMIT_NOFILE"), "{refused}");
        let other = reserve.open(|| io::Result::<()>::Err(Errno::NOSPC.into())).unwrap_err();
        assert!(!is_exhausted(&other));
    }
}
