//! The examination of a deployment: what is wrong with the broker, the database, the keys and the gateways, and what to do.
//!
//! Nothing is changed, and each check has a limit of time. A check that another fault makes impossible is skipped and says why.

pub mod broker;
pub mod database;
pub mod finding;
pub mod gateways;
pub mod keys;

use std::path::PathBuf;

use async_nats::Client;
use secrecy::SecretString;
use shared::nats::BrokerConfig;

use finding::Finding;

/// The things to examine. What is not set is skipped.
#[derive(Debug)]
pub struct Deployment {
    /// The broker.
    pub broker: Option<BrokerConfig>,
    /// The database, or the reason for which there is none to examine.
    pub database: Result<SecretString, String>,
    /// The file with the private key that signs session tokens.
    pub signing_key: Option<PathBuf>,
    /// The file with the public keys; by default `jwks.json` beside the private key.
    pub public_keys: Option<PathBuf>,
    /// The base URLs of the health listeners of gateways.
    pub gateways: Vec<String>,
}

/// Examines a deployment, one part after the other.
pub async fn examine(deployment: &Deployment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let client: Option<Client> = broker::connect(deployment.broker.as_ref(), &mut findings).await;
    let jetstream = client.map(async_nats::jetstream::new);
    match &jetstream {
        Some(jetstream) => broker::examine(jetstream, &mut findings).await,
        None => findings.push(Finding::skipped("stream", "the broker cannot be asked")),
    }
    database::examine(&deployment.database, &mut findings).await;
    keys::examine(deployment.signing_key.as_deref(), deployment.public_keys.as_deref(), &mut findings);
    match &jetstream {
        Some(jetstream) => gateways::examine_leases(jetstream, &mut findings).await,
        None => findings.push(Finding::skipped("gateways", "the broker cannot be asked")),
    }
    for url in &deployment.gateways {
        gateways::examine_health(url, &mut findings).await;
    }
    findings
}
