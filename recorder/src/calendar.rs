//! Hours, days, weeks and months in a time zone, including clock changes.
//!
//! A range of days is cut into adjacent buckets. Each instant of the range lies in exactly one bucket, so that the sum
//! of the buckets equals the range in every zone. A day with a clock change has 23 or 25 hours. A day skipped by a zone
//! (Samoa, 2011-12-30) has no bucket.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};
use time::OffsetDateTime;

/// The maximum number of buckets in an answer: three years of days, or 45 days of hours.
pub const MAX_BUCKETS: usize = 1100;

/// The first day of a valid range. Since 1972 every zone's offset has been a multiple of 15 minutes, the unit in which
/// usage is counted.
const FIRST_DAY: Date = Date::constant(1973, 1, 1);
const LAST_DAY: Date = Date::constant(9990, 1, 1);

/// The size of the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// One bucket for each hour of the zone's clock.
    Hour,
    /// One bucket for each day.
    Day,
    /// One bucket for each week, beginning on Monday.
    Week,
    /// One bucket for each calendar month.
    Month,
}

/// A bucket of a range: a half-open interval of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRange {
    /// The first instant of the bucket.
    pub start: OffsetDateTime,
    /// The first instant after the bucket.
    pub end: OffsetDateTime,
    /// The beginning of the bucket by the zone's clock: a day, or a day and a time.
    pub label: String,
}

/// A range of days, cut into buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateRange {
    /// The first day of the range.
    pub from: Date,
    /// The last day of the range, included.
    pub to: Date,
    /// The buckets in order, without gaps.
    pub buckets: Vec<BucketRange>,
}

/// The reasons for which a range is refused. The message names the parameter and the expected value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The time zone is unknown.
    #[error("tz: expected the name of a time zone such as UTC or Europe/Berlin")]
    Zone,
    /// The text is not a day, or lies outside of the supported years.
    #[error("{0}: expected a day such as 2026-11-24, from 1973 on")]
    Day(&'static str),
    /// The last day lies before the first day.
    #[error("to: expected a day that is not before from")]
    Backwards,
    /// The range has more than [`MAX_BUCKETS`] buckets.
    #[error("expected a range of at most {MAX_BUCKETS} buckets: a shorter range, or larger buckets")]
    TooMany,
}

impl CalendarError {
    /// The name of the query parameter at fault.
    pub fn param(&self) -> &'static str {
        match self {
            Self::Zone => "tz",
            Self::Day(param) => param,
            Self::Backwards => "to",
            Self::TooMany => "bucket",
        }
    }
}

/// The time zone of a name in the IANA database. Names over 64 bytes are refused without a search.
pub fn time_zone(name: &str) -> Result<TimeZone, CalendarError> {
    if name.len() > 64 {
        return Err(CalendarError::Zone);
    }
    TimeZone::get(name).map_err(|_| CalendarError::Zone)
}

/// Cuts a range of days into buckets; both days are included. Without `to`, the range ends today in the zone; without
/// `from`, the range has 30 days.
pub fn date_range(
    zone: &TimeZone,
    from: Option<&str>,
    to: Option<&str>,
    bucket: Bucket,
    now: OffsetDateTime,
) -> Result<DateRange, CalendarError> {
    let now = Timestamp::from_second(now.unix_timestamp()).map_err(|_| CalendarError::Day("to"))?;
    let today = zone.to_datetime(now).date();
    let to = to.map_or(Ok(today), |text| day(text, "to"))?;
    let from = match from {
        Some(text) => day(text, "from")?,
        None => to.checked_sub(29.days()).map_err(|_| CalendarError::Day("from"))?.max(FIRST_DAY),
    };
    if to < from {
        return Err(CalendarError::Backwards);
    }
    let end = to.tomorrow().map_err(|_| CalendarError::Day("to"))?;
    let (start, end) = (first_instant_of(zone, from.at(0, 0, 0, 0))?, first_instant_of(zone, end.at(0, 0, 0, 0))?);
    let buckets = match bucket {
        // The range is a single day that the zone skipped.
        _ if start >= end => Vec::new(),
        Bucket::Hour => hours(zone, start, end)?,
        Bucket::Day | Bucket::Week | Bucket::Month => days(zone, from, (start, end), bucket)?,
    };
    Ok(DateRange { from, to, buckets })
}

fn day(text: &str, param: &'static str) -> Result<Date, CalendarError> {
    let is_plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let day: Option<Date> = is_plain.then(|| text.parse().ok()).flatten();
    day.filter(|day| (FIRST_DAY..LAST_DAY).contains(day)).ok_or(CalendarError::Day(param))
}

/// Cuts a range at the full hours of the zone's clock. A bucket is shorter or longer than 60 minutes only in zones with
/// clock changes of half an hour.
fn hours(zone: &TimeZone, start: Timestamp, end: Timestamp) -> Result<Vec<BucketRange>, CalendarError> {
    let mut cuts = Vec::new();
    let mut at = start;
    while at < end {
        if cuts.len() == MAX_BUCKETS {
            return Err(CalendarError::TooMany);
        }
        cuts.push(at);
        let local = zone.to_datetime(at);
        let rest = 3600 - i64::from(local.minute()) * 60 - i64::from(local.second());
        let next = at.checked_add(rest.seconds()).map_err(|_| CalendarError::Day("to"))?;
        // A clock change within the hour may lead into the middle of another hour: the next cut is then at the
        // following full hour.
        at = next.min(end);
    }
    let label = |at: Timestamp| {
        let local = zone.to_datetime(at);
        format!("{}T{:02}:{:02}", local.date(), local.hour(), local.minute())
    };
    bucket_ranges(&cuts, end, label)
}

fn days(
    zone: &TimeZone,
    from: Date,
    (start, end): (Timestamp, Timestamp),
    bucket: Bucket,
) -> Result<Vec<BucketRange>, CalendarError> {
    let (mut first, step): (Date, Span) = match bucket {
        Bucket::Hour | Bucket::Day => (from, 1.day()),
        Bucket::Week => {
            let since_monday = i32::from(from.weekday().since(Weekday::Monday));
            (from.checked_sub(since_monday.days()).map_err(|_| CalendarError::Day("from"))?, 7.days())
        }
        Bucket::Month => (from.first_of_month(), 1.month()),
    };
    let mut cuts = vec![start];
    loop {
        first = first.checked_add(step).map_err(|_| CalendarError::Day("to"))?;
        let at = first_instant_of(zone, first.at(0, 0, 0, 0))?;
        if at >= end {
            break;
        }
        // A skipped day begins at the same instant as the following day.
        if at > start && cuts.last().is_none_or(|last| *last < at) {
            if cuts.len() == MAX_BUCKETS {
                return Err(CalendarError::TooMany);
            }
            cuts.push(at);
        }
    }
    bucket_ranges(&cuts, end, |at| zone.to_datetime(at).date().to_string())
}

/// The first instant at which the zone's clock shows the given time; for a skipped time, the instant of the clock
/// change.
fn first_instant_of(zone: &TimeZone, at: DateTime) -> Result<Timestamp, CalendarError> {
    zone.to_ambiguous_timestamp(at).compatible().map_err(|_| CalendarError::Day("to"))
}

fn bucket_ranges(
    cuts: &[Timestamp],
    end: Timestamp,
    label: impl Fn(Timestamp) -> String,
) -> Result<Vec<BucketRange>, CalendarError> {
    let ends = cuts.iter().skip(1).copied().chain([end]);
    let piece = |(start, end): (&Timestamp, Timestamp)| {
        Ok(BucketRange { start: to_offset_date_time(*start)?, end: to_offset_date_time(end)?, label: label(*start) })
    };
    cuts.iter().zip(ends).map(piece).collect()
}

fn to_offset_date_time(at: Timestamp) -> Result<OffsetDateTime, CalendarError> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| CalendarError::Day("to"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::projection::usage_slots::SLOT_SECONDS;

    fn cut(name: &str, from: &str, to: &str, bucket: Bucket) -> Vec<(String, i64)> {
        let range =
            date_range(&time_zone(name).unwrap(), Some(from), Some(to), bucket, datetime!(2026-11-24 12:00 UTC))
                .unwrap();
        range.buckets.into_iter().map(|piece| (piece.label, (piece.end - piece.start).whole_minutes())).collect()
    }

    #[test]
    fn days_are_as_long_as_clocks_make_them() {
        let minutes = |name, from, to| cut(name, from, to, Bucket::Day).iter().map(|(_, m)| *m).collect::<Vec<_>>();
        assert_eq!(minutes("Europe/Berlin", "2026-03-28", "2026-03-30"), [1440, 1380, 1440]);
        assert_eq!(minutes("Europe/Berlin", "2026-10-25", "2026-10-25"), [1500]);
        assert_eq!(minutes("Australia/Lord_Howe", "2026-04-05", "2026-04-05"), [1470]);
        let samoa = cut("Pacific/Apia", "2011-12-29", "2011-12-31", Bucket::Day);
        assert_eq!(
            samoa,
            [("2011-12-29".to_owned(), 1440), ("2011-12-31".to_owned(), 1440)],
            "Samoa skipped 30 December 2011"
        );
    }

    #[test]
    fn hours_are_those_of_the_clock() {
        let hours = cut("Asia/Kathmandu", "2026-11-24", "2026-11-24", Bucket::Hour);
        assert_eq!((hours.len(), hours[1].0.as_str()), (24, "2026-11-24T01:00"));
        assert_eq!(cut("Europe/Berlin", "2026-10-25", "2026-10-25", Bucket::Hour).len(), 25);
        assert_eq!(cut("Europe/Berlin", "2026-03-29", "2026-03-29", Bucket::Hour).len(), 23);
    }

    #[test]
    fn weeks_begin_on_monday_and_ranges_need_not() {
        let weeks = cut("UTC", "2026-11-24", "2026-12-08", Bucket::Week);
        let labels: Vec<_> = weeks.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["2026-11-24", "2026-11-30", "2026-12-07"]);
        let months = cut("UTC", "2026-11-24", "2027-01-01", Bucket::Month);
        assert_eq!(months.len(), 3);
    }

    #[test]
    fn what_cannot_be_cut_is_said() {
        let now = datetime!(2026-11-24 12:00 UTC);
        let refused = |from, to, bucket| date_range(&TimeZone::UTC, from, to, bucket, now).unwrap_err();
        assert_eq!(time_zone("Mars/Olympus").unwrap_err(), CalendarError::Zone);
        assert_eq!(refused(Some("2026-13-01"), None, Bucket::Day), CalendarError::Day("from"));
        assert_eq!(refused(Some("1901-01-01"), None, Bucket::Day), CalendarError::Day("from"));
        assert_eq!(refused(Some("2026-11-25"), Some("2026-11-24"), Bucket::Day), CalendarError::Backwards);
        assert_eq!(refused(Some("1990-01-01"), None, Bucket::Day), CalendarError::TooMany);
        assert_eq!(refused(Some("2026-01-01"), None, Bucket::Hour), CalendarError::TooMany);
        assert_eq!(date_range(&TimeZone::UTC, None, None, Bucket::Day, now).unwrap().buckets.len(), 30);
    }

    /// In every time zone and for every bucket size, buckets are adjacent and are whole quarters of an hour.
    #[test]
    fn pieces_meet_in_every_zone() {
        for name in jiff::tz::db().available() {
            let zone = time_zone(name.as_str()).unwrap();
            for bucket in [Bucket::Hour, Bucket::Day, Bucket::Week, Bucket::Month] {
                let span =
                    if bucket == Bucket::Hour { ("2026-03-01", "2026-04-10") } else { ("2025-01-15", "2026-12-14") };
                check(&zone, span.0, span.1, bucket);
            }
        }
    }

    fn check(zone: &TimeZone, from: &str, to: &str, bucket: Bucket) {
        let range = date_range(zone, Some(from), Some(to), bucket, OffsetDateTime::UNIX_EPOCH).unwrap();
        let days = date_range(zone, Some(from), Some(to), Bucket::Month, OffsetDateTime::UNIX_EPOCH).unwrap();
        assert_eq!(range.buckets[0].start, days.buckets[0].start);
        assert_eq!(range.buckets.last().unwrap().end, days.buckets.last().unwrap().end);
        for pair in range.buckets.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "{zone:?} {pair:?}");
        }
        for piece in &range.buckets {
            assert!(piece.start < piece.end, "{zone:?} {piece:?}");
            assert_eq!(piece.start.unix_timestamp() % SLOT_SECONDS, 0, "{zone:?} {piece:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// For any range in any zone, each instant of the range lies in exactly one bucket.
        #[test]
        fn the_sum_of_the_pieces_is_the_range(
            zone_at in any::<prop::sample::Index>(), start in 0..18_000_i32, days in 0..40_i32,
            kind in 0..4_usize, quarters in prop::collection::vec(-200..4_200_i64, 1..50),
        ) {
            let names: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let zone = time_zone(&names[zone_at.index(names.len())]).unwrap();
            let from = FIRST_DAY.checked_add(start.days()).unwrap();
            let to = from.checked_add(days.days()).unwrap();
            let bucket = [Bucket::Hour, Bucket::Day, Bucket::Week, Bucket::Month][kind];
            // A range that consists of one skipped day has no bucket.
            let whole = date_range(&zone, Some(&from.to_string()), Some(&to.to_string()), Bucket::Month, OffsetDateTime::UNIX_EPOCH).unwrap();
            let cut = date_range(&zone, Some(&from.to_string()), Some(&to.to_string()), bucket, OffsetDateTime::UNIX_EPOCH).unwrap();
            let (Some(first), Some(last)) = (whole.buckets.first(), whole.buckets.last()) else { return Ok(()) };
            let (start, end) = (first.start, last.end);
            for quarter in quarters {
                let at = start + time::Duration::seconds(quarter * SLOT_SECONDS);
                let holding = cut.buckets.iter().filter(|piece| piece.start <= at && at < piece.end).count();
                prop_assert_eq!(holding, usize::from(start <= at && at < end));
            }
        }
    }
}
