//! Batch limits: the maximum size of a batch, and the maximum wait for more events after the first.

use std::time::Duration;

/// The limits of a batch. The batch closes at the first limit reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The maximum number of events. Default: 2000.
    pub events: usize,
    /// The maximum payload size in bytes, large bodies included. Default: 8 MiB. An event over the limit makes a batch
    /// alone.
    pub bytes: usize,
    /// The maximum wait for more events, counted from the first event. Default: 20 ms.
    pub linger: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { events: 2000, bytes: 8 * 1024 * 1024, linger: Duration::from_millis(20) }
    }
}

/// The current size of an open batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    events: usize,
    bytes: usize,
}

impl BatchSize {
    /// Adds an event of `bytes` bytes to the count.
    pub fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// Returns true if an event of `bytes` bytes may be added. The first event always fits.
    pub fn fits(&self, bytes: usize, limits: &BatchLimits) -> bool {
        self.events == 0 || (self.events < limits.events && self.bytes.saturating_add(bytes) <= limits.bytes)
    }

    /// Returns true while another event may be added.
    pub fn has_room(&self, limits: &BatchLimits) -> bool {
        self.events < limits.events && self.bytes < limits.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_closes_at_whichever_limit_comes_first() {
        let limits = BatchLimits { events: 3, bytes: 100, linger: Duration::ZERO };
        let room_after = |sizes: &[usize]| {
            let mut batch_size = BatchSize::default();
            sizes.iter().for_each(|size| batch_size.add(*size));
            batch_size.has_room(&limits)
        };
        assert!(room_after(&[]));
        assert!(room_after(&[49, 50]));
        assert!(!room_after(&[50, 50]));
        assert!(!room_after(&[1, 1, 1]));
        assert!(!room_after(&[1_000_000]), "an event over the limit makes a batch alone");
        let mut batch_size = BatchSize::default();
        assert!(batch_size.fits(1_000_000, &limits), "the first event always fits");
        batch_size.add(60);
        assert!(batch_size.fits(40, &limits));
        assert!(!batch_size.fits(41, &limits));
    }
}
