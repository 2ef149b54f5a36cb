//! Answers of the load upstream, described by a model name, because every proxy passes a model name on.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Form of an answer. The model name `load-<chunks>x<pause>` asks for so many chunks with such a pause between two chunks:
/// `load-20x0` is 20 chunks without a pause, each in a write of its own; `load-20x0-burst` the same in one write;
/// `load-200x50ms` 200 chunks, one every 50 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of chunks with a choice, at least two. The first chunk names the role, the last the finish reason.
    pub chunks: u32,
    /// Time from the due time of a chunk to the due time of the next.
    pub pause: Duration,
    /// Number of writes of the upstream.
    pub writes: Writes,
}

/// Number of writes of the upstream for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// A write for each chunk, as from a provider.
    Each,
    /// One write for all chunks. A proxy finds all chunks ready, so that the cost of parsing and forwarding is measured with as
    /// little work of the kernel as possible.
    Once,
}

impl Answer {
    /// An answer of so many chunks without pauses.
    pub const fn short(chunks: u32, writes: Writes) -> Self {
        Self { chunks, pause: Duration::ZERO, writes }
    }

    /// An answer of so many chunks with this pause.
    pub const fn paced(chunks: u32, pause: Duration) -> Self {
        Self { chunks, pause, writes: Writes::Each }
    }

    /// Time from the first chunk to the last.
    pub fn duration(self) -> Duration {
        self.pause * (self.chunks - 1)
    }
}

/// Error of a model name that describes no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected load-<chunks>x<pause in ms>, at least 2 chunks, such as load-20x0, load-20x0-burst or load-200x50ms")]
pub struct InvalidAnswer;

impl FromStr for Answer {
    type Err = InvalidAnswer;

    fn from_str(model: &str) -> Result<Self, InvalidAnswer> {
        let (model, writes) = model.strip_suffix("-burst").map_or((model, Writes::Each), |model| (model, Writes::Once));
        let (chunks, pause) = model.strip_prefix("load-").and_then(|rest| rest.split_once('x')).ok_or(InvalidAnswer)?;
        let chunks = chunks.parse().map_err(|_| InvalidAnswer)?;
        let pause = pause.strip_suffix("ms").unwrap_or(pause).parse().map_err(|_| InvalidAnswer)?;
        if chunks < 2 || (pause > 0 && writes == Writes::Once) {
            return Err(InvalidAnswer);
        }
        Ok(Self { chunks, pause: Duration::from_millis(pause), writes })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let burst = if self.writes == Writes::Once { "-burst" } else { "" };
        write!(f, "load-{}x{}ms{burst}", self.chunks, self.pause.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_says_what_to_answer() {
        assert_eq!("load-20x0".parse(), Ok(Answer::short(20, Writes::Each)));
        let burst = Answer::short(20, Writes::Once);
        assert_eq!("load-20x0-burst".parse(), Ok(burst));
        assert_eq!(burst.to_string().parse(), Ok(burst));
        let paced = Answer::paced(200, Duration::from_millis(50));
        assert_eq!("load-200x50ms".parse(), Ok(paced));
        assert_eq!(paced.to_string().parse(), Ok(paced));
        assert_eq!(paced.duration(), Duration::from_millis(199 * 50));
        for other in ["load-1x0", "load-x", "gpt-4o", "load-20", "load--1x5", "load-20x50ms-burst"] {
            assert_eq!(other.parse::<Answer>(), Err(InvalidAnswer), "{other}");
        }
    }
}
