//! The parts of a call that its events keep.

use crate::word::open_words;

open_words! {
    /// The parts of a call that its events keep. Who made the call, how much it used, how long it took and how it ended are kept in every
    /// mode. Readers must accept words that they do not know.
    pub enum RecordingMode {
        /// Everything, texts included.
        Full = "full",
        /// Everything but texts: no messages, no answer, no arguments of tools, no words of an error.
        Metadata = "metadata",
        /// As `metadata`, and nothing else that the caller chose freely: no parameters, metadata, tags, names of threads and of tools.
        None = "none",
    }
}

impl RecordingMode {
    /// Returns the mode that keeps less. A word that this build does not list keeps less than every other mode.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// Returns true if everything is kept.
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }

    /// The order of strictness. Two words that this build does not list are ordered as texts, so that the stricter of two modes does not
    /// depend on their order.
    fn rank(&self) -> (u8, &str) {
        match self {
            Self::Full => (0, ""),
            Self::Metadata => (1, ""),
            Self::None => (2, ""),
            Self::Other(word) => (3, word.as_str()),
        }
    }
}

#[expect(clippy::derivable_impls, reason = "the macro of open sets has no default variant")]
impl Default for RecordingMode {
    fn default() -> Self {
        Self::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_of_two_modes_does_not_depend_on_their_order() {
        let word = |text: &str| text.parse::<RecordingMode>().unwrap();
        let modes = ["full", "metadata", "none", "later", "sooner"].map(word);
        for (index, mode) in modes.into_iter().enumerate() {
            for (other_index, other) in modes.into_iter().enumerate() {
                assert_eq!(mode.stricter(other), modes[index.max(other_index)], "{mode:?} {other:?}");
            }
        }
    }
}
