//! The tables in PostgreSQL: one file a table, and a batch's way through all of them in one transaction.
//!
//! However many recorders write at once, none waits for another in a circle: every statement touches its rows in key order,
//! and every transaction the tables in one order: chats, conversations, messages, `usage_stats`, `usage_slots`. A row that two
//! recorders would insert at once is inserted by the first; the second waits for it, then joins with what it finds.

pub mod alone;
pub mod chats;
pub mod compare;
mod conversations;
pub mod guesses;
pub mod invite_codes;
mod messages;
pub mod quarantine;
pub mod sessions;
pub mod shadow;
pub mod stream_marks;
mod usage_slots;
mod usage_stats;
pub mod users;
pub mod verifications;

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};
pub(crate) use write::column;

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use shared::event::Event;
use shared::id::{ChatId, ConversationId, MessageId};
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::disposition::Fault;
use crate::projection::chat::Chat;
use crate::projection::conversation::Conversation;
use crate::projection::message::{Message, Position};
use crate::projection::settle::{self, Sums};
use crate::projection::tables::Tables;
use crate::projection::{Changes, project};
use quarantine::Quarantined;

/// The migrations, in the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// What every session starts with. Without the first, a commit that was reported could be lost with the server, after its
/// events have been acknowledged. The timeouts keep a stuck session from holding up all the others.
const SESSION: &str = "SET synchronous_commit = on; \
     SET default_transaction_isolation = 'read committed'; \
     SET lock_timeout = '5s'; \
     SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '60s'";

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that changed something.
    pub applied: usize,
    /// Messages saved, of the asking side.
    pub user_messages: usize,
    /// Messages saved, of the answering side.
    pub assistant_messages: usize,
}

/// The turn of whoever ends the chats of lost gateways.
pub const ORPHANS: i64 = 0x7374_656e_6f01;

/// The turn of whoever looks after the consumer.
pub const WATCHDOG: i64 = 0x7374_656e_6f02;

/// A turn: of all recorders on this database, one at a time has it.
#[derive(Debug)]
pub struct Turn(Transaction<'static, Postgres>);

impl Turn {
    /// Takes it, unless another has it. It is over when the transaction is, however that ends.
    pub async fn take(pool: &PgPool, which: i64) -> Result<Option<Self>, sqlx::Error> {
        let mut tx = pool.begin().await?;
        let is_ours = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, which);
        Ok(is_ours.fetch_one(&mut *tx).await?.then_some(Self(tx)))
    }

    /// The transaction that holds it.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Gives it up, and commits what was written in its transaction.
    pub async fn end(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

/// A pool that connects when it is first used.
pub fn connect(url: &SecretString, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let options = options.application_name("stenograph-recorder");
    let pool =
        PgPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT).after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION).execute(connection).await?;
                Ok(())
            })
        });
    Ok(pool.connect_lazy_with(options))
}

/// A pool for reading on someone's behalf: queries have filters that may or may not be set, so that each is planned for what
/// it asks; and none may take long, because someone waits.
pub fn connect_for_reads(url: &SecretString, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let options = options.application_name("stenograph-api");
    let pool =
        PgPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT).after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
                sqlx::raw_sql("SET statement_timeout = '10s'; SET plan_cache_mode = force_custom_plan; SET jit = off")
                    .execute(connection)
                    .await?;
                Ok(())
            })
        });
    Ok(pool.connect_lazy_with(options))
}

/// Brings the tables to this build's version. Any number may try at once: one does it, the others wait.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    // A migration may take its time, and may have to wait for its turn.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut *connection).await?;
    let migrated = MIGRATIONS.run(&mut *connection).await;
    connection.close().await?;
    migrated
}

/// The migrations that this build needs and the database has not had. Ones that this build does not know are no matter:
/// the old code runs beside the new while a deployment rolls.
pub async fn missing_migrations(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let has_any: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let done = if has_any {
        let done = connection.list_applied_migrations("_sqlx_migrations").await;
        done.map_err(|error| sqlx::Error::Migrate(Box::new(error)))?
    } else {
        Vec::new()
    };
    Ok(MIGRATIONS.iter().map(|ours| ours.version).filter(|v| !done.iter().any(|done| done.version == *v)).collect())
}

/// Writes what a batch of events changes: all of it, or nothing.
pub async fn apply(pool: &PgPool, changes: Changes) -> Result<Applied, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let applied = join(&mut tx, changes).await?;
    tx.commit().await?;
    Ok(applied)
}

/// Joins changes with the rows that are there, inside a transaction.
async fn join(tx: &mut PgConnection, changes: Changes) -> Result<Applied, sqlx::Error> {
    let Changes { chats, conversations, opened } = changes;
    let rows: Vec<_> = chats.values().map(|change| &change.row).collect();
    let inserted = if rows.is_empty() { <_>::default() } else { chats::insert(tx, &rows).await? };
    let there: Vec<_> = chats.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if there.is_empty() { <_>::default() } else { chats::lock(tx, &there).await? };
    expect_all(&there, old.len())?;
    let writes = settle::chats(chats, &old);
    if !writes.update.is_empty() {
        chats::update(tx, &writes.update.iter().collect::<Vec<_>>()).await?;
    }

    let Sums { conversations, mut usage } = Sums::new(conversations, writes.tallies, writes.usage);
    let rows: Vec<_> = conversations.values().filter_map(settle::ConversationChange::row).collect();
    let rows: Vec<_> = rows.iter().collect();
    let inserted = if rows.is_empty() { <_>::default() } else { conversations::insert(tx, &rows).await? };
    let there: Vec<_> = conversations.keys().filter(|id| !inserted.contains(id)).map(|id| id.0).collect();
    let old = if there.is_empty() { <_>::default() } else { conversations::lock(tx, &there).await? };
    expect_all(&there, old.len())?;
    let settled = settle::conversations(conversations, &opened, &old, &mut usage);
    if !settled.update.is_empty() {
        conversations::update(tx, &settled.update.iter().collect::<Vec<_>>()).await?;
    }

    if !writes.delete_messages.is_empty() {
        let ids: Vec<_> = writes.delete_messages.iter().map(|id| id.0).collect();
        messages::delete(tx, &ids).await?;
    }
    if !writes.insert_messages.is_empty() {
        messages::insert(tx, &writes.insert_messages.iter().collect::<Vec<_>>()).await?;
    }
    usage_stats::add(tx, &usage).await?;
    usage_slots::add(tx, &usage).await?;

    let asked = writes.insert_messages.iter().filter(|message| message.position == Position::Asked).count();
    Ok(Applied {
        applied: writes.applied + settled.applied,
        user_messages: asked,
        assistant_messages: writes.insert_messages.len() - asked,
    })
}

/// When the latest comparison of the tables with the log was finished, and how many rows differed.
pub async fn latest_verification(pool: &PgPool) -> Result<Option<(OffsetDateTime, i64)>, sqlx::Error> {
    verifications::latest(&mut *pool.acquire().await?).await
}

/// Puts an event aside.
pub async fn quarantine(pool: &PgPool, event: &Quarantined) -> Result<(), sqlx::Error> {
    quarantine::insert(&mut *pool.acquire().await?, event).await
}

/// Projects an event that was put aside, and takes it out of quarantine, in one transaction. Says whether it was still
/// there: of two that try, one does it.
pub async fn take_back(pool: &PgPool, quarantine_id: Uuid, event: &Event) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let was_there = quarantine::delete(&mut tx, quarantine_id).await?;
    if was_there {
        join(&mut tx, project(std::slice::from_ref(event))).await?;
        tx.commit().await?;
    }
    Ok(was_there)
}

/// Rows of the tables, by key: what is known of some chats and conversations.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Rows of `chats`.
    pub chats: BTreeMap<ChatId, Chat>,
    /// Rows of `messages`.
    pub messages: BTreeMap<MessageId, Message>,
    /// Rows of `conversations`.
    pub conversations: BTreeMap<ConversationId, Conversation>,
}

impl Known {
    /// Without what came after this time.
    pub fn as_of(&mut self, time: OffsetDateTime) {
        for chat in self.chats.values_mut() {
            if chat.ending.as_ref().is_some_and(|ending| ending.finished_at > time) {
                chat.ending = None;
            }
        }
        for conversation in self.conversations.values_mut() {
            conversation.last_message_at = conversation.last_message_at.min(time);
            conversation.deleted_at = conversation.deleted_at.filter(|deleted| *deleted <= time);
        }
    }
}

/// What is known of these chats and conversations; of the chats' conversations too.
pub async fn known(
    connection: &mut PgConnection,
    chats: &[ChatId],
    conversations: &[ConversationId],
) -> Result<Known, sqlx::Error> {
    let messages: Vec<_> = chats.iter().flat_map(|chat| [chat.user_message().0, chat.assistant_message().0]).collect();
    let ids: Vec<_> = chats.iter().map(|chat| chat.0).collect();
    let chats = chats::some(connection, &ids).await?;
    let of_chats = chats.values().map(|chat| chat.conversation_id);
    let ids: BTreeSet<_> = of_chats.chain(conversations.iter().copied()).map(|id| id.0).collect();
    Ok(Known {
        messages: messages::some(connection, &messages).await?,
        conversations: conversations::some(connection, &ids.into_iter().collect::<Vec<_>>()).await?,
        chats,
    })
}

/// Every row of every projected table, as of one moment.
pub async fn read_all(pool: &PgPool) -> Result<Tables, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let connection: &mut PgConnection = &mut tx;
    Ok(Tables {
        chats: chats::all(connection).await?,
        conversations: conversations::all(connection).await?,
        messages: messages::all(connection).await?,
        usage_stats: usage_stats::all(connection).await?,
        usage_slots: usage_slots::all(connection).await?,
    })
}

/// Closes the connections that are not in use. A server that became read-only stays so for the sessions that it has: after a
/// failover the one to write to is found by connecting anew.
pub async fn reconnect(pool: &PgPool) {
    while let Some(connection) = pool.try_acquire() {
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "a connection to the database did not close in good order");
        }
    }
}

/// What kind of trouble an error is.
pub fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(error) => Fault::Sqlstate(error.code().unwrap_or_default().into_owned()),
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Fault::Unencodable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Fault::Unreadable,
        _ => Fault::Unreachable,
    }
}

/// The error in words. PostgreSQL's detail is left out: it repeats the row, and so the text of a chat.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let place = error.constraint().or(error.table()).map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{} {}{place}", error.code().unwrap_or_default(), error.message())
        }
        error => error.to_string(),
    }
}

/// Rows that were in the way of an insert must be there to be locked, unless someone deletes behind our back.
fn expect_all(asked: &[Uuid], found: usize) -> Result<(), sqlx::Error> {
    if asked.len() == found { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
