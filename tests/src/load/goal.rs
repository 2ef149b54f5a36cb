//! Goals of the gateway: ratios and differences to reference proxies of the same run, so that a slow or busy machine affects
//! both sides.

use serde::Serialize;

use crate::load::summary::{Round, Spread};
use crate::load::targets::TargetKind::{self, Direct, Gateway, GatewayOff, Nginx, Passthrough};
use ComparedWith::{Difference, Nothing, Ratio};

/// Reference of a measure.
#[derive(Clone, Copy, Debug)]
enum ComparedWith {
    /// Ratio to the same measure of another target in the same round.
    Ratio(TargetKind),
    /// Difference to the same measure of another target in the same round.
    Difference(TargetKind),
    /// No reference: the measure itself.
    Nothing,
}

#[derive(Debug)]
struct Goal {
    name: &'static str,
    scenario: &'static str,
    measure: &'static str,
    of: TargetKind,
    against: ComparedWith,
    /// Upper bound. None for a value that is shown for orientation.
    most: Option<f64>,
}

/// A goal and the measured result.
#[derive(Debug, Serialize)]
pub struct GoalResult {
    /// Name of the goal.
    pub name: &'static str,
    /// Median, minimum and maximum over the rounds.
    pub value: Spread,
    /// Upper bound of the median.
    pub most: Option<f64>,
    /// True if the median is within the upper bound.
    pub met: Option<bool>,
}

/// Makes a goal of the gateway.
const fn goal(
    name: &'static str,
    (scenario, measure): (&'static str, &'static str),
    against: ComparedWith,
    most: f64,
) -> Goal {
    Goal { name, scenario, measure, of: Gateway, against, most: Some(most) }
}

/// Makes a value for orientation, such as the result of another target.
const fn shown(
    name: &'static str,
    (scenario, measure): (&'static str, &'static str),
    of: TargetKind,
    against: ComparedWith,
) -> Goal {
    Goal { name, scenario, measure, of, against, most: None }
}

const CHAT: &str = "cpu_us_per_chat";
const CHUNK: &str = "cpu_us_per_chunk";

/// All goals. With a chunk every 50 ms a proxy wakes up for each chunk, and nearly all of the cost is the kernel's: even nginx
/// is not far below the pass-through proxy. Those ratios are only shown; the goals are about chunks that come faster than a
/// proxy can forward each by itself.
const GOALS: [Goal; 25] = [
    goal("CPU per short stream / passthrough", ("short", CHAT), Ratio(Passthrough), 0.6),
    shown("(nginx: CPU per short stream / passthrough)", ("short", CHAT), Nginx, Ratio(Passthrough)),
    shown(
        "CPU per short stream, chunks written one by one / passthrough",
        ("short-writes", CHAT),
        Gateway,
        Ratio(Passthrough),
    ),
    shown(
        "(nginx: CPU per short stream, chunks written one by one / passthrough)",
        ("short-writes", CHAT),
        Nginx,
        Ratio(Passthrough),
    ),
    goal("CPU per chunk, 1,000 streams at 10 ms / passthrough", ("dense-1000", CHUNK), Ratio(Passthrough), 0.6),
    shown(
        "(nginx: CPU per chunk, 1,000 streams at 10 ms / passthrough)",
        ("dense-1000", CHUNK),
        Nginx,
        Ratio(Passthrough),
    ),
    shown("CPU per chunk, 1,000 streams at 50 ms / passthrough", ("paced-1000", CHUNK), Gateway, Ratio(Passthrough)),
    shown(
        "(nginx: CPU per chunk, 1,000 streams at 50 ms / passthrough)",
        ("paced-1000", CHUNK),
        Nginx,
        Ratio(Passthrough),
    ),
    shown("CPU per chunk, 200 streams at 50 ms / passthrough", ("paced-200", CHUNK), Gateway, Ratio(Passthrough)),
    shown(
        "(nginx: CPU per chunk, 200 streams at 50 ms / passthrough)",
        ("paced-200", CHUNK),
        Nginx,
        Ratio(Passthrough),
    ),
    shown("CPU per answer in one piece / passthrough", ("whole", CHAT), Gateway, Ratio(Passthrough)),
    shown("(nginx: CPU per answer in one piece / passthrough)", ("whole", CHAT), Nginx, Ratio(Passthrough)),
    goal("first byte p50, µs over passthrough", ("first-byte", "first_byte_p50_us"), Difference(Passthrough), 100.0),
    shown("first byte p50, µs over direct", ("first-byte", "first_byte_p50_us"), Gateway, Difference(Direct)),
    shown(
        "(passthrough: first byte p50, µs over direct)",
        ("first-byte", "first_byte_p50_us"),
        Passthrough,
        Difference(Direct),
    ),
    shown("first byte p99, µs over direct", ("first-byte", "first_byte_p99_us"), Gateway, Difference(Direct)),
    shown(
        "(passthrough: first byte p99, µs over direct)",
        ("first-byte", "first_byte_p99_us"),
        Passthrough,
        Difference(Direct),
    ),
    goal("KB per open stream", ("held", "kb_per_stream"), Nothing, 40.0),
    goal("idle, MB", ("held", "idle_mb"), Nothing, 20.0),
    shown("kept after the streams closed, % of what they took", ("held", "kept_percent"), Gateway, Nothing),
    goal("recording on / off, CPU per short stream", ("short", CHAT), Ratio(GatewayOff), 1.4),
    shown(
        "recording on / off, CPU per short stream, chunks written one by one",
        ("short-writes", CHAT),
        Gateway,
        Ratio(GatewayOff),
    ),
    goal("recording on / off, CPU per chunk, 1,000 streams at 50 ms", ("paced-1000", CHUNK), Ratio(GatewayOff), 1.05),
    shown("recording on / off, CPU per chunk, 200 streams at 50 ms", ("paced-200", CHUNK), Gateway, Ratio(GatewayOff)),
    shown(
        "recording on / off, CPU per chunk, 1,000 streams at 10 ms",
        ("dense-1000", CHUNK),
        Gateway,
        Ratio(GatewayOff),
    ),
];

/// Compares the rounds with the goals. Goals without measurements are left out.
pub fn judge(rounds: &[Round]) -> Vec<GoalResult> {
    GOALS.iter().filter_map(|goal| goal.judge(rounds)).collect()
}

impl Goal {
    fn judge(&self, rounds: &[Round]) -> Option<GoalResult> {
        // The targets are compared within each round, under equal conditions of the machine; the results are then
        // combined over the rounds.
        let values = rounds.iter().filter_map(|round| {
            let own = round.measure(self.scenario, self.of, self.measure)?;
            match self.against {
                Nothing => Some(own),
                Ratio(other) => Some(own / round.measure(self.scenario, other, self.measure)?),
                Difference(other) => Some(own - round.measure(self.scenario, other, self.measure)?),
            }
        });
        let value = Spread::of(values)?;
        Some(GoalResult { name: self.name, value, most: self.most, met: self.most.map(|most| value.median <= most) })
    }
}
