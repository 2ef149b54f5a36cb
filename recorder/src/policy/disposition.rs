//! What to do about a batch that could not be written: decided here, acted on in `batch_writer` and `reprojection`.
//!
//! The one distinction that matters: is it the database, or is it the events? A database that is down, full or not what we
//! expect is never a reason to put an event aside; an event that PostgreSQL refuses for its content is never a reason to
//! stop the others.

use std::time::Duration;

/// Why a batch could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseFault {
    /// No connection, or it broke, or there was no answer in time.
    Unreachable,
    /// PostgreSQL answered with an error.
    Sqlstate(String),
    /// A value could not be put into PostgreSQL's form.
    Unencodable,
    /// A row that is there could not be read: a newer recorder wrote it.
    Unreadable,
}

impl DatabaseFault {
    /// Whether the server at the other end takes no writes, as an old primary after a failover.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Sqlstate(code) if code == "25006")
    }
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Take no more events; try the same batch again after a pause that grows.
    Wait,
    /// Another recorder was in the way: try the same batch again soon.
    Retry,
    /// Some event in the batch is refused: try its halves.
    Split,
    /// This one event is refused: put it aside, whole.
    Quarantine,
}

impl Disposition {
    /// Of a batch of so many events that met this fault.
    pub fn for_fault(fault: &DatabaseFault, events: usize) -> Self {
        let refused = if events > 1 { Self::Split } else { Self::Quarantine };
        match fault {
            DatabaseFault::Unreachable | DatabaseFault::Unreadable => Self::Wait,
            DatabaseFault::Unencodable => refused,
            DatabaseFault::Sqlstate(code) => match code.as_str() {
                // Serialization failure, deadlock, lock not available in time.
                "40001" | "40P01" | "55P03" => Self::Retry,
                // Cardinality, data exception, integrity constraint, program limit exceeded (such as too deep or too wide).
                _ if matches!(code.get(..2), Some("21" | "22" | "23" | "54")) => refused,
                // Connections, resources, shutdowns, missing tables or rights, and whatever we have never met.
                _ => Self::Wait,
            },
        }
    }
}

/// How long to pause before the `attempt`th try (from 1), with `jitter` from 0 to 1 so that recorders do not march in step.
pub fn retry_delay(disposition: Disposition, attempt: u32, jitter: f64) -> Duration {
    let (first, longest) = match disposition {
        Disposition::Wait => (Duration::from_millis(100), Duration::from_secs(5)),
        Disposition::Retry => (Duration::from_millis(5), Duration::from_millis(500)),
        Disposition::Split | Disposition::Quarantine => return Duration::ZERO,
    };
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_fault_waits_and_an_event_fault_is_quarantined() {
        let check = |code: &str, of_many: Disposition, of_one: Disposition| {
            let fault = DatabaseFault::Sqlstate(code.to_owned());
            assert_eq!(Disposition::for_fault(&fault, 500), of_many, "{code}");
            assert_eq!(Disposition::for_fault(&fault, 1), of_one, "{code}");
        };
        for code in ["22021", "22P05", "22003", "23514", "23505", "21000", "54001"] {
            check(code, Disposition::Split, Disposition::Quarantine);
        }
        for code in ["40001", "40P01", "55P03"] {
            check(code, Disposition::Retry, Disposition::Retry);
        }
        for code in
            ["08006", "57P01", "57P03", "57014", "53100", "53300", "58030", "42P01", "42501", "25006", "XX000", ""]
        {
            check(code, Disposition::Wait, Disposition::Wait);
        }
        assert_eq!(Disposition::for_fault(&DatabaseFault::Unreachable, 1), Disposition::Wait);
        assert_eq!(Disposition::for_fault(&DatabaseFault::Unreadable, 1), Disposition::Wait);
        assert_eq!(Disposition::for_fault(&DatabaseFault::Unencodable, 1), Disposition::Quarantine);
    }

    #[test]
    fn retry_delays_grow_to_an_upper_bound() {
        let wait = |attempt| retry_delay(Disposition::Wait, attempt, 1.0);
        assert_eq!(wait(1), Duration::from_millis(100));
        assert_eq!(wait(2), Duration::from_millis(200));
        assert_eq!(wait(u32::MAX), Duration::from_secs(5));
        assert_eq!(retry_delay(Disposition::Wait, 1, 0.0), Duration::from_millis(50));
        assert!(retry_delay(Disposition::Retry, u32::MAX, 1.0) < Duration::from_secs(1));
    }
}
