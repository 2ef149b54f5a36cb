//! `recorder quarantine list | show | retry | drop`: events that could not be projected.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;
use shared::envelope;
use shared::event::{AuditAction, AuditOutcome, AuditTargetKind};
use shared::large_body::{self, BodyReference};
use shared::nats::BrokerRole;
use sqlx::PgPool;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::connect::pool;
use super::output::print;
use crate::config::Config;
use crate::policy::disposition::Disposition;
use crate::projection::sql_enum::SqlEnum as _;
use crate::source;
use crate::source::bodies::{BodyFetcher, FetchError};
use crate::source::delivery::decode_event;
use crate::store::audit_outbox::{self, Act, Actor};
use crate::store::quarantine::{self, QuarantineEntry, QuarantineReason, QuarantineSummary};
use crate::store::{self};

/// The number of entries read per query by `retry --all`.
const PAGE_ROWS: u16 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List the events in quarantine, oldest first.
    List {
        /// Maximum number of events to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// List only events after this id, for the next page.
        #[arg(long)]
        after: Option<Uuid>,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show an event: subject, headers and the reason for the quarantine.
    Show {
        /// Id of the event, as printed by `list`.
        id: Uuid,
        /// Print one JSON object, with the payload in base64.
        #[arg(long, conflicts_with = "payload")]
        json: bool,
        /// Print only the payload, byte for byte, which may hold the text of a chat.
        #[arg(long)]
        payload: bool,
    },
    /// Project events again and take projected events out of quarantine. Fails if an event has to stay.
    Retry(Selection),
    /// Delete events from quarantine for good: the tables never get the events, the stream keeps them as long as its
    /// limits allow.
    Drop {
        /// Ids of the events, as printed by `list`.
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Selection {
    /// Ids of the events, as printed by `list`.
    ids: Vec<Uuid>,
    /// Retry all events in quarantine.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(command: QuarantineCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    match command {
        QuarantineCommand::List { limit, after, json } => list(&pool, limit, after, json).await,
        QuarantineCommand::Show { id, json, payload } => {
            let entry = quarantine::by_id(&pool, id).await?.with_context(|| format!("{id} is not in quarantine"))?;
            if json || payload {
                // Both print the payload, which may hold the text of a chat.
                let act = Actor::COMMAND_LINE.act(AuditAction::QuarantineRead).on(AuditTargetKind::Quarantine, &id);
                audit_outbox::note(&mut *pool.acquire().await?, &act, 1).await?;
            }
            match (json, payload) {
                (_, true) => {
                    std::io::stdout().write_all(&entry.event.payload).context("standard output could not be written")
                }
                (true, _) => print(&to_json(&entry).to_string()),
                (false, false) => print(&to_text(&entry)),
            }
        }
        QuarantineCommand::Retry(Selection { ids, all: false }) => retry(&pool, config, &ids).await?.report(),
        QuarantineCommand::Retry(Selection { all: true, .. }) => retry_all(&pool, config).await?.report(),
        QuarantineCommand::Drop { ids } => {
            for id in ids {
                let act = Actor::COMMAND_LINE.act(AuditAction::QuarantineDrop).on(AuditTargetKind::Quarantine, &id);
                if !quarantine::discard(&pool, id, &act).await? {
                    bail!("{id} is not in quarantine");
                }
                print(&format!("{id} dropped"))?;
            }
            Ok(())
        }
    }
}

async fn list(pool: &PgPool, limit: u16, after: Option<Uuid>, json: bool) -> anyhow::Result<()> {
    let lines = quarantine::list(pool, after, limit).await?;
    for line in &lines {
        let QuarantineSummary { quarantine_id, quarantined_at, subject, reason, detail, bytes } = line;
        let at = format_time(*quarantined_at);
        if json {
            let line = json!({
                "id": quarantine_id, "quarantinedAt": at, "subject": subject, "reason": reason, "detail": detail,
                "payloadBytes": bytes,
            });
            print(&line.to_string())?;
        } else {
            print(&format!("{quarantine_id}  {at}  {reason}  {subject}  {bytes} bytes  {detail}"))?;
        }
    }
    if !json {
        let all = quarantine::count(pool).await?;
        let more = match lines.last() {
            Some(last) if lines.len() == usize::from(limit) => format!("; the next: --after {}", last.quarantine_id),
            _ => String::new(),
        };
        print(&format!("{} shown, {all} in quarantine{more}", lines.len()))?;
    }
    Ok(())
}

/// The result of `retry`.
#[derive(Clone, Copy, Debug, Default)]
struct RetryCounts {
    projected: usize,
    kept: usize,
    last_kept: Option<Uuid>,
}

/// Retries every entry once. A projected entry leaves the list, so the next page begins after the last kept entry.
async fn retry_all(pool: &PgPool, config: &Config) -> anyhow::Result<RetryCounts> {
    let mut retried = RetryCounts::default();
    loop {
        let lines = quarantine::list(pool, retried.last_kept, PAGE_ROWS).await?;
        if lines.is_empty() {
            return Ok(retried);
        }
        for line in lines {
            retried.retry_one(pool, config, line.quarantine_id).await?;
        }
    }
}

async fn retry(pool: &PgPool, config: &Config, ids: &[Uuid]) -> anyhow::Result<RetryCounts> {
    let mut retried = RetryCounts::default();
    for id in ids {
        if !retried.retry_one(pool, config, *id).await? {
            bail!("{id} is not in quarantine");
        }
    }
    Ok(retried)
}

/// Projects an entry again. Returns the reason if the event has to stay; an unavailable database or broker is an error
/// instead, and no reason to stay.
async fn project_again(
    pool: &PgPool,
    config: &Config,
    entry: &QuarantineEntry,
) -> anyhow::Result<Result<(), (QuarantineReason, String)>> {
    let kind = entry.event.header(envelope::TYPE);
    let mut payload = entry.event.payload.clone();
    let headers: BTreeMap<&'static str, String> = [large_body::OBJECT, large_body::SHA256, large_body::SIZE]
        .into_iter()
        .filter_map(|name| Some((name, entry.event.header(name)?)))
        .collect();
    if payload.is_empty()
        && let Ok(Some(reference)) = BodyReference::from_headers(|name| headers.get(name).map(String::as_str))
    {
        let client = source::connect_now(config.broker()?, BrokerRole::Operator).await?;
        match BodyFetcher::new(client).fetch(&reference).await {
            Ok(body) => payload = body,
            Err(error @ FetchError::Unavailable(_)) => bail!(error),
            Err(error) => return Ok(Err((QuarantineReason::Undecodable, error.to_string()))),
        }
    }
    let event = match decode_event(kind.as_deref(), &payload) {
        Ok(event) => event,
        Err(error) => return Ok(Err((QuarantineReason::Undecodable, error.to_string()))),
    };
    match store::project_quarantined(pool, entry.quarantine_id, &event, &retry_of(entry.quarantine_id)).await {
        Ok(_) => Ok(Ok(())),
        Err(error) if Disposition::for_fault(&store::classify(&error), 1) == Disposition::Quarantine => {
            Ok(Err((QuarantineReason::RefusedByDatabase, store::describe(&error))))
        }
        Err(error) => bail!("the database could not be written: {}", store::describe(&error)),
    }
}

/// The retry of an event, for the audit log.
fn retry_of(id: Uuid) -> Act {
    Actor::COMMAND_LINE.act(AuditAction::QuarantineRetry).on(AuditTargetKind::Quarantine, &id)
}

// === impl RetryCounts ===

impl RetryCounts {
    /// Retries one entry and prints the result. Returns false if there is no entry with this id.
    async fn retry_one(&mut self, pool: &PgPool, config: &Config, id: Uuid) -> anyhow::Result<bool> {
        let Some(entry) = quarantine::by_id(pool, id).await? else { return Ok(false) };
        match project_again(pool, config, &entry).await? {
            Ok(()) => {
                self.projected += 1;
                print(&format!("{id} projected"))?;
            }
            Err((reason, detail)) => {
                quarantine::update_reason(pool, id, reason, &detail).await?;
                let act = retry_of(id).with(AuditOutcome::Failure);
                audit_outbox::note(&mut *pool.acquire().await?, &act, 1).await?;
                self.kept += 1;
                self.last_kept = Some(id);
                print(&format!("{id} stays: {detail}"))?;
            }
        }
        Ok(true)
    }

    fn report(self) -> anyhow::Result<()> {
        print(&format!("{} projected", self.projected))?;
        if self.kept > 0 {
            bail!("{} events had to stay in quarantine", self.kept);
        }
        Ok(())
    }
}

fn to_json(entry: &QuarantineEntry) -> serde_json::Value {
    let event = &entry.event;
    let headers: serde_json::Value = serde_json::from_str(&event.headers).unwrap_or_default();
    json!({
        "id": entry.quarantine_id,
        "quarantinedAt": format_time(entry.quarantined_at),
        "reason": event.reason.as_sql(),
        "detail": event.detail,
        "subject": event.subject,
        "streamSequence": event.stream_sequence,
        "publishedAt": format_time(event.published_at),
        "headers": headers,
        "payloadBytes": event.payload.len(),
        "payloadBase64": STANDARD.encode(&event.payload),
    })
}

fn to_text(entry: &QuarantineEntry) -> String {
    let event = &entry.event;
    let headers: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&event.headers).unwrap_or_default();
    let mut lines = vec![
        format!("id              {}", entry.quarantine_id),
        format!("quarantined at  {}", format_time(entry.quarantined_at)),
        format!("reason          {}", event.reason.as_sql()),
        format!("detail          {}", event.detail),
        format!("subject         {}", event.subject),
        format!("sequence        {} (when first seen)", event.stream_sequence),
        format!("published at    {}", format_time(event.published_at)),
        format!("payload         {} bytes (--payload prints them)", event.payload.len()),
    ];
    lines.extend(headers.iter().map(|(name, values)| format!("header          {name}: {values}")));
    lines.join("\n")
}

fn format_time(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
