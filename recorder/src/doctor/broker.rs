//! The broker: reachability, credentials, JetStream, the stream, its consumer and buckets, space, replicas, delay.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream;
use shared::nats::{BrokerConfig, BrokerError, BrokerRole};
use shared::stream::{CONSUMER, NAME};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::finding::Finding;
use crate::source::setup::{self, SetupError};
use crate::source::{self, backlog};

/// The limit of each check.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The age of an unrecorded event from which recorders are too slow, or do not run.
const MAX_DELAY: time::Duration = time::Duration::minutes(1);
/// The part of a limit of space above which there should be more, in percent.
const FULL_PERCENT: u64 = 80;

/// Connects to the broker. Returns `None`, with the finding, if that fails.
pub(super) async fn connect(config: Option<&BrokerConfig>, findings: &mut Vec<Finding>) -> Option<Client> {
    let Some(config) = config else {
        findings.push(Finding::skipped("broker", "NATS_URL is not set"));
        return None;
    };
    let Ok(connected) = timeout(TIMEOUT, source::connect_now(config, BrokerRole::Operator)).await else {
        let found = format!("no connection to {} within {}", config.servers(), seconds(TIMEOUT));
        findings.push(Finding::wrong("broker", found, "Check NATS_URL, the network, and that nats-server runs."));
        return None;
    };
    let client = match connected {
        Ok(client) => client,
        Err(error @ BrokerError::Refused { .. }) => {
            let action = "Check the credentials against the users in the configuration of nats-server \
                          (deploy/nats/permissions.conf).";
            findings.push(Finding::wrong("broker", error.to_string(), action));
            return None;
        }
        Err(error) => {
            findings.push(Finding::wrong("broker", error.to_string(), "Check NATS_URL and the network."));
            return None;
        }
    };
    let info = client.server_info();
    findings.push(Finding::ok("broker", format!("nats-server {} at {} answers", info.version, config.servers())));
    Some(client)
}

/// Examines JetStream and what Stenograph has there.
pub(super) async fn examine(jetstream: &Context, findings: &mut Vec<Finding>) {
    let account = match timeout(TIMEOUT, jetstream.query_account()).await {
        Ok(Ok(account)) => account,
        Ok(Err(error)) => {
            let action = "Start nats-server with JetStream, and let these credentials use it.";
            findings.push(Finding::wrong("broker", format!("JetStream cannot be used: {error}"), action));
            return;
        }
        Err(_) => {
            let found = format!("no answer from JetStream within {}", seconds(TIMEOUT));
            let action = "Check that JetStream has a leader, and that these credentials may ask (user `operator`).";
            findings.push(Finding::wrong("broker", found, action));
            return;
        }
    };
    if let Ok(limit @ 1..) = u64::try_from(account.limits.max_storage.unwrap_or(-1)) {
        findings.push(space("broker", "the account's storage", account.storage, limit));
    }
    examine_settings(jetstream, findings).await;
    if let Ok(Ok(mut stream)) = timeout(TIMEOUT, jetstream.get_stream(NAME)).await {
        if let Ok(Ok(info)) = timeout(TIMEOUT, stream.info()).await {
            examine_stream(info, findings);
        }
        examine_recording(jetstream, &stream, findings).await;
    }
}

/// Compares the stream, its consumer and all buckets with the expected configuration.
async fn examine_settings(jetstream: &Context, findings: &mut Vec<Finding>) {
    findings.push(match timeout(2 * TIMEOUT, setup::verify_all(jetstream)).await {
        Ok(Ok(())) => Finding::ok("stream", "the stream, its consumer and all buckets have the expected settings"),
        Ok(Err(error @ SetupError::Missing(_))) => {
            Finding::wrong("stream", error.to_string(), "Run `recorder stream create`.")
        }
        Ok(Err(error @ SetupError::Differs { .. })) => {
            let action =
                "Set it back with `nats stream edit` or `nats consumer edit`: with other settings, events may be lost.";
            Finding::wrong("stream", error.to_string(), action)
        }
        Ok(Err(error @ SetupError::Unavailable(_))) => {
            Finding::wrong("stream", error.to_string(), "Check that the stream has a leader.")
        }
        Err(_) => {
            Finding::wrong("stream", "the broker does not say its settings", "Check that the stream has a leader.")
        }
    });
}

/// Examines space and replicas.
fn examine_stream(info: &stream::Info, findings: &mut Vec<Finding>) {
    if let Ok(limit @ 1..) = u64::try_from(info.config.max_bytes) {
        findings.push(space("stream", "the stream", info.state.bytes, limit));
    }
    let Some(cluster) = &info.cluster else { return };
    if cluster.leader.as_ref().is_none_or(String::is_empty) {
        findings.push(Finding::wrong("stream", "the stream has no leader", "Start the missing nats-servers."));
    }
    let is_cluster = cluster.name.as_ref().is_some_and(|name| !name.is_empty());
    if is_cluster && info.config.num_replicas == 1 {
        let action =
            "Use three replicas in a cluster: `nats stream edit CHATS --replicas 3`, and the same for the buckets.";
        findings.push(Finding::warning("stream", "the stream has one replica: events are lost with one disk", action));
    }
    let late: Vec<&str> =
        cluster.replicas.iter().filter(|peer| peer.offline || !peer.current).map(|peer| peer.name.as_str()).collect();
    if !late.is_empty() {
        let found = format!("replicas that are away or behind: {}", late.join(", "));
        findings.push(Finding::warning("stream", found, "Start or repair these nats-servers."));
    }
}

/// Examines whether recorders ask for events, and how late they are.
async fn examine_recording(jetstream: &Context, stream: &stream::Stream, findings: &mut Vec<Finding>) {
    let Ok(Ok(consumer)) = timeout(TIMEOUT, stream.consumer_info(CONSUMER)).await else { return };
    let Ok(Ok(waiting)) = timeout(TIMEOUT, backlog::read(&jetstream.client())).await else { return };
    // A recorder that is busy asks for no more events; it has events in hand.
    if consumer.num_waiting == 0 && consumer.num_ack_pending == 0 {
        let found = format!("no recorder asks for events, and {} events wait", waiting.events);
        findings.push(Finding::wrong("recording", found, "Start `recorder consume`, and read its log."));
        return;
    }
    let age = waiting.oldest_at.map_or(time::Duration::ZERO, |at| OffsetDateTime::now_utc() - at);
    let found = format!("{} events wait, the oldest for {} s", waiting.events, age.whole_seconds().max(0));
    findings.push(if age > MAX_DELAY {
        let action =
            "Read /health/ready and the log of the recorders; start more if they are busy (docs/runbooks/scaling.md).";
        Finding::wrong("recording", found, action)
    } else {
        Finding::ok("recording", found)
    });
}

fn space(subject: &'static str, what: &str, used: u64, limit: u64) -> Finding {
    let percent = used.saturating_mul(100) / limit;
    let found = format!("{what} is {percent} % full ({used} of {limit} bytes)");
    if percent >= FULL_PERCENT {
        Finding::wrong(subject, found, "Give it more space before it refuses events (docs/runbooks/full.md).")
    } else {
        Finding::ok(subject, found)
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}
