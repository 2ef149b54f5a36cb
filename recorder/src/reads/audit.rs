//! Queries for the audit log: entries of `audit_log`, and the acts that other tables have, as `limits` has the last change of each scope.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::page::Page;
use crate::cursor::TimeCursor;

/// An act, of any table.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the columns of audit_log, which have comments")]
pub struct AuditRecord {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub actor: String,
    pub action: String,
    pub target_kind: Option<String>,
    pub target_id: Option<String>,
    pub outcome: String,
    pub address: Option<String>,
    pub count: i64,
}

/// The filters and the bounds of a page of the audit log. A filter of `None` matches every act.
#[derive(Clone, Copy, Debug)]
pub struct AuditQuery<'a> {
    /// The user who acted, `cli` or `anonymous`.
    pub actor: Option<&'a str>,
    /// The kind of the act.
    pub action: Option<&'a str>,
    /// The outcome.
    pub outcome: Option<&'a str>,
    /// The id of the thing that the act is about.
    pub target: Option<&'a str>,
    /// The earliest time, inclusive.
    pub since: OffsetDateTime,
    /// The upper bound of the page, exclusive.
    pub before: TimeCursor,
    /// The maximum number of acts on the page.
    pub limit: i64,
}

/// Returns a page of acts, newest first.
///
/// Each table is read in the order of time as far as the page needs. The statement is planned anew for each call, with the filters: a plan for
/// all filters would read whole tables for a seldom actor.
pub async fn page(pool: &PgPool, query: AuditQuery<'_>) -> Result<Page<AuditRecord>, sqlx::Error> {
    let rows = sqlx::query_as!(
        AuditRecord,
        r#"SELECT id AS "id!", at AS "at!", actor AS "actor!", action AS "action!", target_kind, target_id,
                  outcome AS "outcome!", address, count AS "count!"
           FROM (
             (SELECT audit_id AS id, recorded_at AS at, actor, action, target_kind, target_id, outcome, address, count
              FROM audit_log
              WHERE (recorded_at, audit_id) < ($1, $2) AND recorded_at >= $3 AND ($4::text IS NULL OR actor = $4)
                AND ($5::text IS NULL OR action = $5) AND ($6::text IS NULL OR outcome = $6)
                AND ($7::text IS NULL OR target_id = $7)
              ORDER BY recorded_at DESC, audit_id DESC LIMIT $8)
             UNION ALL
             (SELECT key_id AS id, issued_at, issued_by, 'key_issue', 'key', key_id::text AS target_id, 'success', NULL, 1 FROM api_keys
              WHERE issued_at IS NOT NULL AND (issued_at, key_id) < ($1, $2) AND issued_at >= $3
                AND ($4::text IS NULL OR issued_by = $4) AND ($5::text IS NULL OR $5 = 'key_issue')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR key_id::text = $7)
              ORDER BY api_keys.issued_at DESC, api_keys.key_id DESC LIMIT $8)
             UNION ALL
             (SELECT key_id AS id, changed_at, changed_by, 'key_change', 'key', key_id::text AS target_id, 'success', NULL, 1 FROM api_keys
              WHERE changed_at IS NOT NULL AND (changed_at, key_id) < ($1, $2) AND changed_at >= $3
                AND changed_at IS DISTINCT FROM issued_at
                AND ($4::text IS NULL OR changed_by = $4) AND ($5::text IS NULL OR $5 = 'key_change')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR key_id::text = $7)
              ORDER BY api_keys.changed_at DESC, api_keys.key_id DESC LIMIT $8)
             UNION ALL
             (SELECT key_id AS id, revoked_at, revoked_by, 'key_revoke', 'key', key_id::text AS target_id, 'success', NULL, 1 FROM api_keys
              WHERE revoked_at IS NOT NULL AND (revoked_at, key_id) < ($1, $2) AND revoked_at >= $3
                AND ($4::text IS NULL OR revoked_by = $4) AND ($5::text IS NULL OR $5 = 'key_revoke')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR key_id::text = $7)
              ORDER BY api_keys.revoked_at DESC, api_keys.key_id DESC LIMIT $8)
             UNION ALL
             (SELECT change_id, changed_at, changed_by, 'limits_change', 'scope', scope, 'success', NULL, 1 FROM limits
              WHERE (changed_at, change_id) < ($1, $2) AND changed_at >= $3
                AND ($4::text IS NULL OR changed_by = $4) AND ($5::text IS NULL OR $5 = 'limits_change')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR scope = $7)
              ORDER BY changed_at DESC, change_id DESC LIMIT $8)
             UNION ALL
             (SELECT change_id, changed_at, changed_by, 'project_change', 'project', project_id::text AS target_id, 'success', NULL, 1
              FROM projects
              WHERE (changed_at, change_id) < ($1, $2) AND changed_at >= $3
                AND ($4::text IS NULL OR changed_by = $4) AND ($5::text IS NULL OR $5 = 'project_change')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR project_id::text = $7)
              ORDER BY changed_at DESC, change_id DESC LIMIT $8)
             UNION ALL
             (SELECT change_id, published_at, published_by, 'prices_publish', 'layer', layer, 'success', NULL, 1
              FROM price_lists
              WHERE (published_at, change_id) < ($1, $2) AND published_at >= $3
                AND ($4::text IS NULL OR published_by = $4) AND ($5::text IS NULL OR $5 = 'prices_publish')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR layer = $7)
              ORDER BY published_at DESC, change_id DESC LIMIT $8)
             UNION ALL
             (SELECT change_id, repriced_at, repriced_by, 'costs_reprice', NULL, NULL, 'success', NULL, 1 FROM repricings
              WHERE (repriced_at, change_id) < ($1, $2) AND repriced_at >= $3
                AND ($4::text IS NULL OR repriced_by = $4) AND ($5::text IS NULL OR $5 = 'costs_reprice')
                AND ($6::text IS NULL OR $6 = 'success') AND $7::text IS NULL
              ORDER BY repriced_at DESC, change_id DESC LIMIT $8)
             UNION ALL
             (SELECT conversation_id AS id, deleted_at, user_id, 'conversation_delete', 'conversation', conversation_id::text AS target_id,
                     'success', NULL, 1
              FROM conversations
              WHERE deleted_at IS NOT NULL AND (deleted_at, conversation_id) < ($1, $2) AND deleted_at >= $3
                AND ($4::text IS NULL OR user_id = $4) AND ($5::text IS NULL OR $5 = 'conversation_delete')
                AND ($6::text IS NULL OR $6 = 'success') AND ($7::text IS NULL OR conversation_id::text = $7)
              ORDER BY conversations.deleted_at DESC, conversations.conversation_id DESC LIMIT $8)
           ) acts ORDER BY at DESC, id DESC LIMIT $8"#,
        query.before.at,
        query.before.id,
        query.since,
        query.actor,
        query.action,
        query.outcome,
        query.target,
        query.limit + 1
    );
    let mut tx = pool.begin().await?;
    sqlx::raw_sql("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    let rows = rows.fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    Ok(Page::from_rows(rows, query.limit, None, |row| TimeCursor { at: row.at, id: row.id }))
}
