//! The periods of budgets as spans of time, in any time zone.
//!
//! The periods of a budget are adjacent: each instant lies in exactly one period.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use time::OffsetDateTime;

use crate::event::{Budget, BudgetPeriod};

/// The span of a period: from `start` to before `end`, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetWindow {
    /// The first second.
    pub start: i64,
    /// The first second after the period.
    pub end: i64,
}

impl BudgetWindow {
    /// All time: the period `total`.
    pub const TOTAL: Self = Self { start: 0, end: 253_370_764_800 };

    /// Returns the period in which a call counts that started at the given time.
    pub fn of(budget: &Budget, at: OffsetDateTime) -> Self {
        let zone = time_zone(&budget.time_zone).unwrap_or(TimeZone::UTC);
        let seconds = at.unix_timestamp();
        let found = match budget.period {
            BudgetPeriod::Total => None,
            BudgetPeriod::Hour => Some(hour(&zone, seconds)),
            // A period of a later version counts as a month, the longest that begins again.
            period => days(&zone, seconds, period),
        };
        found.unwrap_or(Self::TOTAL)
    }

    /// Returns true if a call that started at the time counts in the period.
    pub fn contains(&self, at: OffsetDateTime) -> bool {
        (self.start..self.end).contains(&at.unix_timestamp())
    }

    /// Returns true for the period `total`, which has no end.
    pub fn is_total(&self) -> bool {
        *self == Self::TOTAL
    }
}

/// Returns the time zone of a name in the IANA database; `None` for an unknown name.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name.len() > Budget::MAX_ZONE_BYTES { None } else { TimeZone::get(name).ok() }
}

/// Returns the hour of the zone's clock. A clock change within an hour ends the hour.
fn hour(zone: &TimeZone, at: i64) -> BudgetWindow {
    let Ok(instant) = Timestamp::from_second(at) else { return BudgetWindow::TOTAL };
    let local = zone.to_datetime(instant);
    let start = at - i64::from(local.minute()) * 60 - i64::from(local.second());
    // `preceding` looks strictly before an instant, and a change at the instant itself counts.
    let before = instant.checked_add(1.second()).ok().and_then(|next| zone.preceding(next).next());
    let before = before.map_or(i64::MIN, |change| change.timestamp().as_second());
    let after = zone.following(instant).next().map_or(i64::MAX, |change| change.timestamp().as_second());
    BudgetWindow { start: start.max(before), end: (start + 3600).min(after) }
}

fn days(zone: &TimeZone, at: i64, period: BudgetPeriod) -> Option<BudgetWindow> {
    let local = zone.to_datetime(Timestamp::from_second(at).ok()?).date();
    let mut first = first_day(local, period)?;
    loop {
        let next = next_first_day(first, period)?;
        let (start, end) = (first_instant(zone, first)?, first_instant(zone, next)?);
        // After a clock change at midnight, an instant may show the day before or after its own.
        if at >= end {
            first = next;
        } else if at < start {
            first = first_day(first.checked_sub(1.day()).ok()?, period)?;
        } else {
            return Some(BudgetWindow { start, end });
        }
    }
}

fn first_day(day: Date, period: BudgetPeriod) -> Option<Date> {
    match period {
        BudgetPeriod::Day => Some(day),
        BudgetPeriod::Week => day.checked_sub(i32::from(day.weekday().since(Weekday::Monday)).days()).ok(),
        _ => Some(day.first_of_month()),
    }
}

fn next_first_day(first: Date, period: BudgetPeriod) -> Option<Date> {
    match period {
        BudgetPeriod::Day => first.checked_add(1.day()).ok(),
        BudgetPeriod::Week => first.checked_add(7.days()).ok(),
        _ => first.checked_add(1.month()).ok(),
    }
}

/// Returns the first instant of a day; for a skipped midnight, the instant of the clock change.
fn first_instant(zone: &TimeZone, day: Date) -> Option<i64> {
    let at = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0)).compatible().ok()?;
    Some(at.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::event::{BudgetPolicy, UnpricedCalls};

    fn budget(period: BudgetPeriod, zone: &str) -> Budget {
        Budget {
            amount_nanodollars: 1,
            period,
            time_zone: zone.to_owned(),
            policy: BudgetPolicy::Finish,
            unpriced: UnpricedCalls::Allow,
            offline_nanodollars: 0,
        }
    }

    #[test]
    fn periods_are_those_of_the_zone() {
        let at = datetime!(2026-03-29 12:34:56 UTC);
        let span = |period, zone| {
            let window = BudgetWindow::of(&budget(period, zone), at);
            let text = |at| OffsetDateTime::from_unix_timestamp(at).unwrap();
            (text(window.start), (window.end - window.start) / 3600)
        };
        let berlin = "Europe/Berlin";
        assert_eq!(span(BudgetPeriod::Hour, berlin), (datetime!(2026-03-29 12:00 UTC), 1));
        assert_eq!(span(BudgetPeriod::Hour, "Asia/Kathmandu"), (datetime!(2026-03-29 12:15 UTC), 1));
        assert_eq!(span(BudgetPeriod::Day, berlin), (datetime!(2026-03-28 23:00 UTC), 23));
        assert_eq!(span(BudgetPeriod::Week, berlin), (datetime!(2026-03-22 23:00 UTC), 7 * 24 - 1));
        assert_eq!(span(BudgetPeriod::Month, berlin), (datetime!(2026-02-28 23:00 UTC), 31 * 24 - 1));
        assert_eq!(span(BudgetPeriod::Month, "Mars/Olympus").0, datetime!(2026-03-01 0:00 UTC));
        assert!(BudgetWindow::of(&budget(BudgetPeriod::Total, berlin), at).is_total());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// In every zone, an instant lies in its period, and every instant of the period has the same period.
        #[test]
        fn periods_are_adjacent(zone in any::<prop::sample::Index>(), at in 100_000_000..2_500_000_000_i64, part in 0..1000_i64, kind in 0..4_usize) {
            let names: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let period = [BudgetPeriod::Hour, BudgetPeriod::Day, BudgetPeriod::Week, BudgetPeriod::Month][kind];
            let budget = budget(period, &names[zone.index(names.len())]);
            let of = |at| BudgetWindow::of(&budget, OffsetDateTime::from_unix_timestamp(at).unwrap());
            let window = of(at);
            prop_assert!(window.start <= at && at < window.end, "{at} in {window:?} of {budget:?}");
            let other = window.start + (window.end - window.start) * part / 1000;
            prop_assert_eq!(of(other), window);
            prop_assert_eq!(of(window.end - 1), window);
            prop_assert_eq!(of(window.end).start, window.end);
            prop_assert_eq!(of(window.start - 1).end, window.start);
        }
    }
}
