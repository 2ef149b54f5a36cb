//! The carry-over: copies rows of the live tables into the shadow when the log no longer has the events.

use std::collections::BTreeMap;

use shared::id::{ChatId, ConversationId};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::error::ReprojectionError;
use super::reprojection::Reprojection;
use crate::projection::Changes;
use crate::projection::tables::Table;
use crate::source::log::LogExtent;
use crate::store;
use crate::store::bulk;

/// The number of chats or conversations copied at a time.
const BATCH_ROWS: i64 = 1000;
/// The maximum difference between the clocks of gateways and of the broker. Applied only when the log has lost its
/// first events.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::minutes(5);

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
        // Chats of these days that are older than the log exist only when the log begins after the first day.
        let has_older_chats = from.zip(before).is_none_or(|(from, before)| from < before);
        // The prices of the compared days may have been published long before.
        self.carry_over_prices(connection, opened_before).await?;
        let (mut chat, mut conversation) = (Uuid::nil(), Uuid::nil());
        loop {
            if !has_older_chats {
                break;
            }
            let ids = self.missing_ids(connection, &self.missing_chats_sql(), chat, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            chat = *last;
            self.stats.carried_over += ids.len() as u64;
            self.carry_over_rows(connection, &ids.into_iter().map(ChatId).collect::<Vec<_>>(), &[]).await?;
        }
        loop {
            let ids = self
                .missing_ids(connection, &self.missing_conversations_sql(), conversation, (from, opened_before))
                .await?;
            let Some(last) = ids.last() else { break };
            conversation = *last;
            self.carry_over_rows(connection, &[], &ids.into_iter().map(ConversationId).collect::<Vec<_>>()).await?;
        }
        let mut key = Uuid::nil();
        loop {
            let ids = self.missing_ids(connection, &self.missing_keys_sql(), key, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            key = *last;
            self.carry_over_keys(connection, &ids).await?;
        }
        let mut scope = String::new();
        loop {
            let scopes = self.missing_scopes(connection, &scope, (from, before)).await?;
            let Some(last) = scopes.last() else { break };
            scope.clone_from(last);
            self.carry_over_limits(connection, &scopes).await?;
        }
        let mut project = Uuid::nil();
        loop {
            let ids = self.missing_ids(connection, &self.missing_projects_sql(), project, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            project = *last;
            self.carry_over_projects(connection, &ids).await?;
        }
        let mut entry = Uuid::nil();
        loop {
            let ids = self.missing_ids(connection, &self.missing_audit_entries_sql(), entry, (from, before)).await?;
            let Some(last) = ids.last() else { break };
            entry = *last;
            self.carry_over_audit_entries(connection, &ids).await?;
        }
        if self.stop.is_cancelled() { Err(ReprojectionError::Stopped) } else { Ok(()) }
    }

    async fn carry_over_prices(
        &mut self,
        connection: &mut PgConnection,
        before: Option<OffsetDateTime>,
    ) -> Result<(), ReprojectionError> {
        for (table, at) in [(Table::PriceLists, "published_at"), (Table::Repricings, "repriced_at")] {
            let (live, own) = (self.shadow.live_table(table), self.shadow.shadow_table(table));
            let sql = format!(
                "SELECT l.change_id FROM {live} l LEFT JOIN {own} s USING (change_id)
                 WHERE l.change_id > $1 AND ($2::timestamptz IS NULL OR l.{at} < $2)
                   AND ($4::timestamptz IS NULL OR l.{at} >= $4) AND s.change_id IS NULL
                 ORDER BY l.change_id LIMIT $3"
            );
            let mut after = Uuid::nil();
            loop {
                let ids = self.missing_ids(connection, &sql, after, (None, before)).await?;
                let Some(last) = ids.last() else { break };
                after = *last;
                // One list at a time, because a list has some megabytes.
                for id in ids {
                    self.shadow.leave(connection).await?;
                    let price_lists = match table {
                        Table::PriceLists => store::price_lists::by_ids(connection, &[id]).await?,
                        _ => BTreeMap::new(),
                    };
                    let repricings = match table {
                        Table::Repricings => store::repricings::by_ids(connection, &[id]).await?,
                        _ => BTreeMap::new(),
                    };
                    self.shadow.enter(connection).await?;
                    let changes = Changes { price_lists, repricings, ..Changes::default() };
                    let mut tx = connection.begin().await?;
                    let aggregates = bulk::write_chats_and_messages(&mut tx, &mut self.prices, changes).await?;
                    bulk::write_aggregates(&mut tx, aggregates).await?;
                    tx.commit().await?;
                }
            }
        }
        Ok(())
    }

    async fn carry_over_keys(&self, connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), ReprojectionError> {
        self.shadow.leave(connection).await?;
        let mut api_keys = store::api_keys::by_ids(connection, ids).await?;
        self.shadow.enter(connection).await?;
        if let Some(as_of) = self.as_of {
            for key in api_keys.values_mut() {
                key.revoked = key.revoked.take().filter(|revoked| revoked.at <= as_of);
            }
        }
        let mut tx = connection.begin().await?;
        bulk::write_priced(&mut tx, Changes { api_keys, ..Changes::default() }).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn carry_over_projects(&self, connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), ReprojectionError> {
        self.shadow.leave(connection).await?;
        let projects = store::projects::by_ids(connection, ids).await?;
        self.shadow.enter(connection).await?;
        let mut tx = connection.begin().await?;
        bulk::write_priced(&mut tx, Changes { projects, ..Changes::default() }).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn carry_over_audit_entries(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<(), ReprojectionError> {
        self.shadow.leave(connection).await?;
        let audit_log = store::audit_log::by_ids(connection, ids).await?;
        self.shadow.enter(connection).await?;
        let mut tx = connection.begin().await?;
        bulk::write_priced(&mut tx, Changes { audit_log, ..Changes::default() }).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn carry_over_limits(
        &self,
        connection: &mut PgConnection,
        scopes: &[String],
    ) -> Result<(), ReprojectionError> {
        self.shadow.leave(connection).await?;
        let limits = store::limits::by_scopes(connection, scopes).await?;
        self.shadow.enter(connection).await?;
        let mut tx = connection.begin().await?;
        bulk::write_priced(&mut tx, Changes { limits, ..Changes::default() }).await?;
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

    async fn missing_ids(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        after: Uuid,
        (from, before): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        if self.stop.is_cancelled() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .bind(after)
            .bind(before)
            .bind(BATCH_ROWS)
            .bind(from)
            .fetch_all(connection)
            .await
    }

    /// Scopes whose change of limits is not in the log. A row that was changed after the projection's time is left out: the limits that
    /// it replaced are not known any more.
    async fn missing_scopes(
        &self,
        connection: &mut PgConnection,
        after: &str,
        (from, before): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Vec<String>, sqlx::Error> {
        if self.stop.is_cancelled() {
            return Ok(Vec::new());
        }
        let (live, own) = (self.shadow.live_table(Table::Limits), self.shadow.shadow_table(Table::Limits));
        let sql = format!(
            "SELECT l.scope FROM {live} l LEFT JOIN {own} s USING (scope)
             WHERE l.scope > $1 AND ($2::timestamptz IS NULL OR l.changed_at < $2)
               AND ($4::timestamptz IS NULL OR l.changed_at >= $4)
               AND (s.change_id IS NULL OR s.change_id < l.change_id)
             ORDER BY l.scope LIMIT $3"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(after).bind(before).bind(BATCH_ROWS).bind(from);
        query.fetch_all(connection).await
    }

    fn missing_chats_sql(&self) -> String {
        let (live, own) = (self.shadow.live_table(Table::Chats), self.shadow.shadow_table(Table::Chats));
        format!(
            "SELECT l.chat_id FROM {live} l LEFT JOIN {own} s USING (chat_id)
             WHERE l.chat_id > $1 AND ($2::timestamptz IS NULL OR l.started_at < $2)
               AND ($4::timestamptz IS NULL OR l.started_at >= $4)
               AND (s.chat_id IS NULL
                    OR l.request_digest IS NOT NULL AND s.request_digest IS NULL
                    OR l.ending_digest IS NOT NULL AND s.ending_digest IS NULL)
             ORDER BY l.chat_id LIMIT $3"
        )
    }

    /// Keys whose issue is not in the log.
    fn missing_keys_sql(&self) -> String {
        let (live, own) = (self.shadow.live_table(Table::ApiKeys), self.shadow.shadow_table(Table::ApiKeys));
        format!(
            "SELECT l.key_id FROM {live} l LEFT JOIN {own} s USING (key_id)
             WHERE l.key_id > $1 AND ($2::timestamptz IS NULL OR l.issued_at < $2)
               AND ($4::timestamptz IS NULL OR l.issued_at >= $4) AND l.issued_at IS NOT NULL AND s.issued_at IS NULL
             ORDER BY l.key_id LIMIT $3"
        )
    }

    /// Projects whose change is not in the log.
    fn missing_projects_sql(&self) -> String {
        let (live, own) = (self.shadow.live_table(Table::Projects), self.shadow.shadow_table(Table::Projects));
        format!(
            "SELECT l.project_id FROM {live} l LEFT JOIN {own} s USING (project_id)
             WHERE l.project_id > $1 AND ($2::timestamptz IS NULL OR l.changed_at < $2)
               AND ($4::timestamptz IS NULL OR l.changed_at >= $4)
               AND (s.change_id IS NULL OR s.change_id < l.change_id)
             ORDER BY l.project_id LIMIT $3"
        )
    }

    /// Entries whose event is not in the log.
    fn missing_audit_entries_sql(&self) -> String {
        let (live, own) = (self.shadow.live_table(Table::AuditLog), self.shadow.shadow_table(Table::AuditLog));
        format!(
            "SELECT l.audit_id FROM {live} l LEFT JOIN {own} s USING (audit_id)
             WHERE l.audit_id > $1 AND ($2::timestamptz IS NULL OR l.recorded_at < $2)
               AND ($4::timestamptz IS NULL OR l.recorded_at >= $4) AND s.audit_id IS NULL
             ORDER BY l.audit_id LIMIT $3"
        )
    }

    /// Conversations whose opening event is not in the log, or lies before the range that was read.
    fn missing_conversations_sql(&self) -> String {
        let (live, own) =
            (self.shadow.live_table(Table::Conversations), self.shadow.shadow_table(Table::Conversations));
        format!(
            "SELECT l.conversation_id FROM {live} l LEFT JOIN {own} s USING (conversation_id)
             WHERE l.conversation_id > $1 AND ($2::timestamptz IS NULL OR l.created_at < $2)
               AND (s.conversation_id IS NULL AND ($4::timestamptz IS NULL OR l.created_at >= $4)
                    OR s.created_at > l.created_at)
             ORDER BY l.conversation_id LIMIT $3"
        )
    }
}
