//! Deduplication of replayed events: an exact set of event ids in bounded memory.
//!
//! An event id begins with the event's time, and the log is nearly in order of time. The set is therefore partitioned
//! by spans of 10 seconds. Above the limit of ids in memory, the least recently used span is written to a temporary
//! file, and read back when an id of the same span arrives.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read as _, Write as _};

use shared::id::EventId;
use tempfile::TempDir;

/// The length of a span, in milliseconds.
const SPAN_MS: u64 = 10_000;

/// The set of event ids seen so far.
#[derive(Debug)]
pub struct SeenEvents {
    spans: BTreeMap<u64, TimeSpan>,
    /// The number of ids in memory, over all spans.
    ids_in_memory: usize,
    max_ids_in_memory: usize,
    /// A counter of insertions, for the order of use.
    clock: u64,
    on_disk: BTreeSet<u64>,
    directory: Option<TempDir>,
}

#[derive(Debug, Default)]
struct TimeSpan {
    ids: HashSet<u128>,
    last_used: u64,
}

impl SeenEvents {
    /// Creates an empty set with room for `max_ids_in_memory` ids in memory. The span in use always stays in memory,
    /// even above the limit.
    pub fn new(max_ids_in_memory: usize) -> Self {
        Self {
            spans: BTreeMap::new(),
            ids_in_memory: 0,
            max_ids_in_memory: max_ids_in_memory.max(1),
            clock: 0,
            on_disk: BTreeSet::new(),
            directory: None,
        }
    }

    /// Adds an id. Returns true if the id was not in the set. An error means that the temporary directory cannot be
    /// used.
    pub fn insert(&mut self, id: EventId) -> io::Result<bool> {
        let number = id.0.as_u128();
        let key = u64::try_from(number >> 80).unwrap_or(u64::MAX) / SPAN_MS;
        if self.on_disk.remove(&key) {
            let ids = self.read(key)?;
            self.ids_in_memory += ids.len();
            self.spans.insert(key, TimeSpan { ids, last_used: self.clock });
        }
        self.clock += 1;
        let span = self.spans.entry(key).or_default();
        span.last_used = self.clock;
        let is_new = span.ids.insert(number);
        self.ids_in_memory += usize::from(is_new);
        while self.ids_in_memory > self.max_ids_in_memory && self.spans.len() > 1 {
            self.spill()?;
        }
        Ok(is_new)
    }

    fn spill(&mut self) -> io::Result<()> {
        let oldest = self.spans.iter().min_by_key(|(_, span)| span.last_used).map(|(key, _)| *key);
        let Some((key, span)) = oldest.and_then(|key| self.spans.remove_entry(&key)) else { return Ok(()) };
        let mut bytes = Vec::with_capacity(span.ids.len() * 16);
        span.ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_be_bytes()));
        let path = self.directory()?.join(key.to_string());
        std::fs::File::create(path)?.write_all(&bytes)?;
        self.ids_in_memory -= span.ids.len();
        self.on_disk.insert(key);
        Ok(())
    }

    fn read(&mut self, key: u64) -> io::Result<HashSet<u128>> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.directory()?.join(key.to_string()))?.read_to_end(&mut bytes)?;
        let (ids, _) = bytes.as_chunks::<16>();
        Ok(ids.iter().map(|id| u128::from_be_bytes(*id)).collect())
    }

    fn directory(&mut self) -> io::Result<&std::path::Path> {
        if self.directory.is_none() {
            self.directory = Some(tempfile::tempdir()?);
        }
        self.directory.as_ref().map(TempDir::path).ok_or_else(|| io::Error::other("no directory"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn it_answers_like_a_set_in_bounded_memory(
            ids in proptest::collection::vec((0..40_u128, 0..6_u128), 0..300),
            max_ids_in_memory in 1..20_usize,
        ) {
            let mut seen = SeenEvents::new(max_ids_in_memory);
            let mut model = HashSet::new();
            for (span, rest) in ids {
                let id = EventId(Uuid::from_u128(((span * 10_000) << 80) | rest));
                prop_assert_eq!(seen.insert(id).unwrap(), model.insert(id));
                prop_assert!(seen.ids_in_memory <= max_ids_in_memory || seen.spans.len() == 1);
            }
        }
    }
}
