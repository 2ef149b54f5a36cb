//! `recorder users create`.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use shared::id::UserId;
use shared::token::Role;

use super::{pool, print};
use crate::config::Config;
use crate::store::users::{self, User};

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Make an account, and print its id.
    Create {
        /// The login name.
        #[arg(long)]
        name: String,
        /// May read everyone's record.
        #[arg(long)]
        admin: bool,
        /// Where there is an account of this name, print its id.
        #[arg(long)]
        if_missing: bool,
        /// The id, where it has to be a certain one. A new UUID unless given.
        #[arg(long)]
        id: Option<UserId>,
    },
}

pub(super) async fn run(command: UsersCommand, config: &Config) -> anyhow::Result<()> {
    let UsersCommand::Create { name, admin, if_missing, id } = command;
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        bail!("expected a name of 1 to 255 characters, none of them control characters");
    }
    let user_id = match id {
        Some(id) => id,
        None => uuid::Uuid::now_v7().to_string().parse()?,
    };
    let pool = pool(config)?;
    let account = User { user_id, name, role: admin.then_some(Role::Admin), disabled_at: None };
    if users::create(&pool, &account, shared::event::now()).await.context("the account could not be made")? {
        return print(account.user_id.as_str());
    }
    match users::find(&pool, &account.name).await?.filter(|found| if_missing && found.name == account.name) {
        Some(found) => print(found.user_id.as_str()),
        None => bail!("there is an account with this name or this id already"),
    }
}
