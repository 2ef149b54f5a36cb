//! Durability: the configured level, and the durability that an event has reached.

/// The durability that an event must reach before a client may see the event's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityLevel {
    /// Written to the log: the event survives the death of the process.
    Journal,
    /// Synced to the disk: the event survives the death of the machine.
    Synced,
    /// Acknowledged by the broker, or synced to the disk if the broker takes too long. An acknowledged event survives
    /// the loss of the machine.
    Replicated,
}

/// The durability that an event has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The broker has acknowledged the event.
    Broker,
    /// The event is on the disk of the gateway's machine.
    Synced,
    /// The event is in the log, and survives the death of the process.
    Journal,
    /// The event is held in memory and will be published: the log cannot be written, and the broker has not
    /// acknowledged the event.
    Memory,
    /// The event is lost: the log cannot be written, and the memory for unwritten events is used up.
    Lost,
    /// The event was not recorded, because recording is disabled.
    Disabled,
}

impl Durability {
    /// Returns the name for logs.
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

    /// Returns false if the death of the process would lose the event. Returns true if recording is disabled.
    pub fn is_durable(self) -> bool {
        !matches!(self, Self::Memory | Self::Lost)
    }
}
