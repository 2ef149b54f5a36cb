//! PostgreSQL of a deployment.

use anyhow::Context as _;
use harness::program;
use harness::servers::cluster::{Cluster, Lifetime, NAME, READY, data_version};
use harness::servers::postgres_user::PostgresUser;

use crate::directory::Directory;
use crate::environment::PassedOn;
use crate::process::{self, Launch};
use crate::service::Service;
use crate::{output, readiness, secrets};

/// Starts PostgreSQL on this port, on a new cluster if there is none, and returns the URL of the deployment's database.
pub(crate) async fn start(directory: &Directory, port: u16) -> anyhow::Result<String> {
    let cluster = cluster(directory).await?;
    output::step("starting PostgreSQL");
    let launch = Launch { command: cluster.server(port, &[]), passed_on: PassedOn::default(), variables: Vec::new() };
    process::start(directory, Service::Postgres, launch)?;
    readiness::until_logged(directory, Service::Postgres, READY).await?;
    cluster.create_database(port, NAME).await.context("cannot create the database")
}

/// Returns the initialised cluster. Existing data fixes the major version of the programs and the system user.
async fn cluster(directory: &Directory) -> anyhow::Result<Cluster> {
    let data = directory.data().join("postgres");
    let password = secrets::read_or_make(&directory.keys().join("postgres-password"), || secrets::random(24))?;
    if let Some(version) = data_version(&data) {
        let (bin, owner) = (program::postgres(Some(version))?, PostgresUser::of(&data)?);
        return Ok(Cluster { bin, data, owner, password });
    }
    // An interrupted start may have left a part of a cluster.
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    output::step("initialising a PostgreSQL database");
    let cluster = Cluster { bin: program::postgres(None)?, data, owner: PostgresUser::choose()?, password };
    let initialised = cluster.clone();
    tokio::task::spawn_blocking(move || initialised.initialise(Lifetime::Lasting)).await??;
    Ok(cluster)
}
