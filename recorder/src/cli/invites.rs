//! `recorder invites`: codes with which people make themselves an account.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use shared::token::Role;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::connect::pool;
use super::output::print;
use crate::accounts::InviteCode;
use crate::config::Config;
use crate::cursor::TimeCursor;
use crate::store::invite_codes::{self, Invite};

/// How many are read at once.
const PAGE_ROWS: i64 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum InvitesCommand {
    /// Make an invite, and print its code, which is kept nowhere.
    Create {
        /// How many accounts may be made with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        max_uses: i32,
        /// How long it is good.
        #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
        expires: std::time::Duration,
        /// What it is for.
        #[arg(long)]
        note: Option<String>,
        /// The accounts made with it read everyone's record.
        #[arg(long)]
        admin: bool,
    },
    /// Print every invite, newest first: id, uses, when it expires, state, note.
    List,
    /// Make an invite good for nothing.
    Revoke {
        /// Its id, as `list` prints it.
        id: Uuid,
    },
}

pub(super) async fn run(command: InvitesCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    let now = shared::event::now();
    match command {
        InvitesCommand::Create { max_uses, expires, note, admin } => {
            if note.as_ref().is_some_and(|note| note.chars().count() > 200) {
                bail!("expected a note of at most 200 characters");
            }
            let expires = time::Duration::try_from(expires).ok().and_then(|expires| now.checked_add(expires));
            let expires_at = expires.filter(|at| at.year() < 9999).context("expected an earlier expiry")?;
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
            let created = invite_codes::create(&pool, &invite, &code.hash()).await;
            created.context("the invite could not be made")?;
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
            if !invite_codes::revoke(&pool, id, now).await.context("the invite could not be revoked")? {
                bail!("there is no invite with this id");
            }
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
