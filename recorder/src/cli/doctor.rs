//! `recorder doctor`: examines a deployment and prints a line for each finding.

use clap::Args;

use super::output::print;
use crate::config::Config;
use crate::doctor::finding::Level;
use crate::doctor::{Deployment, examine};

/// The arguments of `recorder doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Base URL of a gateway's health listener, such as http://127.0.0.1:8090. Can be repeated.
    #[arg(long = "gateway", value_name = "URL")]
    gateways: Vec<String>,
}

/// The error if something is wrong. The findings have been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the findings are wrong")]
pub(super) struct SomethingIsWrong(usize);

/// Prints the findings in the order of the examination.
pub(super) async fn run(arguments: DoctorArguments, config: &Config) -> anyhow::Result<()> {
    let deployment = Deployment {
        broker: config.broker().ok().cloned(),
        database: config.database_url().cloned().map_err(|error| error.to_string()),
        signing_key: config.signing_key_file().ok().cloned(),
        public_keys: config.token_keys_file.clone(),
        gateways: arguments.gateways,
    };
    let findings = examine(&deployment).await;
    for finding in &findings {
        print(&finding.to_string())?;
    }
    match findings.iter().filter(|finding| finding.level == Level::Wrong).count() {
        0 => Ok(()),
        wrong => Err(SomethingIsWrong(wrong).into()),
    }
}
