//! A memory of which model of a price list a name means, because a list has thousands of rules.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The number of remembered names, after which all are forgotten. Clients choose the names of models.
const MAX_REMEMBERED: usize = 4096;

/// Names longer than this are not remembered, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The positions of a selected provider, of the provider that has the model, and of the model.
type Found = Option<(usize, usize, usize)>;

/// The models that were found for names. A memory changes no result.
#[derive(Debug, Default)]
pub(super) struct Matches(Mutex<HashMap<String, Found>>);

impl Matches {
    /// Returns what was found for the names before, or searches.
    pub(super) fn get_or_find(&self, providers: &[&str], models: &[&str], search: impl FnOnce() -> Found) -> Found {
        let key = [providers.join("\n"), models.join("\n")].join("\n\n");
        if key.len() > MAX_NAME_BYTES {
            return search();
        }
        if let Some(found) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *found;
        }
        let found = search();
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, found);
        found
    }
}
