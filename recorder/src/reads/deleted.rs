//! Deleted conversations in reads.

/// The treatment of deleted conversations, and of everything that belongs to them, in a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deleted {
    /// Deleted conversations count as absent.
    #[default]
    Hidden,
    /// Deleted conversations are read like any other: for admins who ask.
    Shown,
}

impl Deleted {
    /// Returns true if deleted conversations are read.
    pub fn is_shown(self) -> bool {
        self == Self::Shown
    }
}
