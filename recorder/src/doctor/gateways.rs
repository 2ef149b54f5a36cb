//! The gateways: leases, clocks and readiness.

use std::time::Duration;

use async_nats::jetstream::Context;
use futures_util::StreamExt as _;
use shared::http_client;
use shared::lease::{BUCKET, Lease};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::finding::Finding;

const SUBJECT: &str = "gateways";
/// The limit of each check.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The difference of two clocks from which minutes and leases are judged wrongly.
const MAX_SKEW: time::Duration = time::Duration::seconds(5);
/// The maximum number of gateways that are examined.
const MAX_GATEWAYS: usize = 1000;
/// The maximum length of a reason, in bytes.
const MAX_REASON_BYTES: usize = 512;

/// Examines the leases that running gateways renew: which gateways run, and how their clocks differ from the broker's.
pub(super) async fn examine_leases(jetstream: &Context, findings: &mut Vec<Finding>) {
    let Ok(leases) = timeout(TIMEOUT, leases(jetstream)).await.unwrap_or_else(|_| Ok(Vec::new())) else {
        findings.push(Finding::skipped(SUBJECT, "the bucket GATEWAYS cannot be read"));
        return;
    };
    if leases.is_empty() {
        let action = "Start a gateway, or check that its NATS_URL leads to this broker.";
        findings.push(Finding::warning(SUBJECT, "no gateway runs", action));
        return;
    }
    let names: Vec<&str> = leases.iter().map(|(lease, _)| lease.instance.as_str()).collect();
    findings.push(Finding::ok(SUBJECT, format!("{} run: {}", names.len(), names.join(", "))));
    for (lease, stored_at) in &leases {
        let skew = lease.renewed_at - *stored_at;
        if skew.abs() > MAX_SKEW {
            let found =
                format!("the clock of {} differs from the broker's by {} s", lease.instance, skew.whole_seconds());
            findings.push(Finding::wrong(SUBJECT, found, "Set the clocks with NTP: limits count by the minute."));
        }
    }
}

/// The leases, each with the time at which the broker stored it.
async fn leases(jetstream: &Context) -> Result<Vec<(Lease, OffsetDateTime)>, async_nats::Error> {
    let bucket = jetstream.get_key_value(BUCKET).await?;
    let mut keys = bucket.keys().await?.take(MAX_GATEWAYS);
    let mut leases = Vec::new();
    while let Some(key) = keys.next().await {
        let Some(entry) = bucket.entry(key?).await? else { continue };
        if let Ok(lease) = serde_json::from_slice(&entry.value) {
            leases.push((lease, entry.created));
        }
    }
    Ok(leases)
}

/// Asks a gateway's health listener.
pub(super) async fn examine_health(url: &str, findings: &mut Vec<Finding>) {
    let url = format!("{}/health/ready", url.trim_end_matches('/'));
    let answer = async {
        let response = http_client::client().map_err(|error| error.to_string())?.get(&url).send().await;
        let mut response = response.map_err(|error| error.without_url().to_string())?;
        if response.status().is_success() {
            return Ok(());
        }
        let body = response.chunk().await.ok().flatten().unwrap_or_default();
        let reason = String::from_utf8_lossy(body.get(..MAX_REASON_BYTES).unwrap_or(&body)).trim().to_owned();
        Err(format!("{} {reason}", response.status().as_u16()))
    };
    findings.push(match timeout(TIMEOUT, answer).await {
        Ok(Ok(())) => Finding::ok(SUBJECT, format!("{url}: ready")),
        Ok(Err(reason)) => Finding::wrong(SUBJECT, format!("{url}: {reason}"), "Read the gateway's log."),
        Err(_) => {
            let found = format!("{url}: no answer within {} s", TIMEOUT.as_secs());
            Finding::wrong(SUBJECT, found, "Check the address (GATEWAY_HEALTH_LISTEN), and that the gateway runs.")
        }
    });
}
