//! Counting of damaged places: once for each place, although recovery, the relay and a republication read the same
//! segments.

use super::Log;

impl Log {
    /// Notes that a reader has found `places` damaged places from the beginning of a segment so far. Returns the number
    /// of places that no reader has found before.
    pub(in crate::journal) fn count_damage(&mut self, segment: u64, places: u64) -> u64 {
        if places == 0 {
            return 0;
        }
        let known = self.damage.entry(segment).or_default();
        let new = places.saturating_sub(*known);
        *known += new;
        new
    }
}
