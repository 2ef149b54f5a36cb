//! How durable an event is asked to be, and how durable it was made.

/// How durable an event is before anyone sees its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityLevel {
    /// Written to the log: it survives the death of the process.
    Journal,
    /// On the disk: it survives the death of the machine.
    Synced,
    /// Acknowledged by the broker; if that takes too long, on the disk: it survives the loss of the machine.
    Replicated,
}

/// How an event was made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The broker acknowledged it.
    Broker,
    /// It is on this machine's disk.
    Synced,
    /// It is in the log: it survives this process.
    Journal,
    /// The log cannot be written and the broker does not answer: it is in memory, and on its way.
    Memory,
    /// It is nowhere: there was not even memory left for it.
    Lost,
    /// It was not: recording is switched off.
    Disabled,
}

impl Durability {
    /// As in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Synced => "synced",
            Self::Journal => "journal",
            Self::Memory => "memory",
            Self::Lost => "lost",
            Self::Disabled => "off",
        }
    }

    /// Whether it survives the process, as it should.
    pub fn is_durable(self) -> bool {
        !matches!(self, Self::Memory | Self::Lost)
    }
}
