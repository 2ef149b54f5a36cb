//! The schedule of faults of a round: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Number of gateways in a round.
pub const GATEWAYS: usize = 2;

/// Number of recorders in a round.
pub const RECORDERS: usize = 2;

/// Number of nodes in a cluster.
pub const NODES: usize = 3;

/// A fault that a round injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Kills a process, and starts the process again after this time.
    Kill(FaultTarget, Duration),
    /// Suspends a process for this time: connections stay open and requests get no response.
    Pause(FaultTarget, Duration),
    /// Disturbs the connections of a link for this time.
    Link(Link, LinkFault, Duration),
    /// Makes the database read-only for this time, as after a failover to a replica.
    ReadOnly(Duration),
    /// Publishes so many events of the stream once more, shuffled, without the id that the broker deduplicates by.
    Repeat(usize),
    /// Publishes a message that is no event.
    Garbage,
    /// Kills the broker and brings back the broker's state of this long before: later writes are lost, although acknowledged.
    Forget(Duration),
    /// Kills the broker for this time. Meanwhile clients send long questions until the gateways' journals are full.
    Fill(Duration),
    /// Sets the clock of a gateway or a recorder to the true time plus so many seconds, until the end of the round.
    Clock(FaultTarget, i64),
    /// Kills the gateway of this index, and starts the gateway again after this time with a low limit of open files.
    FewFiles(usize, Duration),
    /// Starts a second gateway with the name of the gateway of this index, for this time at most.
    Twin(usize, Duration),
}

/// Process that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTarget {
    /// The gateway of this index.
    Gateway(usize),
    /// The recorder of this index.
    Recorder(usize),
    /// The broker's node of this index.
    Broker(usize),
    /// PostgreSQL, with all sessions.
    Database,
}

/// All connections between two kinds of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// From the gateways to the broker.
    GatewayBroker,
    /// From the recorders to the broker.
    RecorderBroker,
    /// From the recorders to the database.
    RecorderDatabase,
    /// From the gateways to the upstream.
    GatewayUpstream,
}

/// Disturbance of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Connections are closed, new connections as soon as they are made.
    Cut,
    /// No byte passes, and neither side gets an error.
    Stall,
    /// The server's side of each connection is shut down.
    HalfClose,
}

/// A fault, with the time from the start of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledFault {
    /// Time from the start of the round.
    pub at: Duration,
    /// The fault at that time.
    pub fault: Fault,
}

/// The broker of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// One node, one copy of the stream.
    Single,
    /// Three nodes, three copies of the stream.
    Cluster,
}

/// Upper bound of the gateways' journals in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSize {
    /// Large enough for the whole round.
    Large,
    /// The smallest allowed size. The journals are filled once in the round. The broker loses no writes in such a round,
    /// because events kept for a repeated publication could be removed to make room for new chats.
    Small,
}

/// Returns the faults of the round with this seed, in order: one fault every `every` on average, until `span` is over.
pub fn plan(seed: u64, broker: Broker, journals: JournalSize, span: Duration, every: Duration) -> Vec<ScheduledFault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = Duration::ZERO;
    let mut schedule = Vec::new();
    loop {
        at += every.mul_f64(random.random_range(0.2..1.8));
        if at >= span {
            break;
        }
        schedule.push(ScheduledFault { at, fault: fault(&mut random, broker, journals) });
    }
    if journals == JournalSize::Small {
        let (at, away) = (span.mul_f64(random.random_range(0.1..0.7)), random.random_range(1_000..2_500));
        schedule.push(ScheduledFault { at, fault: Fault::Fill(Duration::from_millis(away)) });
        schedule.sort_by_key(|scheduled| scheduled.at);
    }
    schedule
}

fn fault(random: &mut StdRng, broker: Broker, journals: JournalSize) -> Fault {
    let away = Duration::from_millis(random.random_range(0..2_500));
    match random.random_range(0..100) {
        // The kill of a gateway is the most frequent fault, because the promise is about such kills.
        0..14 => Fault::Kill(FaultTarget::Gateway(random.random_range(0..GATEWAYS)), away),
        14..17 => Fault::FewFiles(random.random_range(0..GATEWAYS), away),
        17..19 => Fault::Twin(random.random_range(0..GATEWAYS), away),
        19..22 => {
            let services = [
                FaultTarget::Gateway(random.random_range(0..GATEWAYS)),
                FaultTarget::Recorder(random.random_range(0..RECORDERS)),
            ];
            // Tokens of the round are valid for twelve hours.
            let seconds = random.random_range(-100_000..30_000);
            Fault::Clock(*services.choose(random).unwrap_or(&services[0]), seconds)
        }
        22..34 => Fault::Kill(FaultTarget::Recorder(random.random_range(0..RECORDERS)), away),
        34..45 => Fault::Kill(node(random, broker), away),
        45..52 => Fault::Kill(FaultTarget::Database, away),
        52..66 => {
            let targets = [
                FaultTarget::Gateway(random.random_range(0..GATEWAYS)),
                FaultTarget::Recorder(random.random_range(0..RECORDERS)),
                node(random, broker),
                FaultTarget::Database,
            ];
            Fault::Pause(*targets.choose(random).unwrap_or(&FaultTarget::Database), away)
        }
        66..84 => {
            let wires = [Link::GatewayBroker, Link::RecorderBroker, Link::RecorderDatabase, Link::GatewayUpstream];
            let link_faults = [LinkFault::Cut, LinkFault::Stall, LinkFault::HalfClose];
            let wire = *wires.choose(random).unwrap_or(&Link::GatewayBroker);
            Fault::Link(wire, *link_faults.choose(random).unwrap_or(&LinkFault::Cut), away)
        }
        84..89 => Fault::ReadOnly(away),
        89..95 => Fault::Repeat(random.random_range(1..200)),
        95..97 => Fault::Garbage,
        // A cluster does not lose the events that one node loses, so a node is killed instead.
        _ if broker == Broker::Cluster || journals == JournalSize::Small => Fault::Kill(node(random, broker), away),
        _ => Fault::Forget(Duration::from_millis(random.random_range(100..900))),
    }
}

fn node(random: &mut StdRng, broker: Broker) -> FaultTarget {
    match broker {
        Broker::Single => FaultTarget::Broker(0),
        Broker::Cluster => FaultTarget::Broker(random.random_range(0..NODES)),
    }
}

impl Fault {
    /// Kind of the fault, for the report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(FaultTarget::Gateway(_), _) => "gateway killed",
            Self::Kill(FaultTarget::Recorder(_), _) => "recorder killed",
            Self::Kill(FaultTarget::Broker(_), _) => "nats-server killed",
            Self::Kill(FaultTarget::Database, _) => "PostgreSQL killed",
            Self::Pause(FaultTarget::Gateway(_), _) => "gateway paused",
            Self::Pause(FaultTarget::Recorder(_), _) => "recorder paused",
            Self::Pause(FaultTarget::Broker(_), _) => "nats-server paused",
            Self::Pause(FaultTarget::Database, _) => "PostgreSQL paused",
            Self::Link(_, LinkFault::Cut, _) => "wire cut",
            Self::Link(_, LinkFault::Stall, _) => "wire stalled",
            Self::Link(_, LinkFault::HalfClose, _) => "wire half-closed",
            Self::ReadOnly(_) => "database read-only",
            Self::Repeat(_) => "events repeated in another order",
            Self::Garbage => "garbage published",
            Self::Forget(_) => "nats-server went back in time",
            Self::Fill(_) => "journals filled",
            Self::Clock(_, _) => "clock jumped",
            Self::FewFiles(_, _) => "gateway killed and limited in open files",
            Self::Twin(_, _) => "gateway's name given twice",
        }
    }
}

impl fmt::Display for ScheduledFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.3} s  {:?}", self.at.as_secs_f64(), self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_all_and_every_kind_of_fault_occurs() {
        let of =
            |seed, journals| plan(seed, Broker::Single, journals, Duration::from_secs(10), Duration::from_millis(500));
        assert_eq!(of(7, JournalSize::Large), of(7, JournalSize::Large));
        assert_ne!(of(7, JournalSize::Large), of(8, JournalSize::Large));
        let kinds = |journals| {
            let schedule = (0..100).flat_map(|seed| of(seed, journals));
            schedule.map(|scheduled| scheduled.fault.kind()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(kinds(JournalSize::Large).len(), 18, "{:?}", kinds(JournalSize::Large));
        assert_eq!(kinds(JournalSize::Small).len(), 18, "{:?}", kinds(JournalSize::Small));
        assert!(!kinds(JournalSize::Small).contains(Fault::Forget(Duration::ZERO).kind()));
    }
}
