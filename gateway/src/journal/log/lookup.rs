//! Finding segments of the log by the numbers of their events.

use super::Log;

impl Log {
    /// The first segment that there is.
    pub(in crate::journal) fn oldest_segment(&self) -> Option<u64> {
        self.sealed.front().map(|sealed| sealed.number).or(self.active.as_ref().map(|active| active.segment.number))
    }

    /// The first segment with an event of this number or a higher one.
    pub(in crate::journal) fn segment_containing(&self, number: u64) -> Option<u64> {
        let sealed = self.sealed.iter().find(|sealed| sealed.last_number >= number).map(|sealed| sealed.number);
        sealed.or(self.active.as_ref().map(|active| active.segment.number))
    }

    /// The lowest number of an event in this segment, or in one after it.
    pub(in crate::journal) fn lowest_number_from(&self, segment: u64) -> Option<u64> {
        let sealed = self.sealed.iter().map(|sealed| (sealed.number, sealed.lowest_number));
        let all = sealed.chain(self.active.iter().map(|active| (active.segment.number, active.lowest_number)));
        all.filter(|(number, _)| *number >= segment).map(|(_, lowest)| lowest).min()
    }

    /// Where this segment ends, and the one after it.
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
