//! Finds records in bytes that may be damaged. Pure: no I/O.

use memchr::memmem;

use super::record::{RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader};

/// The result of one scanning step. `skipped` is the number of bytes before the result that belong to no intact record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanStep {
    /// A record with valid checksums.
    Record { skipped: usize, header: RecordHeader },
    /// A record with a valid header, and thus a known length, whose body is damaged.
    Damaged { skipped: usize, len: usize },
    /// A possible record that is incomplete. A decision needs `needed` bytes from the possible start on.
    NeedMore { skipped: usize, needed: usize },
    /// The skipped bytes hold no start of a record.
    NoRecord { skipped: usize },
}

/// Searches for the first record in `bytes`.
pub(super) fn next_step(bytes: &[u8]) -> ScanStep {
    let mut skipped = 0;
    while let Some(found) = memmem::find(&bytes[skipped..], &RECORD_MAGIC) {
        skipped += found;
        let candidate = &bytes[skipped..];
        if candidate.len() < RECORD_HEADER_BYTES {
            return ScanStep::NeedMore { skipped, needed: RECORD_HEADER_BYTES };
        }
        if let Some(header) = RecordHeader::parse(candidate) {
            let len = header.record_len();
            return match candidate.get(RECORD_HEADER_BYTES..len) {
                Some(body) if header.matches_body(body) => ScanStep::Record { skipped, header },
                Some(_) => ScanStep::Damaged { skipped, len },
                None => ScanStep::NeedMore { skipped, needed: len },
            };
        }
        skipped += 1;
    }
    // The last bytes may be the beginning of a magic number that continues in later bytes.
    ScanStep::NoRecord { skipped: bytes.len().saturating_sub(RECORD_MAGIC.len() - 1).max(skipped) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{JournalEntry, RecordKind, UnnumberedRecord};
    use super::*;

    /// Returns the numbers of all intact records, and the number of gaps.
    fn found(mut bytes: &[u8]) -> (Vec<u64>, usize) {
        let (mut numbers, mut gaps) = (Vec::new(), 0);
        loop {
            let gap = |skipped| usize::from(skipped > 0);
            match next_step(bytes) {
                ScanStep::Record { skipped, header } => {
                    gaps += gap(skipped);
                    numbers.push(header.number);
                    bytes = &bytes[skipped + header.record_len()..];
                }
                ScanStep::Damaged { skipped, len } => {
                    gaps += 1;
                    bytes = &bytes[skipped + len..];
                }
                ScanStep::NeedMore { .. } | ScanStep::NoRecord { .. } => return (numbers, gaps + gap(bytes.len())),
            }
        }
    }

    fn records(bodies: &[Vec<u8>]) -> Vec<JournalEntry> {
        let unnumbered = bodies.iter().map(|body| UnnumberedRecord::from_bytes(RecordKind::Event, body).unwrap());
        unnumbered.zip(1..).map(|(record, number)| record.assign_number(number, 0)).collect()
    }

    proptest! {
        #[test]
        fn one_damaged_byte_loses_one_record_and_leaves_a_gap(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let records = records(&bodies);
            let mut bytes = records.iter().flat_map(|entry| entry.record().to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(found(&bytes), ((1..=records.len() as u64).collect(), 0));
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let (numbers, gaps) = found(&bytes);
            prop_assert_eq!(numbers.len(), records.len() - 1);
            prop_assert_eq!(gaps, 1);
        }

        #[test]
        fn every_record_before_a_cut_is_found(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let records = records(&bodies);
            let bytes = records.iter().flat_map(|entry| entry.record().to_vec()).collect::<Vec<_>>();
            let cut = at.index(bytes.len() + 1);
            let mut end = 0;
            let whole = records.iter().take_while(|entry| { end += entry.len(); end <= cut }).count();
            prop_assert_eq!(found(&bytes[..cut]).0.len(), whole);
        }

        #[test]
        fn random_bytes_hold_no_record(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(found(&bytes).0.is_empty());
        }
    }
}
