//! Prices in transactions: reading the history of publications and the lists, and pricing chats anew after a change of prices.
//!
//! Each row of `chats` has the cost that follows from the row and from the rows of `price_lists` and `repricings`. Three rules keep it
//! so while several recorders write:
//!
//! - A transaction that prices chats locks `price_lists` in the mode ROW SHARE and reads the history before it writes. Such transactions
//!   do not wait for each other.
//! - A transaction that changes prices takes the mode EXCLUSIVE first. It waits for the transactions that price with the former prices,
//!   and later ones see its rows. It notes in `pending_repricings` which chats may have another cost now, and commits.
//! - [`RepricingPass`] prices the noted chats anew, some hundred in a transaction. The event is acknowledged after that. A chat that is
//!   written meanwhile is priced with the new prices already, and is then left as it is.
//!
//! Readers are never held up.

use std::collections::BTreeSet;
use std::mem::take;

use shared::prices::PriceHistory;
use shared::prices::history::{PublishedList, RepricedSpan};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::utc;
use super::repricings::PendingSpan;
use super::stored_row::join_rows;
use super::{chats, key_slots, operation_slots, price_lists, repricings, usage_slots, usage_stats};
use crate::projection::admin_rows::AdminRows;
use crate::projection::chat::Chat;
use crate::projection::merge;
use crate::projection::pricing::Prices;
use crate::projection::usage_stats::UsageChanges;

/// The number of chats that are priced anew in one transaction.
const CHUNK_ROWS: usize = 500;

/// Reads the history of publications. Lists are read by [`load_lists`].
pub(super) async fn read_history(tx: &mut PgConnection, prices: &mut Prices) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT change_id AS "change_id!", layer, in_force_from AS "since!", in_force_until AS until,
               published_at AS "at!", sha256
           FROM price_lists
           UNION ALL
           SELECT change_id, NULL, since, until, repriced_at, NULL FROM repricings"#
    );
    let (mut lists, mut spans) = (Vec::new(), Vec::new());
    for row in rows.fetch_all(tx).await? {
        let (since, until, at) = (utc(row.since), row.until.map(utc), utc(row.at));
        match (row.layer, row.sha256) {
            (Some(layer), Some(sha256)) => {
                let change_id = row.change_id;
                lists.push(PublishedList { change_id, layer, from: since, until, published_at: at, sha256 });
            }
            _ => {
                let until = until.unwrap_or(at);
                spans.push(RepricedSpan { change_id: row.change_id, since, until, repriced_at: at });
            }
        }
    }
    prices.set_history(PriceHistory::new(lists, spans));
    Ok(())
}

/// Reads the lists that apply to calls of the given times and that were not read before.
pub(super) async fn load_lists(
    tx: &mut PgConnection,
    prices: &mut Prices,
    times: impl IntoIterator<Item = OffsetDateTime>,
) -> Result<(), sqlx::Error> {
    let missing = prices.missing_lists(times);
    if missing.is_empty() {
        return Ok(());
    }
    for (sha256, list) in price_lists::contents(tx, &missing).await? {
        if let Err(error) = prices.add_list(&sha256, &list) {
            tracing::error!(sha256, %error, "a published price list cannot be read and is not in force: upgrade the recorder");
        }
    }
    Ok(())
}

/// Joins publications and repricings with the rows. Returns the spans of the chats that may have another cost now.
pub(super) async fn join_changes(
    tx: &mut PgConnection,
    facts: &mut AdminRows,
    prices: &mut Prices,
) -> Result<Vec<PendingSpan>, sqlx::Error> {
    let lists = join_rows(tx, take(&mut facts.price_lists)).await?;
    let repricings = join_rows(tx, take(&mut facts.repricings)).await?;
    read_history(tx, prices).await?;
    // A changed row concerns the chats of both spans: as the row was, and as it is.
    let mut spans = Vec::new();
    for (old, new) in lists {
        spans.extend(old.iter().chain([&new]).map(|list| {
            let (since, until) = prices.history().span_of_list(&list.published());
            PendingSpan { change_id: list.change_id, since, until }
        }));
    }
    for (old, new) in repricings {
        spans.extend(old.iter().chain([&new]).map(|repricing| PendingSpan::of(&repricing.span())));
    }
    Ok(spans)
}

/// Joins publications and repricings in the live tables, and notes which chats have to be priced anew. The transaction must not have
/// written anything before. Returns the number of changed rows.
pub(super) async fn change_live(
    tx: &mut PgConnection,
    facts: &mut AdminRows,
    prices: &mut Prices,
) -> Result<usize, sqlx::Error> {
    price_lists::lock_for_change(tx).await?;
    let spans = join_changes(tx, facts, prices).await?;
    for span in &spans {
        repricings::add_pending(tx, *span).await?;
    }
    Ok(spans.iter().map(|span| span.change_id).collect::<BTreeSet<_>>().len())
}

/// Prices the chats of spans anew, inside the caller's transaction, which is the only writer of the tables. Returns the changes of sums.
pub(super) async fn reprice_alone(
    tx: &mut PgConnection,
    spans: &[PendingSpan],
    prices: &mut Prices,
) -> Result<UsageChanges, sqlx::Error> {
    let mut usage = UsageChanges::default();
    for span in spans {
        open_cursor(tx, span).await?;
        loop {
            let ids = next_ids(tx).await?;
            if ids.is_empty() {
                break;
            }
            let old: Vec<Chat> = chats::by_ids(tx, &ids).await?.into_values().collect();
            usage.merge(reprice(tx, old, prices).await?);
        }
        close_cursor(tx).await?;
    }
    Ok(usage)
}

/// Prices rows anew and writes the rows that change. Returns the changes of sums.
async fn reprice(tx: &mut PgConnection, old: Vec<Chat>, prices: &mut Prices) -> Result<UsageChanges, sqlx::Error> {
    load_lists(tx, prices, old.iter().map(|chat| chat.started_at)).await?;
    let (repriced, usage) = merge::reprice(old, prices);
    if !repriced.is_empty() {
        chats::update(tx, &repriced.iter().collect::<Vec<_>>()).await?;
    }
    Ok(usage)
}

/// A pass over the chats whose prices have changed, after the transaction that changed prices was committed.
pub struct RepricingPass {
    span: PendingSpan,
    /// The transaction with the cursor over the chats of the span.
    cursor: PoolConnection<Postgres>,
    /// The number of chats that were looked at.
    pub looked_at: usize,
}

impl RepricingPass {
    /// Begins a pass over a noted span. None if nothing is noted.
    pub async fn begin(pool: &PgPool) -> Result<Option<Self>, sqlx::Error> {
        let mut cursor = pool.acquire().await?;
        let Some(span) = repricings::first_pending(&mut cursor).await? else { return Ok(None) };
        // The connection is closed after the pass, and with it the transaction.
        cursor.close_on_drop();
        sqlx::raw_sql("BEGIN READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0")
            .execute(&mut *cursor)
            .await?;
        open_cursor(&mut cursor, &span).await?;
        Ok(Some(Self { span, cursor, looked_at: 0 }))
    }

    /// Prices the next chats of the span anew, in one transaction. Returns false after the last chat.
    pub async fn step(&mut self, pool: &PgPool, prices: &mut Prices) -> Result<bool, sqlx::Error> {
        let ids = next_ids(&mut self.cursor).await?;
        let mut tx = pool.begin().await?;
        if ids.is_empty() {
            repricings::remove_pending(&mut tx, self.span).await?;
            tx.commit().await?;
            return Ok(false);
        }
        price_lists::lock_for_pricing(&mut tx).await?;
        read_history(&mut tx, prices).await?;
        let old: Vec<Chat> = chats::lock(&mut tx, &ids).await?.into_values().collect();
        let usage = reprice(&mut tx, old, prices).await?;
        usage_stats::add(&mut tx, &usage).await?;
        usage_slots::add(&mut tx, &usage).await?;
        operation_slots::add(&mut tx, &usage).await?;
        key_slots::add(&mut tx, &usage).await?;
        tx.commit().await?;
        self.looked_at += ids.len();
        Ok(true)
    }
}

/// Opens the cursor over the ended calls of a span.
pub(super) async fn open_cursor(connection: &mut PgConnection, span: &PendingSpan) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DECLARE chats_to_price NO SCROLL CURSOR FOR SELECT chat_id FROM chats
         WHERE started_at >= $1 AND ($2::timestamptz IS NULL OR started_at < $2) AND ending_digest IS NOT NULL",
    )
    .bind(span.since)
    .bind(span.until)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the next ids of the cursor; none at its end.
pub(super) async fn next_ids(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    let fetch = sqlx::AssertSqlSafe(format!("FETCH {CHUNK_ROWS} FROM chats_to_price"));
    let rows = sqlx::raw_sql(fetch).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn close_cursor(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("CLOSE chats_to_price").execute(connection).await.map(drop)
}
