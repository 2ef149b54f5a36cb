//! The memory for responses that are larger than most. Each buffer of a response may hold [`FREE_BYTES`]; what is beyond
//! is taken from a share of the whole gateway, so that many large responses at once cannot use up the memory.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The size up to which a buffer needs no part of the share, in bytes.
pub(super) const FREE_BYTES: usize = 4 << 20;

/// The size of the share of all responses together, in bytes.
const MAX_SHARED_BYTES: usize = 256 << 20;

static SHARED_BYTES_IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The part of the share that one buffer holds. Given back when dropped.
#[derive(Debug, Default)]
pub(super) struct LargeBuffer {
    shared_bytes: usize,
}

impl LargeBuffer {
    /// Makes room for this many bytes in the buffer. Returns false if the share is used up.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.shared_bytes);
        if more == 0 {
            return true;
        }
        let take = |used: usize| used.checked_add(more).filter(|used| *used <= MAX_SHARED_BYTES);
        let is_taken = SHARED_BYTES_IN_USE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        self.shared_bytes += if is_taken { more } else { 0 };
        is_taken
    }
}

impl Drop for LargeBuffer {
    fn drop(&mut self) {
        SHARED_BYTES_IN_USE.fetch_sub(self.shared_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_bounded_and_given_back() {
        let mut buffers: Vec<LargeBuffer> = (0..64).map(|_| LargeBuffer::default()).collect();
        assert!(buffers.iter_mut().all(|buffer| buffer.grow_to(FREE_BYTES)));
        let grown =
            buffers.iter_mut().filter_map(|buffer| buffer.grow_to(FREE_BYTES + (32 << 20)).then_some(())).count();
        // Other tests use a part of the share meanwhile.
        assert!((1..=8).contains(&grown), "{grown} buffers of 32 MiB");
        let full = buffers.iter_mut().find(|buffer| buffer.shared_bytes == 0).unwrap();
        assert!(!full.grow_to(FREE_BYTES + MAX_SHARED_BYTES));
        drop(buffers);
        assert!(LargeBuffer::default().grow_to(FREE_BYTES + (32 << 20)));
    }
}
