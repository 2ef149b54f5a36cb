//! `recorder api-keys`: issues, lists and revokes API keys, for operators with access to the database, the broker and the signing key.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use shared::event::{KeySettings, Operation, RecordingMode};
use shared::id::ProjectId;
use shared::nats::BrokerRole;
use shared::token::TokenSigner;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::connect::pool;

use super::output::print;
use crate::access::bucket::AccessBucket;
use crate::access::keys::AccessKeys;
use crate::access::projects::AccessProjects;
use crate::accounts::signing_key;
use crate::config::Config;
use crate::source;
use crate::store::api_keys;
use crate::store::users;

/// The author of acts of the command line, in events.
const AUTHOR: &str = "cli";
/// The number of keys read per query.
const PAGE_ROWS: i64 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeysCommand {
    /// Issue a key and print it; the key is shown only now.
    Create {
        /// Id or login name of the owner.
        #[arg(long)]
        user: String,
        /// Name of the key, at most 100 characters.
        #[arg(long)]
        name: String,
        /// Lifetime of the key, such as 90d. Without it, the key never expires.
        #[arg(long, value_parser = humantime::parse_duration)]
        expires: Option<std::time::Duration>,
        /// Model or pattern such as gpt-* that the key may use; may be given several times. Without it, all models.
        #[arg(long = "model")]
        models: Vec<String>,
        /// Kind of calls that the key may make, such as chat; may be given several times. Without it, all kinds.
        #[arg(long = "operation", value_parser = operation)]
        operations: Vec<Operation>,
        /// The most that events keep of calls with the key: full, metadata or none. Without it, full.
        #[arg(long, default_value = "full", value_parser = recording)]
        recording: RecordingMode,
        /// Id of the project to which the use of the key counts; the owner has to be a member. Without it, none.
        #[arg(long)]
        project: Option<ProjectId>,
    },
    /// Print a user's keys, newest first: id, expiry, state, last use, name.
    List {
        /// Id or login name of the owner.
        #[arg(long)]
        user: String,
    },
    /// Revoke a key for ever.
    Revoke {
        /// Id of the key, as printed by `list`.
        id: Uuid,
    },
}

pub(super) async fn run(command: ApiKeysCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    match command {
        ApiKeysCommand::Create { user, name, expires, models, operations, recording, project } => {
            let file = config.signing_key_file()?;
            let pem = std::fs::read_to_string(file)
                .with_context(|| format!("RECORDER_SIGNING_KEY_FILE: {} cannot be read", file.display()))?;
            let kid = signing_key::public_key(&pem).context("RECORDER_SIGNING_KEY_FILE")?.kid;
            let signer = TokenSigner::from_pem(&kid, &pem)?;
            let owner = find_user(&pool, &user).await?;
            let expires = expires.map(|expires| {
                let expires = time::Duration::try_from(expires).ok();
                expires.and_then(|expires| shared::event::now().checked_add(expires)).context("--expires is too long")
            });
            let settings = KeySettings { name, models, operations, expires_at: expires.transpose()?, recording };
            let bucket = bucket(config).await?;
            let project = match project {
                Some(id) => {
                    let projects = AccessProjects::new(pool.clone(), Arc::clone(&bucket));
                    Some(projects.for_key_of(&owner.user_id, id).await?)
                }
                None => None,
            };
            let keys = AccessKeys::new(pool, bucket);
            let issued = keys.issue((&owner.user_id, project), AUTHOR, settings).await?;
            print(&signer.sign_api_key(issued.key_id, &owner.user_id)?)
        }
        ApiKeysCommand::List { user } => {
            let owner = find_user(&pool, &user).await?;
            let mut before = Uuid::max();
            loop {
                let page = api_keys::of_user(&pool, owner.user_id.as_str(), before, PAGE_ROWS).await?;
                let Some(last) = page.last() else { return Ok(()) };
                before = last.state.key_id.0;
                for key in page {
                    print(&line(&key)?)?;
                }
            }
        }
        ApiKeysCommand::Revoke { id } => {
            let keys = AccessKeys::new(pool, bucket(config).await?);
            let Some(key) = keys.find(id).await? else { bail!("there is no key with this id") };
            keys.revoke(&key, AUTHOR).await?;
            print("revoked")
        }
    }
}

fn line(key: &api_keys::UsedKey) -> anyhow::Result<String> {
    let settings = key.state.settings.as_ref().map(|now| &now.settings);
    let expires_at = settings.and_then(|settings| settings.expires_at);
    let is_expired = expires_at.is_some_and(|at| at <= shared::event::now());
    let state = match (&key.state.revoked, is_expired) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "good",
    };
    let time = |at: Option<time::OffsetDateTime>| at.map_or(Ok("-".to_owned()), |at| at.format(&Rfc3339));
    let name = settings.map_or("", |settings| settings.name.as_str());
    Ok([&key.state.key_id.to_string(), &time(expires_at)?, state, &time(key.last_used_at)?, name].join("\t"))
}

async fn bucket(config: &Config) -> anyhow::Result<Arc<AccessBucket>> {
    let client = source::connect_now(config.broker()?, BrokerRole::Serve).await?;
    Ok(Arc::new(AccessBucket::new(client)))
}

async fn find_user(pool: &sqlx::PgPool, id_or_name: &str) -> anyhow::Result<users::User> {
    let user = users::by_id_or_name(pool, id_or_name).await.context("the account could not be looked up")?;
    user.context("there is no account with this id or name: expected one made by `recorder users create`")
}

fn operation(text: &str) -> anyhow::Result<Operation> {
    serde_json::from_value(text.into()).context("expected a word of 1 to 32 lower-case letters, digits and underscores")
}

fn recording(text: &str) -> anyhow::Result<RecordingMode> {
    let mode = text.parse().ok().filter(|mode| !matches!(mode, RecordingMode::Other(_)));
    mode.context("expected full, metadata or none")
}
