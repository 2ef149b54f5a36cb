//! Counting calls that run at the same time: the entry that all gateways share, and the places that one gateway holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The part of a limit that a gateway holds unused, as a divisor. Smaller limits are never held unused.
const SPARE_DIVISOR: u64 = 64;

/// The entry of a scope in the bucket: the places that each gateway holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesEntry {
    /// The places, by the name of the gateway.
    pub gateways: BTreeMap<String, HeldPlaces>,
    /// The number of changes, so that an entry that is only renewed changes too.
    pub changes: u32,
}

/// The places of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPlaces {
    /// The run of the gateway, as in its lease: places of a run that has ended are free.
    pub run: Uuid,
    /// The number of places.
    pub places: u64,
}

/// The name and the run of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The name of the gateway.
    pub name: String,
    /// The run.
    pub run: Uuid,
}

/// The places that this gateway holds, and those in use. More may be in use than are held, after calls without a broker.
#[derive(Clone, Debug, Default)]
pub struct PlacesCounter {
    /// The places in the entry.
    pub held: u64,
    /// The calls that run.
    pub in_use: u64,
    /// The places of the other gateways, as last seen.
    pub others: u64,
}

impl PlacesEntry {
    /// Returns the places of all other gateways.
    pub fn of_others(&self, own: &Holder) -> u64 {
        self.gateways.iter().filter(|(name, _)| **name != own.name).map(|(_, held)| held.places).sum()
    }

    /// Sets the places of this gateway.
    pub fn set(&mut self, own: &Holder, places: u64) {
        self.changes = self.changes.wrapping_add(1);
        if places == 0 {
            self.gateways.remove(&own.name);
        } else {
            self.gateways.insert(own.name.clone(), HeldPlaces { run: own.run, places });
        }
    }

    /// Sets the places of this gateway to `need` at least and `want` at best. Returns the number, or `None` if the other gateways leave
    /// fewer than `need`.
    pub fn grant(&mut self, own: &Holder, limit: u64, need: u64, want: u64) -> Option<u64> {
        let free = limit.saturating_sub(self.of_others(own));
        let places = want.min(free);
        (places >= need).then(|| {
            self.set(own, places);
            places
        })
    }

    /// Removes the places of gateways that do not run any more.
    pub fn remove(&mut self, ended: &[Holder]) {
        self.gateways.retain(|name, held| !ended.iter().any(|ended| ended.name == *name && ended.run == held.run));
    }

    /// Returns the other gateways that hold places.
    pub fn others(&self, own: &Holder) -> Vec<Holder> {
        let others = self.gateways.iter().filter(|(name, _)| **name != own.name);
        others.map(|(name, held)| Holder { name: name.clone(), run: held.run }).collect()
    }
}

impl PlacesCounter {
    /// Takes a place of those that are held. Returns false if none is free: a limit that was lowered counts at once.
    pub fn take(&mut self, limit: u64) -> bool {
        let is_free = self.in_use < self.held.min(limit);
        self.in_use += u64::from(is_free);
        is_free
    }

    /// Takes a place without asking, because the broker is away: this gateway alone uses at most the whole limit.
    pub fn take_uncounted(&mut self, limit: u64) -> bool {
        let is_free = self.in_use < limit;
        self.in_use += u64::from(is_free);
        is_free
    }

    /// Returns the number of places to hold, so that one more call can run: at least, and at best.
    pub fn demand(&self, limit: u64) -> (u64, u64) {
        (self.in_use + 1, self.in_use + 1 + limit / SPARE_DIVISOR)
    }

    /// Ends a call. Returns true if the entry should be changed: more places are held unused than the limit allows.
    pub fn release(&mut self, limit: u64) -> bool {
        self.in_use = self.in_use.saturating_sub(1);
        self.held > self.in_use + limit / SPARE_DIVISOR
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holder(number: usize, run: u128) -> Holder {
        Holder { name: format!("gateway-{number}"), run: Uuid::from_u128(run) }
    }

    #[test]
    fn the_places_of_a_gateway_that_has_ended_are_free_again() {
        let (mut entry, ended, own) = (PlacesEntry::default(), holder(0, 1), holder(1, 2));
        assert_eq!(entry.grant(&ended, 3, 2, 2), Some(2));
        assert_eq!(entry.grant(&own, 3, 2, 2), None);
        entry.remove(&[holder(0, 9)]);
        assert_eq!(entry.grant(&own, 3, 2, 2), None, "another run of the gateway has ended");
        entry.remove(&[ended]);
        assert_eq!(entry.grant(&own, 3, 2, 5), Some(3));
    }

    proptest! {
        /// Each step is a gateway, and whether a call begins or ends there, or the gateway crashes and is found to have ended.
        #[test]
        fn gateways_never_run_more_calls_than_the_limit_and_refuse_none_below_it(
            limit in 0..400_u64, steps in prop::collection::vec((0..3_usize, 0..20_u8), 1..600),
        ) {
            let (mut entry, mut counters, mut runs) = (PlacesEntry::default(), vec![PlacesCounter::default(); 3], [1, 2, 3]);
            for (gateway, step) in steps {
                let own = holder(gateway, runs[gateway]);
                let counter = &mut counters[gateway];
                match step {
                    0 => {
                        entry.remove(&[own]);
                        *counter = PlacesCounter::default();
                        runs[gateway] += 3;
                    }
                    1..=12 => {
                        let (need, want) = counter.demand(limit);
                        let is_admitted = counter.take(limit) || entry.grant(&own, limit, need, want).is_some_and(|places| {
                            counter.held = places;
                            counter.take(limit)
                        });
                        let running: u64 = counters.iter().map(|counter| counter.in_use).sum();
                        let held: u64 = counters.iter().map(|counter| counter.held).sum();
                        prop_assert!(is_admitted || held >= limit, "refused with {running} running and {held} held of {limit}");
                        prop_assert!(running <= limit);
                    }
                    _ if counter.in_use > 0 => {
                        if counter.release(limit) {
                            entry.set(&own, counter.in_use);
                            counter.held = counter.in_use;
                        }
                        prop_assert!(counter.held - counter.in_use <= limit / SPARE_DIVISOR);
                    }
                    _ => {}
                }
            }
        }
    }
}
