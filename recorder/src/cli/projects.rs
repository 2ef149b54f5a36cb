//! `recorder projects`: lists, creates and changes projects, for operators with access to the database and the broker.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use shared::access::ProjectState;
use shared::event::ProjectSettings;
use shared::id::{ProjectId, UserId};
use shared::nats::BrokerRole;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::connect::pool;
use super::output::print;
use crate::access::bucket::AccessBucket;
use crate::access::projects::AccessProjects;
use crate::config::Config;
use crate::source;
use crate::store::{projects, users};

/// The author of changes of the command line, in events.
const AUTHOR: &str = "cli";
/// The number of rows read per query.
const PAGE_ROWS: i64 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum ProjectsCommand {
    /// Print the projects in the order of their creation: id, state, time and author of the last change, number of members, name.
    List,
    /// Print the ids of a project's members.
    Members {
        /// Id of the project, as printed by `list`.
        id: ProjectId,
    },
    /// Create a project and print its id.
    Create {
        /// Name of the project, at most 100 characters.
        name: String,
        /// Id or login name of a member; may be given several times.
        #[arg(long = "member")]
        members: Vec<String>,
    },
    /// Change a project. What is not given stays.
    Change {
        /// Id of the project, as printed by `list`.
        id: ProjectId,
        #[command(flatten)]
        change: ProjectChange,
    },
}

/// The changes of `change`; at least one.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct ProjectChange {
    /// New name.
    #[arg(long)]
    name: Option<String>,
    /// Id or login name of a new member; may be given several times.
    #[arg(long = "add")]
    added: Vec<String>,
    /// Id or login name of a user who is no member any more, so that the user's keys of the project are refused; may be given several
    /// times.
    #[arg(long = "remove")]
    removed: Vec<String>,
    /// Refuse all keys of the project.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Accept the keys of the project again.
    #[arg(long)]
    enable: bool,
}

pub(super) async fn run(command: ProjectsCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    let author: UserId = AUTHOR.parse()?;
    match command {
        ProjectsCommand::List => {
            let mut after = Uuid::nil();
            loop {
                let page = projects::page(&pool, after, PAGE_ROWS).await.context("the projects could not be read")?;
                let Some(last) = page.last() else { return Ok(()) };
                after = last.project_id.0;
                for state in page {
                    print(&line(&state)?)?;
                }
            }
        }
        ProjectsCommand::Members { id } => {
            let found = projects::by_ids(&mut *pool.acquire().await?, &[id.0]).await?.remove(&id);
            for member in found.context("there is no project with this id")?.settings.members {
                print(member.as_str())?;
            }
            Ok(())
        }
        ProjectsCommand::Create { name, members } => {
            let members = find_users(&pool, &members).await?.into_iter().collect();
            let settings = ProjectSettings { name, members, is_disabled: false };
            let created = connect(config, pool).await?.create(&author, settings).await?;
            print(&created.project_id.to_string())
        }
        ProjectsCommand::Change { id, change } => {
            let (added, removed) = (find_users(&pool, &change.added).await?, find_users(&pool, &change.removed).await?);
            let projects = connect(config, pool).await?;
            let changed = projects.change(id, &author, |settings| {
                if let Some(name) = change.name {
                    settings.name = name;
                }
                settings.members.extend(added);
                settings.members.retain(|member| !removed.contains(member));
                settings.is_disabled = !change.enable && (change.disable || settings.is_disabled);
            });
            changed.await?.context("there is no project with this id")?;
            print("changed")
        }
    }
}

/// Finds users by id or login name. An unknown text is taken as the id of a user of an external identity provider if it looks like one.
async fn find_users(pool: &sqlx::PgPool, texts: &[String]) -> anyhow::Result<Vec<UserId>> {
    let mut found = Vec::new();
    for text in texts {
        let user = users::by_id_or_name(pool, text).await.context("the account could not be looked up")?;
        let external = || text.contains('|').then(|| text.parse().ok()).flatten();
        let id = user.map(|user| user.user_id).or_else(external);
        found.push(id.with_context(|| {
            format!("{text}: expected the id or the name of an account, or the id of a user of an external identity provider")
        })?);
    }
    Ok(found)
}

fn line(state: &ProjectState) -> anyhow::Result<String> {
    let settings = &state.settings;
    let is = if settings.is_disabled { "disabled" } else { "good" };
    let members = settings.members.len().to_string();
    let id = state.project_id.to_string();
    Ok([&id, is, &state.changed.at.format(&Rfc3339)?, &state.changed.by, &members, &settings.name].join("\t"))
}

async fn connect(config: &Config, pool: sqlx::PgPool) -> anyhow::Result<AccessProjects> {
    let client = source::connect_now(config.broker()?, BrokerRole::Serve).await?;
    Ok(AccessProjects::new(pool, Arc::new(AccessBucket::new(client))))
}
