//! What the gateway is to reach: ratios and differences against a yardstick of the same run, so that a slow or busy machine
//! moves both.

use serde::Serialize;

use super::fleet::Kind;
use super::summary::{Round, Spread};

/// What a measure is held against.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// The same measure of another target in the same round, as a ratio.
    Ratio(Kind),
    /// The same, as a difference.
    Difference(Kind),
    /// Nothing: the measure as it is.
    Nothing,
}

#[derive(Debug)]
struct Goal {
    name: &'static str,
    scenario: &'static str,
    measure: &'static str,
    of: Kind,
    against: Against,
    /// None where the value is shown for orientation.
    most: Option<f64>,
}

/// A goal and what came out.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// What it is about.
    pub name: &'static str,
    /// Over the rounds.
    pub value: Spread,
    /// The most that it may be.
    pub most: Option<f64>,
    /// Whether the median is within that.
    pub met: Option<bool>,
}

const fn goal(name: &'static str, scenario: &'static str, measure: &'static str, against: Against, most: f64) -> Goal {
    Goal { name, scenario, measure, of: Kind::Gateway, against, most: Some(most) }
}

const fn shown(name: &'static str, scenario: &'static str, measure: &'static str, against: Against) -> Goal {
    Goal { name, scenario, measure, of: Kind::Gateway, against, most: None }
}

const GOALS: [Goal; 19] = [
    goal(
        "CPU per short stream, chunks written one by one / passthrough",
        "short-writes",
        "cpu_us_per_chat",
        Against::Ratio(Kind::Passthrough),
        0.6,
    ),
    shown(
        "CPU per short stream, chunks written one by one / nginx",
        "short-writes",
        "cpu_us_per_chat",
        Against::Ratio(Kind::Nginx),
    ),
    goal(
        "recording on / off, CPU per chat, chunks written one by one",
        "short-writes",
        "cpu_us_per_chat",
        Against::Ratio(Kind::GatewayOff),
        1.4,
    ),
    goal("CPU per short stream / passthrough", "short", "cpu_us_per_chat", Against::Ratio(Kind::Passthrough), 0.6),
    shown("CPU per short stream / nginx", "short", "cpu_us_per_chat", Against::Ratio(Kind::Nginx)),
    goal(
        "CPU per chunk, 200 streams / passthrough",
        "paced-200",
        "cpu_us_per_chunk",
        Against::Ratio(Kind::Passthrough),
        0.6,
    ),
    shown("CPU per chunk, 200 streams / nginx", "paced-200", "cpu_us_per_chunk", Against::Ratio(Kind::Nginx)),
    goal(
        "CPU per chunk, 1,000 streams / passthrough",
        "paced-1000",
        "cpu_us_per_chunk",
        Against::Ratio(Kind::Passthrough),
        0.6,
    ),
    shown("CPU per chunk, 1,000 streams / nginx", "paced-1000", "cpu_us_per_chunk", Against::Ratio(Kind::Nginx)),
    shown("CPU per whole answer / passthrough", "whole", "cpu_us_per_chat", Against::Ratio(Kind::Passthrough)),
    goal(
        "first byte p50, µs over passthrough",
        "first-byte",
        "first_byte_p50_us",
        Against::Difference(Kind::Passthrough),
        100.0,
    ),
    shown("first byte p50, µs over direct", "first-byte", "first_byte_p50_us", Against::Difference(Kind::Direct)),
    shown("first byte p99, µs over direct", "first-byte", "first_byte_p99_us", Against::Difference(Kind::Direct)),
    goal("KB per open stream", "held", "kb_per_stream", Against::Nothing, 40.0),
    goal("idle, MB", "held", "idle_mb", Against::Nothing, 20.0),
    shown("kept after the streams closed, % of what they took", "held", "kept_percent", Against::Nothing),
    goal("recording on / off, CPU per chat", "short", "cpu_us_per_chat", Against::Ratio(Kind::GatewayOff), 1.4),
    goal(
        "recording on / off, CPU per chunk, 1,000 streams",
        "paced-1000",
        "cpu_us_per_chunk",
        Against::Ratio(Kind::GatewayOff),
        1.05,
    ),
    goal(
        "recording on / off, CPU per chunk, 200 streams",
        "paced-200",
        "cpu_us_per_chunk",
        Against::Ratio(Kind::GatewayOff),
        1.05,
    ),
];

/// Holds the rounds against the goals; those that nothing was measured for are left out.
///
/// Without a gateway among the targets, nothing is judged.
pub fn judge(rounds: &[Round]) -> Vec<Judged> {
    GOALS.iter().filter_map(|goal| goal.judge(rounds)).collect()
}

impl Goal {
    fn judge(&self, rounds: &[Round]) -> Option<Judged> {
        // The comparison is made within each round, where both saw the same machine, and only then over the rounds.
        let values = rounds.iter().filter_map(|round| {
            let own = round.measure(self.scenario, self.of, self.measure)?;
            match self.against {
                Against::Nothing => Some(own),
                Against::Ratio(other) => Some(own / round.measure(self.scenario, other, self.measure)?),
                Against::Difference(other) => Some(own - round.measure(self.scenario, other, self.measure)?),
            }
        });
        let value = Spread::of(values)?;
        Some(Judged { name: self.name, value, most: self.most, met: self.most.map(|most| value.median <= most) })
    }
}
