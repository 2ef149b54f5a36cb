//! `recorder users`: creates and changes accounts, for operators with access to the database.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use shared::event::{ANONYMOUS, AuditAction, AuditTargetKind, COMMAND_LINE};
use shared::id::UserId;
use shared::token::Role;
use sqlx::postgres::PgPool;

use super::connect::pool;
use super::output::print;
use crate::accounts::password::PasswordHasher;
use crate::accounts::{self, password_error};
use crate::config::Config;
use crate::store::audit_outbox::{self, Actor};
use crate::store::users::{self, NewUser, User};

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Create an account and print its id.
    Create {
        /// Login name, 1 to 255 characters.
        #[arg(long)]
        name: String,
        /// Let the account read all users' chats.
        #[arg(long)]
        admin: bool,
        /// If an account with this name exists, print its id instead of failing.
        #[arg(long)]
        if_missing: bool,
        /// Id of the account. Default: a new UUID.
        #[arg(long)]
        id: Option<UserId>,
        /// Read the password from standard input. Default: an account without a password.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Let an account read all users' chats, or stop letting it.
    Admin {
        /// Id or login name of the account.
        user: String,
        /// Take the permission away.
        #[arg(long)]
        revoke: bool,
    },
    /// Set a new password, print it, and end all sessions of the account.
    ResetPassword {
        /// Id or login name of the account.
        user: String,
        /// Read the password from standard input instead of generating one.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Disable a user, end the user's sessions, and refuse the user's tokens and API keys. Gateways are told by `recorder serve`.
    Disable {
        /// Id or login name of the account; the id (`<host>|<sub>`) of a user of an external identity provider.
        user: String,
    },
    /// Enable a disabled user again.
    Enable {
        /// Id or login name of the account; the id (`<host>|<sub>`) of a user of an external identity provider.
        user: String,
    },
}

pub(super) async fn run(command: UsersCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    match command {
        UsersCommand::Create { name, admin, if_missing, id, password_stdin } => {
            let password = if password_stdin { Some(password_from_stdin()?) } else { None };
            create(&pool, name, admin.then_some(Role::Admin), if_missing, id, password).await
        }
        UsersCommand::Admin { user, revoke } => {
            let user = find_user(&pool, &user).await?;
            let mut tx = pool.begin().await?;
            users::set_role(&mut tx, &user.user_id, (!revoke).then_some(Role::Admin)).await?;
            let action = if revoke { AuditAction::AdminRevoke } else { AuditAction::AdminGrant };
            let act = Actor::COMMAND_LINE.act(action).on(AuditTargetKind::User, &user.user_id);
            audit_outbox::note(&mut tx, &act, 1).await?;
            tx.commit().await?;
            print(if revoke { "no admin any more" } else { "admin" })
        }
        UsersCommand::ResetPassword { user, password_stdin } => {
            let user = find_user(&pool, &user).await?;
            let password = if password_stdin {
                password_from_stdin()?
            } else {
                URL_SAFE_NO_PAD.encode(rand::random::<[u8; 15]>())
            };
            let hash = PasswordHasher::default().hash(&password).await?;
            let mut tx = pool.begin().await?;
            let act = Actor::COMMAND_LINE.act(AuditAction::PasswordReset);
            accounts::set_password(&mut tx, &user.user_id, None, &hash, &act).await?;
            tx.commit().await?;
            if password_stdin { print("the password was set") } else { print(&password) }
        }
        UsersCommand::Disable { user } => {
            accounts::set_disabled(&pool, &find_user_id(&pool, &user).await?, true, Actor::COMMAND_LINE).await?;
            print("disabled")
        }
        UsersCommand::Enable { user } => {
            accounts::set_disabled(&pool, &find_user_id(&pool, &user).await?, false, Actor::COMMAND_LINE).await?;
            print("enabled")
        }
    }
}

async fn create(
    pool: &PgPool,
    name: String,
    role: Option<Role>,
    if_missing: bool,
    id: Option<UserId>,
    password: Option<String>,
) -> anyhow::Result<()> {
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        bail!("--name is malformed: expected 1 to 255 characters without control characters");
    }
    if id.as_ref().is_some_and(|id| [ANONYMOUS, COMMAND_LINE].contains(&id.as_str())) {
        bail!(
            "--id is reserved: expected an id other than {ANONYMOUS} and {COMMAND_LINE}, which are no users in the record"
        );
    }
    let user_id = match id {
        Some(id) => id,
        None => uuid::Uuid::now_v7().to_string().parse()?,
    };
    let hash = match &password {
        Some(password) => Some(PasswordHasher::default().hash(password).await?),
        None => None,
    };
    let account = NewUser {
        user_id: &user_id,
        name: &name,
        role,
        password_hash: hash.as_deref(),
        invite_id: None,
        created_at: shared::event::now(),
    };
    let mut tx = pool.begin().await?;
    if users::create(&mut tx, &account).await.context("the account could not be created")? {
        let act = Actor::COMMAND_LINE.act(AuditAction::UserCreate).on(AuditTargetKind::User, &user_id);
        audit_outbox::note(&mut tx, &act, 1).await?;
        if role.is_some() {
            let act = Actor::COMMAND_LINE.act(AuditAction::AdminGrant).on(AuditTargetKind::User, &user_id);
            audit_outbox::note(&mut tx, &act, 1).await?;
        }
        tx.commit().await?;
        return print(user_id.as_str());
    }
    drop(tx);
    match users::by_id_or_name(pool, &name).await?.filter(|found| if_missing && found.name == name) {
        Some(found) => print(found.user_id.as_str()),
        None => bail!("an account with this name or this id exists already"),
    }
}

async fn find_user(pool: &PgPool, id_or_name: &str) -> anyhow::Result<User> {
    let user = users::by_id_or_name(pool, id_or_name).await.context("the account could not be looked up")?;
    user.context("there is no account with this id or name: expected one made by `recorder users create`")
}

/// Returns the id of an account, or of a user of an external identity provider, who has no account.
async fn find_user_id(pool: &PgPool, id_or_name: &str) -> anyhow::Result<UserId> {
    match id_or_name.parse::<UserId>() {
        Ok(id) if id.is_external() => Ok(id),
        _ => Ok(find_user(pool, id_or_name).await?.user_id),
    }
}

fn password_from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .context("the password could not be read from standard input")?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    match password_error(&password) {
        Some(error) => bail!("the password is refused: {error}"),
        None => Ok(password),
    }
}
