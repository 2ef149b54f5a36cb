//! Finding segments of the log by the numbers of their events.

use super::Log;

impl Log {
    /// Returns the number of the oldest segment.
    pub(in crate::journal) fn oldest_segment(&self) -> Option<u64> {
        self.sealed.front().map(|sealed| sealed.number).or(self.active.as_ref().map(|active| active.segment.number))
    }

    /// Returns the first segment that may hold events numbered `number` or higher.
    pub(in crate::journal) fn segment_containing(&self, number: u64) -> Option<u64> {
        let sealed = self.sealed.iter().find(|sealed| sealed.last_number >= number).map(|sealed| sealed.number);
        sealed.or(self.active.as_ref().map(|active| active.segment.number))
    }

    /// Returns the lowest event number in the given segment and all later segments.
    pub(in crate::journal) fn lowest_number_from(&self, segment: u64) -> Option<u64> {
        let sealed = self.sealed.iter().map(|sealed| (sealed.number, sealed.lowest_number));
        let all = sealed.chain(self.active.iter().map(|active| (active.segment.number, active.lowest_number)));
        all.filter(|(number, _)| *number >= segment).map(|(_, lowest)| lowest).min()
    }

    /// Returns the file offset at which the segment ends, and the number of the next segment. The offset is 0 if the
    /// segment has been removed.
    pub(in crate::journal) fn extent(&self, segment: u64) -> (u64, Option<u64>) {
        let mut extents = self
            .sealed
            .iter()
            .map(|sealed| (sealed.number, sealed.end_offset))
            .chain(self.active.iter().map(|active| (active.segment.number, active.offset)))
            .skip_while(|(number, _)| *number < segment);
        let mut next = extents.next();
        let end = match next {
            Some((number, end)) if number == segment => {
                next = extents.next();
                end
            }
            _ => 0,
        };
        (end, next.map(|(number, _)| number))
    }
}
