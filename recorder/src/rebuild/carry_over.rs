//! The carry-over: copies rows of the live tables into the shadow when the log no longer has the events.

use shared::id::{ChatId, ConversationId};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Decode, Encode, Postgres, Type};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::error::ReprojectionError;
use super::reprojection::Reprojection;
use crate::projection::Changes;
use crate::projection::admin_rows::AdminRows;
use crate::projection::tables::Table;
use crate::source::log::LogExtent;
use crate::store;
use crate::store::bulk;

/// The number of chats or conversations copied at a time.
const BATCH_ROWS: i64 = 1000;
/// The maximum difference between the clocks of gateways and of the broker. Applied only when the log has lost its
/// first events.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::minutes(5);

/// The rows `l` of a live table whose events the log lacks, by the row `s` of the shadow with the same key.
struct Missing {
    table: Table,
    /// The column of the key.
    key: &'static str,
    /// The column of the time by which the rows of the compared days are chosen.
    time: &'static str,
    /// The condition for rows of the compared days.
    is_missing: &'static str,
    /// The condition for rows that are older than the compared days.
    is_earlier: &'static str,
}

const MISSING_CHATS: Missing = Missing {
    table: Table::Chats,
    key: "chat_id",
    time: "started_at",
    is_missing: "s.chat_id IS NULL
                 OR l.request_digest IS NOT NULL AND s.request_digest IS NULL
                 OR l.ending_digest IS NOT NULL AND s.ending_digest IS NULL",
    is_earlier: "false",
};
/// Conversations whose opening event is not in the log, or lies before the range that was read.
const MISSING_CONVERSATIONS: Missing = Missing {
    table: Table::Conversations,
    key: "conversation_id",
    time: "created_at",
    is_missing: "s.conversation_id IS NULL",
    is_earlier: "s.created_at > l.created_at",
};
/// Keys whose issue is not in the log.
const MISSING_API_KEYS: Missing = Missing {
    table: Table::ApiKeys,
    key: "key_id",
    time: "issued_at",
    is_missing: "l.issued_at IS NOT NULL AND s.issued_at IS NULL",
    is_earlier: "false",
};
/// Projects whose last change is not in the log. A row that was changed after the projection's time is left out: the settings that it
/// replaced are not known any more.
const MISSING_PROJECTS: Missing = Missing {
    table: Table::Projects,
    key: "project_id",
    time: "changed_at",
    is_missing: "s.change_id IS NULL OR s.change_id < l.change_id",
    is_earlier: "false",
};
/// Scopes whose last change is not in the log, as with projects.
const MISSING_LIMITS: Missing = Missing { table: Table::Limits, key: "scope", ..MISSING_PROJECTS };
const MISSING_AUDIT_ENTRIES: Missing = Missing {
    table: Table::AuditLog,
    key: "audit_id",
    time: "recorded_at",
    is_missing: "s.audit_id IS NULL",
    is_earlier: "false",
};
const MISSING_LISTS: Missing = Missing {
    table: Table::PriceLists,
    key: "change_id",
    time: "published_at",
    is_missing: "s.change_id IS NULL",
    is_earlier: "false",
};
const MISSING_REPRICINGS: Missing = Missing { table: Table::Repricings, time: "repriced_at", ..MISSING_LISTS };

impl Reprojection {
    /// Copies the rows that are older than the log's first event from the live tables into the shadow, as far as the
    /// log lacks the events.
    ///
    /// With `since`, only rows of UTC days from `since` on are copied. Older conversations with chats on these days are
    /// copied too, because the log was not read back to the opening of such conversations.
    pub async fn carry_over(
        &mut self,
        connection: &mut PgConnection,
        extent: &LogExtent,
        since: Option<Date>,
    ) -> Result<(), ReprojectionError> {
        let begins = extent.first_stored_at.map(|at| if extent.is_truncated { at + MAX_CLOCK_SKEW } else { at });
        let before = [begins, self.as_of].into_iter().flatten().min();
        let from = since.map(|day| day.midnight().assume_utc());
        let opened_before = before.map(|before| from.map_or(before, |from| before.max(from)));
        // The prices of the compared days may have been published long before.
        for missing in [&MISSING_LISTS, &MISSING_REPRICINGS] {
            self.carry_over_admin_rows(connection, missing, (None, opened_before)).await?;
        }
        let (mut chat, mut conversation) = (Uuid::nil(), Uuid::nil());
        // Chats of these days that are older than the log exist only when the log begins after the first day.
        while from.zip(before).is_none_or(|(from, before)| from < before) {
            let ids = self.missing_keys(connection, &MISSING_CHATS, chat, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            chat = *last;
            self.stats.carried_over += ids.len() as u64;
            self.carry_over_rows(connection, &ids.into_iter().map(ChatId).collect::<Vec<_>>(), &[]).await?;
        }
        loop {
            let ids =
                self.missing_keys(connection, &MISSING_CONVERSATIONS, conversation, (from, opened_before)).await?;
            let Some(last) = ids.last() else { break };
            conversation = *last;
            self.carry_over_rows(connection, &[], &ids.into_iter().map(ConversationId).collect::<Vec<_>>()).await?;
        }
        for missing in [&MISSING_API_KEYS, &MISSING_PROJECTS, &MISSING_AUDIT_ENTRIES] {
            self.carry_over_admin_rows(connection, missing, (from, before)).await?;
        }
        let mut scope = String::new();
        loop {
            let scopes = self.missing_keys(connection, &MISSING_LIMITS, scope, (from, before)).await?;
            let Some(last) = scopes.last() else { break };
            scope = last.clone();
            self.shadow.leave(connection).await?;
            let limits = store::limits::by_scopes(connection, &scopes).await?;
            self.write_admin_rows(connection, AdminRows { limits, ..AdminRows::default() }).await?;
        }
        if self.stop.is_cancelled() { Err(ReprojectionError::Stopped) } else { Ok(()) }
    }

    async fn carry_over_admin_rows(
        &mut self,
        connection: &mut PgConnection,
        missing: &Missing,
        times: (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<(), ReprojectionError> {
        let mut after = Uuid::nil();
        loop {
            let ids: Vec<Uuid> = self.missing_keys(connection, missing, after, times).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after = *last;
            // One list at a time, because a list has some megabytes.
            let rows = if missing.table == Table::PriceLists { 1 } else { ids.len() };
            for ids in ids.chunks(rows) {
                self.shadow.leave(connection).await?;
                let mut admin = store::admin_rows::by_ids(connection, missing.table, ids).await?;
                if let Some(as_of) = self.as_of {
                    for key in admin.api_keys.values_mut() {
                        key.revoked = key.revoked.take().filter(|revoked| revoked.at <= as_of);
                    }
                }
                self.write_admin_rows(connection, admin).await?;
            }
        }
    }

    async fn write_admin_rows(
        &mut self,
        connection: &mut PgConnection,
        admin: AdminRows,
    ) -> Result<(), ReprojectionError> {
        self.shadow.enter(connection).await?;
        let mut tx = connection.begin().await?;
        let changes = Changes { admin, ..Changes::default() };
        let aggregates = bulk::write_chats_and_messages(&mut tx, &mut self.prices, changes).await?;
        bulk::write_aggregates(&mut tx, aggregates).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn carry_over_rows(
        &self,
        connection: &mut PgConnection,
        chats: &[ChatId],
        conversations: &[ConversationId],
    ) -> Result<(), ReprojectionError> {
        self.shadow.leave(connection).await?;
        let mut live = store::read_related(connection, chats, conversations).await?;
        self.shadow.enter(connection).await?;
        if let Some(as_of) = self.as_of {
            live.drop_after(as_of);
        }
        let projected = store::read_related(connection, chats, &[]).await?.chats;
        let mut tx = connection.begin().await?;
        let changes = Changes::from_rows(live.chats, live.messages, live.conversations, &projected);
        let aggregates = bulk::write_priced(&mut tx, changes).await?;
        bulk::write_aggregates(&mut tx, aggregates).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The keys of up to [`BATCH_ROWS`] rows after the key `after` that the shadow lacks, in key order.
    async fn missing_keys<K>(
        &self,
        connection: &mut PgConnection,
        missing: &Missing,
        after: K,
        (from, before): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Vec<K>, sqlx::Error>
    where
        K: Type<Postgres> + for<'a> Encode<'a, Postgres> + for<'a> Decode<'a, Postgres> + Send + Unpin,
    {
        if self.stop.is_cancelled() {
            return Ok(Vec::new());
        }
        let Missing { table, key, time, is_missing, is_earlier } = *missing;
        let (live, own) = (self.shadow.live_table(table), self.shadow.shadow_table(table));
        let sql = format!(
            "SELECT l.{key} FROM {live} l LEFT JOIN {own} s USING ({key})
             WHERE l.{key} > $1 AND ($2::timestamptz IS NULL OR l.{time} < $2)
               AND (($4::timestamptz IS NULL OR l.{time} >= $4) AND ({is_missing}) OR {is_earlier})
             ORDER BY l.{key} LIMIT $3"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(after)
            .bind(before)
            .bind(BATCH_ROWS)
            .bind(from)
            .fetch_all(connection)
            .await
    }
}
