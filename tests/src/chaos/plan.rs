//! What is done to a round, and when: a pure function of its seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// How many gateways a round has.
pub const GATEWAYS: usize = 2;

/// How many recorders a round has.
pub const RECORDERS: usize = 2;

/// How many nodes a cluster has.
pub const NODES: usize = 3;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A program is killed, and started again after this long.
    Kill(FaultTarget, Duration),
    /// A program is suspended for this long: its connections stay open and nothing answers.
    Pause(FaultTarget, Duration),
    /// A wire is troubled for this long.
    Link(Link, LinkFault, Duration),
    /// The database takes no writes for this long, as after a failover to a copy.
    ReadOnly(Duration),
    /// So many events of the stream are published once more, in another order, past the broker's own dedupe.
    Repeat(usize),
    /// Something that is no event is published.
    Garbage,
    /// The broker is killed and comes back as it was this long before: what it acknowledged since then is gone.
    Forget(Duration),
    /// The broker is killed for this long, and meanwhile the gateways are asked long questions, until their journals are full.
    Fill(Duration),
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTarget {
    /// A gateway.
    Gateway(usize),
    /// A recorder.
    Recorder(usize),
    /// A node of the broker.
    Broker(usize),
    /// PostgreSQL, with all its sessions.
    Database,
}

/// Which wire.
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

/// What a wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Connections break, and new ones as soon as they are made.
    Cut,
    /// Nothing passes, and nobody is told.
    Stall,
    /// The far side seems to have said its last word.
    HalfClose,
}

/// A fault and its time, from the start of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledFault {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// What kind of broker a round has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// One node.
    Single,
    /// Three nodes, three copies of the stream.
    Cluster,
}

/// How large the gateways' journals may become in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSize {
    /// As large as they have to be.
    Large,
    /// As small as is possible. Once in the round they are filled; and no broker forgets, for what is kept for one that does
    /// makes room for new chats.
    Small,
}

/// What happens in the round with this seed, in order: a fault every `every` or so, until `span` is over.
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
        // What the promise is about comes most often.
        0..22 => Fault::Kill(FaultTarget::Gateway(random.random_range(0..GATEWAYS)), away),
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
        // A cluster keeps what one of its nodes forgets.
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
    /// Its kind, for the account of what was done.
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
        assert_eq!(kinds(JournalSize::Large).len(), 15, "{:?}", kinds(JournalSize::Large));
        assert_eq!(kinds(JournalSize::Small).len(), 15, "{:?}", kinds(JournalSize::Small));
        assert!(!kinds(JournalSize::Small).contains(Fault::Forget(Duration::ZERO).kind()));
    }
}
