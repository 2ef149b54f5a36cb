//! `recorder invites`: creates, lists and revokes invite codes, with which people register accounts.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use shared::event::{AuditAction, AuditTargetKind};
use shared::token::Role;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::connect::pool;
use super::output::print;
use crate::accounts::InviteCode;
use crate::config::Config;
use crate::cursor::TimeCursor;
use crate::store::audit_outbox::{self, Actor};
use crate::store::invite_codes::{self, Invite};

/// The number of invites read per query.
const PAGE_ROWS: i64 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum InvitesCommand {
    /// Create an invite and print its code, which is shown only now.
    Create {
        /// Number of accounts that may be registered with the code.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        max_uses: i32,
        /// Lifetime of the invite, such as 7d or 12h.
        #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
        expires: std::time::Duration,
        /// Note for the list, at most 200 characters.
        #[arg(long)]
        note: Option<String>,
        /// Let accounts registered with the code read all users' chats.
        #[arg(long)]
        admin: bool,
    },
    /// Print all invites, newest first: id, uses, expiry, state, note.
    List,
    /// Revoke an invite, so that no more accounts can be registered with it.
    Revoke {
        /// Id of the invite, as printed by `list`.
        id: Uuid,
    },
}

pub(super) async fn run(command: InvitesCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    let now = shared::event::now();
    match command {
        InvitesCommand::Create { max_uses, expires, note, admin } => {
            if note.as_ref().is_some_and(|note| note.chars().count() > 200) {
                bail!("--note is too long: expected at most 200 characters");
            }
            let expires = time::Duration::try_from(expires).ok().and_then(|expires| now.checked_add(expires));
            let expires_at = expires
                .filter(|at| at.year() < 9999)
                .context("--expires is too long: expected an expiry before the year 9999")?;
            let code = InviteCode::new();
            let invite = Invite {
                invite_id: Uuid::now_v7(),
                note,
                role: admin.then_some(Role::Admin),
                created_by: None,
                created_at: now,
                expires_at,
                max_uses,
                uses: 0,
                revoked_at: None,
            };
            let act = Actor::COMMAND_LINE.act(AuditAction::InviteCreate).on(AuditTargetKind::Invite, &invite.invite_id);
            let mut tx = pool.begin().await.context("the invite could not be created")?;
            let created = invite_codes::create(&mut tx, &invite, &code.hash()).await;
            created.context("the invite could not be created")?;
            audit_outbox::note(&mut tx, &act, 1).await?;
            tx.commit().await?;
            print(code.as_str())
        }
        InvitesCommand::List => {
            let mut before = TimeCursor::newest();
            loop {
                let page = invite_codes::page(&pool, before, PAGE_ROWS).await.context("invites could not be read")?;
                for invite in &page {
                    print(&line(invite, now)?)?;
                }
                let Some(last) = page.last() else { return Ok(()) };
                before = TimeCursor { at: last.created_at, id: last.invite_id };
            }
        }
        InvitesCommand::Revoke { id } => {
            let mut tx = pool.begin().await.context("the invite could not be revoked")?;
            if !invite_codes::revoke(&mut tx, id, now).await.context("the invite could not be revoked")? {
                bail!("there is no invite with this id");
            }
            let act = Actor::COMMAND_LINE.act(AuditAction::InviteRevoke).on(AuditTargetKind::Invite, &id);
            audit_outbox::note(&mut tx, &act, 1).await?;
            tx.commit().await?;
            print("revoked")
        }
    }
}

fn line(invite: &Invite, now: time::OffsetDateTime) -> anyhow::Result<String> {
    let state = match invite {
        Invite { revoked_at: Some(_), .. } => "revoked",
        Invite { uses, max_uses, .. } if uses == max_uses => "used up",
        Invite { expires_at, .. } if *expires_at <= now => "expired",
        Invite { .. } => "good",
    };
    let role = if invite.role.is_some() { "\tadmin" } else { "" };
    let note = invite.note.as_deref().unwrap_or("");
    let expires = invite.expires_at.format(&Rfc3339)?;
    Ok(format!("{}\t{}/{}\t{expires}\t{state}\t{note}{role}", invite.invite_id, invite.uses, invite.max_uses))
}
