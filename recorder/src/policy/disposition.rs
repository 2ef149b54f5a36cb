//! The disposition of a batch after a failed write: wait, retry, split or quarantine. Decided here, carried out by
//! `batch_writer` and `reprojection`.
//!
//! The decision depends on the cause: the database or the events. A fault of the database (down, full, unexpected
//! schema) never puts an event into quarantine. An event refused by PostgreSQL for its content never stops the other
//! events.

use std::time::Duration;

/// The reason a batch could not be written. `store::classify` derives the fault from a database error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseFault {
    /// The connection failed, broke, or gave no answer within the timeout.
    Unreachable,
    /// PostgreSQL returned an error with this SQLSTATE code.
    Sqlstate(String),
    /// A value could not be encoded in PostgreSQL's wire format.
    Unencodable,
    /// An existing row could not be decoded: a newer recorder wrote the row.
    Unreadable,
}

impl DatabaseFault {
    /// Returns true if the server refuses writes (SQLSTATE 25006), such as an old primary after a failover.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Sqlstate(code) if code == "25006")
    }
}

/// The reaction to a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Take no more events, and write the same batch again after a growing pause.
    Wait,
    /// Write the same batch again after a short pause: another recorder's transaction was in conflict.
    Retry,
    /// Write the two halves of the batch separately: PostgreSQL refused some event in the batch.
    Split,
    /// Put the event into quarantine, with headers and payload: PostgreSQL refused this single event.
    Quarantine,
}

impl Disposition {
    /// Returns the disposition for a batch of `events` events after `fault`.
    pub fn for_fault(fault: &DatabaseFault, events: usize) -> Self {
        let refused = if events > 1 { Self::Split } else { Self::Quarantine };
        match fault {
            DatabaseFault::Unreachable | DatabaseFault::Unreadable => Self::Wait,
            DatabaseFault::Unencodable => refused,
            DatabaseFault::Sqlstate(code) => match code.as_str() {
                // Serialization failure, deadlock, lock not available within the timeout.
                "40001" | "40P01" | "55P03" => Self::Retry,
                // Cardinality violation, data exception, integrity constraint violation, program limit exceeded (such
                // as a value too deep or too wide).
                _ if matches!(code.get(..2), Some("21" | "22" | "23" | "54")) => refused,
                // Connection, resource and shutdown errors, missing tables or rights, and every unknown code.
                _ => Self::Wait,
            },
        }
    }
}

/// Returns the pause before try number `attempt` (counted from 1). The pause doubles from 100 ms to 5 s for
/// [`Disposition::Wait`], and from 5 ms to 500 ms for [`Disposition::Retry`]. `jitter`, from 0 to 1, scales the pause
/// between half and full length, so that recorders do not retry at the same moment.
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
