//! Counting units of a limit in windows of one minute: the entry that all gateways share, and the units that one gateway holds.
//!
//! A gateway may use a unit only after the shared entry has counted the unit, so that all gateways together never use more than the
//! limit. Units that are counted and not used are given back.

use serde::{Deserialize, Serialize};

/// The part of a limit that a gateway takes at once, as a divisor: a gateway holds at most one part in 256 of a limit unused.
const SLICE_DIVISOR: u64 = 256;
/// The part of what is left of a window that a gateway takes at once, as a divisor, so that the last units are taken one by one.
const REST_DIVISOR: u64 = 8;

/// The entry of a window in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowEntry {
    /// The number of units that gateways have taken.
    pub granted: u64,
}

/// The units of one window that this gateway holds.
#[derive(Clone, Debug, Default)]
pub struct WindowCounter {
    /// The window, as minutes since 1970.
    minute: i64,
    /// Units that the entry has counted and this gateway has not used.
    left: u64,
    /// Units that this gateway has used.
    used: u64,
    /// Used units that the entry has not counted: a correction of an estimate, or calls without a broker.
    uncounted: u64,
    /// The units that all gateways have taken, as last seen.
    granted: u64,
    /// True if units were used since the last call of [`Self::idle`].
    was_used: bool,
}

impl WindowEntry {
    /// Counts `uncounted` units that were used already, and then between `need` and `want` new units. Returns the number of new units,
    /// or `None` if fewer than `need` are left. The units that were used already are counted in both cases.
    pub fn grant(&mut self, limit: u64, uncounted: u64, need: u64, want: u64) -> Option<u64> {
        self.granted = self.granted.saturating_add(uncounted);
        let free = limit.saturating_sub(self.granted);
        if free < need {
            return None;
        }
        let units = want.min(free / REST_DIVISOR).max(need);
        self.granted += units;
        Some(units)
    }
}

impl WindowCounter {
    /// Begins the window of `minute`, unless it is the present window. Units of another window are void.
    pub fn enter(&mut self, minute: i64) {
        if self.minute != minute {
            *self = Self { minute, ..Self::default() };
        }
    }

    /// Uses between `need` and `want` of the units that are held. Returns the number, or `None`, and uses none, if fewer are held.
    pub fn take(&mut self, minute: i64, need: u64, want: u64) -> Option<u64> {
        self.enter(minute);
        if self.left < need {
            return None;
        }
        let units = self.left.min(want.max(need));
        self.left -= units;
        self.used += units;
        self.was_used = true;
        Some(units)
    }

    /// Returns the number of units to ask for, so that between `need` and `want` can be used: at least, and at best.
    pub fn demand(&self, limit: u64, need: u64, want: u64) -> (u64, u64) {
        let want = want.max(need).saturating_sub(self.left);
        (need.saturating_sub(self.left), want.saturating_add(limit / SLICE_DIVISOR))
    }

    /// Returns true if more units should be asked for before they are needed. A limit that is too small for slices is always asked for
    /// when a unit is needed.
    pub fn is_low(&self, limit: u64) -> bool {
        let slice = limit / SLICE_DIVISOR;
        slice > 1 && self.left < slice / 2 && self.granted < limit
    }

    /// Returns the used units that the entry has not counted.
    pub fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// Notes the answer of the entry: `uncounted` units are counted now, `units` are new, and `granted` is the sum of all gateways.
    pub fn note_grant(&mut self, minute: i64, uncounted: u64, units: u64, granted: u64) {
        if self.minute == minute {
            self.uncounted = self.uncounted.saturating_sub(uncounted);
            self.left += units;
            self.granted = granted;
        }
    }

    /// Holds as many units as are needed to use `units`, without asking, because the broker is away: this gateway alone uses at most
    /// the whole limit. Returns false, and holds no more, beyond that.
    pub fn borrow(&mut self, minute: i64, limit: u64, units: u64) -> bool {
        self.enter(minute);
        if self.used.saturating_add(units) > limit {
            return false;
        }
        let need = units.saturating_sub(self.left);
        self.left += need;
        self.uncounted += need;
        true
    }

    /// Uses `units` in any case: they have been used already.
    pub fn charge(&mut self, minute: i64, units: u64) {
        self.enter(minute);
        let held = self.left.min(units);
        self.left -= held;
        self.uncounted += units - held;
        self.used += units;
        self.was_used = true;
    }

    /// Gives units back that were taken in the window of `minute` and not used.
    pub fn put_back(&mut self, minute: i64, units: u64) {
        if self.minute == minute {
            self.used = self.used.saturating_sub(units);
            let uncounted = self.uncounted.min(units);
            self.uncounted -= uncounted;
            self.left += units - uncounted;
        }
    }

    /// Returns the units that were held for the whole time since the last call, and holds them no longer: the caller gives them back
    /// to the entry, or calls [`Self::hold`].
    pub fn idle(&mut self, minute: i64) -> u64 {
        self.enter(minute);
        if std::mem::take(&mut self.was_used) { 0 } else { std::mem::take(&mut self.left) }
    }

    /// Holds units that could not be given back.
    pub fn hold(&mut self, minute: i64, units: u64) {
        if self.minute == minute {
            self.left += units;
        }
    }

    /// Returns the number of units that are held.
    pub fn held(&self) -> u64 {
        self.left
    }

    /// Returns the number of units that are left in the window for all gateways, as far as this gateway knows.
    pub fn remaining(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.granted.saturating_add(self.uncounted)).saturating_add(self.left)
    }

    /// Returns true if the counter holds nothing that another counter would not hold in the window of `minute`.
    pub fn is_void(&self, minute: i64) -> bool {
        self.minute != minute || (self.left == 0 && self.used == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step of a simulation of gateways that share an entry.
    #[derive(Clone, Debug)]
    enum Step {
        /// A call at a gateway needs units.
        Call(usize, u64),
        /// A call at a gateway turns out to need fewer units than were taken.
        PutBack(usize, u64),
        /// A gateway gives idle units back.
        Tidy(usize),
        /// A gateway dies, with the units that it holds, and is started again.
        Crash(usize),
        /// A gateway's change of the entry is made, and the answer is lost.
        LostAnswer(usize, u64),
        /// The next window begins.
        NextWindow,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let gateway = 0..3_usize;
        prop::collection::vec(
            prop_oneof![
                12 => (gateway.clone(), 1..5_u64).prop_map(|(gateway, units)| Step::Call(gateway, units)),
                2 => (gateway.clone(), 1..5_u64).prop_map(|(gateway, units)| Step::PutBack(gateway, units)),
                3 => gateway.clone().prop_map(Step::Tidy),
                1 => gateway.clone().prop_map(Step::Crash),
                1 => (gateway, 1..5_u64).prop_map(|(gateway, units)| Step::LostAnswer(gateway, units)),
                1 => Just(Step::NextWindow),
            ],
            1..400,
        )
    }

    /// Asks the entry on behalf of a gateway, as the meter does.
    fn ask(counter: &mut WindowCounter, entry: &mut WindowEntry, minute: i64, limit: u64, units: u64) -> bool {
        if counter.take(minute, units, units).is_some() {
            return true;
        }
        let ((need, want), uncounted) = (counter.demand(limit, units, units), counter.uncounted());
        let granted = entry.grant(limit, uncounted, need, want);
        counter.note_grant(minute, uncounted, granted.unwrap_or(0), entry.granted);
        granted.is_some() && counter.take(minute, units, units).is_some()
    }

    proptest! {
        #[test]
        fn gateways_never_use_more_than_the_limit_and_refuse_nothing_below_it(limit in 1..2000_u64, steps in steps()) {
            let mut gateways = vec![WindowCounter::default(); 3];
            let (mut entry, mut minute, mut used, mut lost) = (WindowEntry::default(), 0, 0, 0);
            for step in steps {
                match step {
                    Step::Call(gateway, units) => {
                        if ask(&mut gateways[gateway], &mut entry, minute, limit, units) {
                            used += units;
                        } else {
                            let elsewhere: u64 = gateways.iter().map(WindowCounter::held).sum();
                            prop_assert!(used + units + elsewhere + lost > limit, "{used} used, {elsewhere} held, {lost} lost");
                        }
                    }
                    Step::PutBack(gateway, units) => {
                        let units = units.min(gateways[gateway].used);
                        gateways[gateway].put_back(minute, units);
                        used -= units;
                    }
                    Step::Tidy(gateway) => entry.granted -= gateways[gateway].idle(minute),
                    Step::Crash(gateway) => lost += std::mem::take(&mut gateways[gateway]).left,
                    Step::LostAnswer(gateway, units) => {
                        let (need, want) = gateways[gateway].demand(limit, units, units);
                        lost += entry.grant(limit, 0, need, want).unwrap_or(0);
                    }
                    Step::NextWindow => (entry, minute, used, lost) = (WindowEntry::default(), minute + 1, 0, 0),
                }
                prop_assert!(used <= limit && entry.granted <= limit, "{used} used and {} granted of {limit}", entry.granted);
                // A part in 256 of the limit for each gateway, and what a call needed.
                let held: u64 = gateways.iter_mut().map(|gateway| { gateway.enter(minute); gateway.held() }).sum();
                prop_assert!(held <= 3 * (limit / SLICE_DIVISOR + 10 * 5), "{held} held");
            }
        }

        #[test]
        fn without_the_broker_a_gateway_uses_at_most_the_whole_limit(limit in 1..100_u64, calls in prop::collection::vec(1..9_u64, 1..100)) {
            let (mut counter, mut used) = (WindowCounter::default(), 0);
            for units in calls {
                let is_held = counter.take(7, units, units).is_some();
                if is_held || (counter.borrow(7, limit, units) && counter.take(7, units, units).is_some()) {
                    used += units;
                } else {
                    prop_assert!(used + units > limit);
                }
            }
            prop_assert!(used <= limit);
            prop_assert_eq!(counter.uncounted(), used);
            let mut entry = WindowEntry::default();
            prop_assert_eq!(entry.grant(limit, used, limit - used + 1, 0), None);
            prop_assert_eq!(entry.granted, used, "what was used without asking counts, though nothing was granted");
        }
    }

    #[test]
    fn what_was_used_beyond_an_estimate_counts() {
        let (mut counter, mut entry) = (WindowCounter::default(), WindowEntry::default());
        assert!(ask(&mut counter, &mut entry, 1, 100, 40));
        counter.charge(1, 70);
        assert_eq!(counter.remaining(100), 0);
        assert!(!ask(&mut counter, &mut entry, 1, 100, 1));
        assert_eq!((entry.granted, counter.uncounted()), (110, 0));
    }
}
