//! How large a batch may grow, and how long it may wait for more.

use std::time::Duration;

/// The limits of a batch. Whichever is reached first closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events.
    pub events: usize,
    /// Bytes of payload. The event that crosses the limit is the last one in.
    pub bytes: usize,
    /// From the first event on.
    pub linger: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { events: 2000, bytes: 8 * 1024 * 1024, linger: Duration::from_millis(20) }
    }
}

/// What is in a batch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    events: usize,
    bytes: usize,
}

impl BatchSize {
    /// Counts an event in.
    pub fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// Whether another event may still go in.
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
            let mut fill = BatchSize::default();
            sizes.iter().for_each(|size| fill.add(*size));
            fill.has_room(&limits)
        };
        assert!(room_after(&[]));
        assert!(room_after(&[49, 50]));
        assert!(!room_after(&[50, 50]));
        assert!(!room_after(&[1, 1, 1]));
        assert!(!room_after(&[1_000_000]), "an event over the limit makes a batch of its own");
    }
}
