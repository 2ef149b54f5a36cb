//! Noting acts for the audit log.
//!
//! Acts are noted in the transaction of the act. Throttled attempts have no transaction, and writing one for each would let an attacker make the
//! database write as fast as requests arrive: they are counted in memory, and written twice a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgPool;
use tokio::sync::Notify;

use crate::store::audit_outbox::{self, Act};

/// The maximum number of different throttled acts in memory. Further ones are counted without address and target.
const MAX_THROTTLED: usize = 1000;

/// Notes acts, and wakes the task that publishes them.
#[derive(Debug)]
pub struct Audit {
    pool: PgPool,
    throttled: Mutex<BTreeMap<Act, u64>>,
    noted: Arc<Notify>,
}

impl Audit {
    /// Creates the log over a database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, throttled: Mutex::default(), noted: Arc::default() }
    }

    /// Returns the notification after each act of this process.
    pub fn noted(&self) -> Arc<Notify> {
        Arc::clone(&self.noted)
    }

    /// Wakes the task that publishes entries, after the commit of a transaction with an act.
    pub fn wake(&self) {
        self.noted.notify_one();
    }

    /// Notes an act that has no transaction of its own.
    pub async fn note(&self, act: &Act) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        audit_outbox::note(&mut tx, act, 1).await?;
        tx.commit().await?;
        self.wake();
        Ok(())
    }

    /// Counts a throttled attempt.
    pub fn count_throttled(&self, act: Act) {
        let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = throttled.len() >= MAX_THROTTLED && !throttled.contains_key(&act);
        let act = if is_full { Act { target: None, address: None, ..act } } else { act };
        *throttled.entry(act).or_default() += 1;
    }

    /// Writes the throttled attempts that were counted. After an error, they are written the next time.
    pub async fn write_throttled(&self) -> Result<(), sqlx::Error> {
        let counted = std::mem::take(&mut *self.throttled.lock().unwrap_or_else(PoisonError::into_inner));
        if counted.is_empty() {
            return Ok(());
        }
        let written = async {
            let mut tx = self.pool.begin().await?;
            for (act, times) in &counted {
                audit_outbox::note(&mut tx, act, *times).await?;
            }
            tx.commit().await
        };
        let written = written.await;
        if written.is_err() {
            let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
            for (act, times) in counted {
                *throttled.entry(act).or_default() += times;
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use shared::event::{AuditAction, AuditOutcome};

    use super::*;
    use crate::store::audit_outbox::Actor;

    #[tokio::test]
    async fn throttled_attempts_from_many_addresses_are_counted_in_a_bounded_map() {
        let audit = Audit::new(PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap());
        for number in 0..3 * MAX_THROTTLED {
            let act = Actor::anonymous(&format!("address {number}")).act(AuditAction::Login);
            audit.count_throttled(act.with(AuditOutcome::Throttled));
        }
        let throttled = audit.throttled.lock().unwrap();
        assert_eq!(throttled.len(), MAX_THROTTLED + 1);
        assert_eq!(throttled.values().sum::<u64>(), 3 * MAX_THROTTLED as u64);
    }
}
