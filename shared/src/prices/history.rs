//! The published price lists and repricings, and the lists that apply to a call.
//!
//! The lists of a call depend on the set of publications and repricings alone, in whatever order they become known:
//!
//! 1. A list is in force for calls that started when it had been published, from the time that the publication names on.
//! 2. A repricing covers calls that started before it. To such a call, the lists apply that were published before the repricing, each
//!    from the time that its publication names, even if the call started before the publication.
//! 3. Of two lists of a layer, and of two repricings, the one with the greater change id applies.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

/// The lists that apply to a call: the SHA-256 of a list for each layer. Where the base layer has none, the list that is part of the
/// program applies.
pub type ListsInForce = BTreeMap<String, String>;

/// A published price list, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedList {
    /// The publication. The greater id is the later publication.
    pub change_id: Uuid,
    /// The layer.
    pub layer: String,
    /// The time from which the list is in force.
    pub from: OffsetDateTime,
    /// The time from which the list is not in force any more.
    pub until: Option<OffsetDateTime>,
    /// The time of the publication.
    pub published_at: OffsetDateTime,
    /// The SHA-256 of the list, in hexadecimal digits.
    pub sha256: String,
}

/// A span of time whose costs were computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepricedSpan {
    /// The change. The greater id is the later change.
    pub change_id: Uuid,
    /// The beginning of the span.
    pub since: OffsetDateTime,
    /// The end of the span, not included.
    pub until: OffsetDateTime,
    /// The time of the change.
    pub repriced_at: OffsetDateTime,
}

/// All publications and repricings that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceHistory {
    /// By ascending change id.
    lists: Vec<PublishedList>,
    /// By ascending change id.
    repricings: Vec<RepricedSpan>,
}

impl PriceHistory {
    /// Makes the history of publications and repricings, given in any order.
    pub fn new(mut lists: Vec<PublishedList>, mut repricings: Vec<RepricedSpan>) -> Self {
        lists.sort_by_key(|list| list.change_id);
        repricings.sort_by_key(|repricing| repricing.change_id);
        Self { lists, repricings }
    }

    /// Adds a publication.
    pub fn add_list(&mut self, list: PublishedList) {
        self.lists.push(list);
        self.lists.sort_by_key(|list| list.change_id);
    }

    /// Adds a repricing.
    pub fn add_repricing(&mut self, repricing: RepricedSpan) {
        self.repricings.push(repricing);
        self.repricings.sort_by_key(|repricing| repricing.change_id);
    }

    /// Returns the lists that apply to a call that started at the given time.
    pub fn in_force(&self, started_at: OffsetDateTime) -> ListsInForce {
        let repricing = self.repricings.iter().rev().find(|repricing| repricing.covers(started_at));
        let lists = self.lists.iter().filter(|list| match repricing {
            Some(repricing) => list.change_id < repricing.change_id && list.contains(started_at),
            None => started_at >= list.published_at && list.contains(started_at),
        });
        lists.map(|list| (list.layer.clone(), list.sha256.clone())).collect()
    }

    /// Returns the span of the calls whose lists a publication may change.
    pub fn span_of_list(&self, list: &PublishedList) -> (OffsetDateTime, Option<OffsetDateTime>) {
        let is_repriced = self.repricings.iter().any(|repricing| repricing.change_id > list.change_id);
        let from = if is_repriced { list.from } else { list.from.max(list.published_at) };
        (from, list.until)
    }

    /// Returns the greatest change id; nil if nothing was published.
    pub fn last_change(&self) -> Uuid {
        let lists = self.lists.last().map(|list| list.change_id);
        let repricings = self.repricings.last().map(|repricing| repricing.change_id);
        lists.max(repricings).unwrap_or(Uuid::nil())
    }
}

impl PublishedList {
    fn contains(&self, at: OffsetDateTime) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

impl RepricedSpan {
    fn covers(&self, at: OffsetDateTime) -> bool {
        at >= self.since && at < self.end()
    }

    /// Returns the end of the covered time, not included.
    pub fn end(&self) -> OffsetDateTime {
        self.until.min(self.repriced_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    fn list(id: u128, layer: &str, from: i64, until: Option<i64>, published_at: i64) -> PublishedList {
        let sha256 = format!("list {id}");
        let (from, until, published_at) = (at(from), until.map(at), at(published_at));
        PublishedList { change_id: Uuid::from_u128(id), layer: layer.to_owned(), from, until, published_at, sha256 }
    }

    fn repricing(id: u128, since: i64, until: i64, repriced_at: i64) -> RepricedSpan {
        let (since, until, repriced_at) = (at(since), at(until), at(repriced_at));
        RepricedSpan { change_id: Uuid::from_u128(id), since, until, repriced_at }
    }

    fn check(history: &PriceHistory, expected: &[(i64, &[&str])]) {
        for (second, lists) in expected {
            let found: Vec<String> = history.in_force(at(*second)).into_values().collect();
            assert_eq!(found, *lists, "at {second}");
        }
    }

    #[test]
    fn a_list_is_in_force_after_its_publication_alone() {
        let lists = vec![list(1, "base", 10, None, 10), list(2, "base", 5, None, 20), list(3, "own", 40, Some(50), 20)];
        let history = PriceHistory::new(lists, Vec::new());
        check(&history, &[(9, &[]), (10, &["list 1"]), (19, &["list 1"]), (20, &["list 2"])]);
        check(&history, &[(40, &["list 2", "list 3"]), (49, &["list 2", "list 3"]), (50, &["list 2"])]);
    }

    #[test]
    fn a_repricing_applies_earlier_lists_to_the_past_and_later_lists_change_nothing_there() {
        let lists = vec![list(4, "base", 0, None, 40), list(1, "base", 10, None, 10), list(2, "own", 5, None, 20)];
        let history = PriceHistory::new(lists, vec![repricing(3, 0, 100, 30)]);
        check(&history, &[(4, &[]), (5, &["list 2"]), (10, &["list 1", "list 2"]), (29, &["list 1", "list 2"])]);
        // The repricing ends where it was made; the list after it is in force from its publication on.
        check(&history, &[(30, &["list 1", "list 2"]), (40, &["list 4", "list 2"])]);
        let again = PriceHistory::new(history.lists, vec![repricing(5, 0, 7, 50), repricing(3, 0, 100, 30)]);
        check(&again, &[(4, &["list 4"]), (6, &["list 4", "list 2"]), (7, &["list 2"])]);
        assert_eq!(again.last_change(), Uuid::from_u128(5));
    }
}
