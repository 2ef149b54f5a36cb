//! Finding records in bytes that may be damaged. Pure.

use memchr::memmem;

use super::record::{HEAD, Head, MAGIC};

/// What comes next in some bytes. `skipped` is what was stepped over before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record whose checksums hold.
    Record { skipped: usize, head: Head },
    /// A record whose length is known and whose body is damaged.
    Damaged { skipped: usize, len: usize },
    /// What begins there may be a record; this many bytes from there on decide.
    More { skipped: usize, needed: usize },
    /// No record begins in what was skipped.
    Nothing { skipped: usize },
}

/// The next step.
pub(super) fn step(bytes: &[u8]) -> Step {
    let mut skipped = 0;
    while let Some(found) = memmem::find(&bytes[skipped..], &MAGIC) {
        skipped += found;
        let candidate = &bytes[skipped..];
        if candidate.len() < HEAD {
            return Step::More { skipped, needed: HEAD };
        }
        if let Some(head) = Head::read(candidate) {
            let len = head.record_len();
            return match candidate.get(HEAD..len) {
                Some(body) if head.vouches_for(body) => Step::Record { skipped, head },
                Some(_) => Step::Damaged { skipped, len },
                None => Step::More { skipped, needed: len },
            };
        }
        skipped += 1;
    }
    // The last bytes may be the beginning of a magic number.
    Step::Nothing { skipped: bytes.len().saturating_sub(MAGIC.len() - 1).max(skipped) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{Draft, Entry, Kind};
    use super::*;

    /// The numbers of the records found, and how many places had to be stepped over.
    fn found(mut bytes: &[u8]) -> (Vec<u64>, usize) {
        let (mut numbers, mut gaps) = (Vec::new(), 0);
        loop {
            let gap = |skipped| usize::from(skipped > 0);
            match step(bytes) {
                Step::Record { skipped, head } => {
                    gaps += gap(skipped);
                    numbers.push(head.number);
                    bytes = &bytes[skipped + head.record_len()..];
                }
                Step::Damaged { skipped, len } => {
                    gaps += 1;
                    bytes = &bytes[skipped + len..];
                }
                Step::More { .. } | Step::Nothing { .. } => return (numbers, gaps + gap(bytes.len())),
            }
        }
    }

    fn records(bodies: &[Vec<u8>]) -> Vec<Entry> {
        let drafts = bodies.iter().map(|body| Draft::of_bytes(Kind::Event, body).unwrap());
        drafts.zip(1..).map(|(draft, number)| draft.number(number, 0)).collect()
    }

    proptest! {
        #[test]
        fn one_damaged_byte_costs_one_record_and_is_noticed(
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
        fn what_is_cut_off_costs_what_was_cut(
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
        fn nonsense_holds_no_record(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(found(&bytes).0.is_empty());
        }
    }
}
