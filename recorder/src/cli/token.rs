//! `recorder token`: signs and prints a session token for an existing account.

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use shared::event::{AuditAction, AuditTargetKind};
use shared::token::{Claims, ISSUER, TokenSigner};
use time::OffsetDateTime;

use super::connect::pool;

use super::output::print;
use crate::accounts::signing_key;
use crate::config::Config;
use crate::store::audit_outbox::{self, Actor};
use crate::store::users;

#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    /// Id or login name of the account.
    #[arg(long)]
    user: String,
    /// Lifetime of the token, such as 30d or 12h. A negative lifetime (`--ttl=-1h`) gives an expired token.
    #[arg(long, default_value = "30d", allow_hyphen_values = true, value_parser = seconds)]
    ttl: i64,
}

pub(super) async fn run(arguments: &TokenArguments, config: &Config) -> anyhow::Result<()> {
    let file = config.signing_key_file()?;
    let pem = std::fs::read_to_string(file)
        .with_context(|| format!("RECORDER_SIGNING_KEY_FILE: {} cannot be read", file.display()))?;
    let key = signing_key::public_key(&pem).context("RECORDER_SIGNING_KEY_FILE")?;
    let pool = pool(config)?;
    let user = users::by_id_or_name(&pool, &arguments.user).await.context("the account could not be looked up")?;
    let Some(user) = user else {
        bail!("there is no account with this id or name: expected one made by `recorder users create`")
    };
    if user.disabled_at.is_some() {
        bail!("the account is disabled");
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let exp = now.saturating_add(arguments.ttl);
    let claims =
        Claims { iss: ISSUER.to_owned(), sub: user.user_id, iat: now.min(exp), exp, role: user.role, sid: None };
    let act = Actor::COMMAND_LINE.act(AuditAction::TokenIssue).on(AuditTargetKind::User, &claims.sub);
    audit_outbox::note(&mut *pool.acquire().await?, &act, 1).await.context("the audit log could not be written")?;
    print(&TokenSigner::from_pem(&key.kid, &pem)?.sign(&claims)?)
}

fn seconds(text: &str) -> anyhow::Result<i64> {
    let (sign, duration) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let duration = humantime::parse_duration(duration)?;
    i64::try_from(duration.as_secs()).map(|seconds| sign * seconds).map_err(|_| anyhow!("the time is too long"))
}
