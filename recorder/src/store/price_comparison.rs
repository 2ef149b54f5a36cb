//! The costs of calls with other prices: read from the rows, without changing them.

use std::sync::Arc;

use shared::prices::history::{PublishedList, RepricedSpan};
use sqlx::postgres::PgPool;

use super::chats;
use super::pricing::{load_lists, next_ids, open_cursor, read_history};
use super::repricings::PendingSpan;
use crate::projection::chat::Chat;
use crate::projection::pricing::Prices;

/// Sums of costs, in nano-dollars, and the number of calls without a known price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostTotals {
    /// The costs of reported usage.
    pub reported: i128,
    /// The costs of estimated usage.
    pub estimated: i128,
    /// Calls without a known price.
    pub unpriced: i64,
}

/// The costs of the calls of a span of time, as recorded and with other prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriceComparison {
    /// The number of calls that have ended.
    pub calls: u64,
    /// The number of calls with another cost.
    pub changed: u64,
    /// The sums as recorded.
    pub now: CostTotals,
    /// The sums with the other prices.
    pub then: CostTotals,
}

impl CostTotals {
    fn add(&mut self, chat: &Chat) {
        let totals = chat.usage_totals();
        self.reported += i128::from(totals.cost_nanodollars);
        self.estimated += i128::from(totals.estimated_cost_nanodollars);
        self.unpriced += totals.unpriced_calls;
    }
}

impl PriceComparison {
    /// Compares the costs of a span with those that a repricing of the span would give; with `list`, as if the list had been published
    /// before the repricing. The whole comparison sees one state of the tables.
    pub async fn read(
        pool: &PgPool,
        list: Option<(PublishedList, Arc<str>)>,
        repricing: RepricedSpan,
    ) -> Result<Self, sqlx::Error> {
        let (mut comparison, mut prices) = (Self::default(), Prices::default());
        let mut connection = pool.acquire().await?;
        // The connection is closed afterwards, and with it the transaction.
        connection.close_on_drop();
        sqlx::raw_sql(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0",
        )
        .execute(&mut *connection)
        .await?;
        read_history(&mut connection, &mut prices).await?;
        if let Some((list, content)) = list {
            // The caller has read the list before, so it can be read.
            let _ = prices.add_list(&list.sha256, &content);
            prices.suppose_list(list);
        }
        prices.suppose_repricing(repricing);
        open_cursor(&mut connection, &PendingSpan::of(&repricing)).await?;
        loop {
            let ids = next_ids(&mut connection).await?;
            if ids.is_empty() {
                return Ok(comparison);
            }
            let chats = chats::by_ids(&mut connection, &ids).await?;
            load_lists(&mut connection, &mut prices, chats.values().map(|chat| chat.started_at)).await?;
            for chat in chats.values() {
                let mut other = chat.clone();
                prices.price(&mut other);
                comparison.calls += 1;
                comparison.now.add(chat);
                comparison.then.add(&other);
                comparison.changed += u64::from(other != *chat);
            }
        }
    }
}
