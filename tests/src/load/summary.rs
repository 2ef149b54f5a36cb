//! Summary of rounds: median, minimum and maximum of each measure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::scenario::Outcome;
use crate::load::targets::TargetKind;

/// A run of one scenario on one target in one round.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Name of the scenario.
    pub scenario: String,
    /// Target of the run.
    pub target: TargetKind,
    /// Measures by name. The end of the name is the unit.
    pub measures: BTreeMap<String, f64>,
}

/// A round: one run of each scenario on each target.
#[derive(Debug, Default, Serialize)]
pub struct Round {
    /// Runs, in order of execution.
    pub runs: Vec<Run>,
}

impl Round {
    /// Adds the run of a scenario on a target.
    pub fn add(&mut self, scenario: &str, target: TargetKind, outcome: Outcome) {
        self.runs.push(Run { scenario: scenario.to_owned(), target, measures: outcome.measures });
    }

    /// A measure of the round, if taken.
    pub fn measure(&self, scenario: &str, target: TargetKind, name: &str) -> Option<f64> {
        let run = self.runs.iter().find(|run| run.scenario == scenario && run.target == target)?;
        run.measures.get(name).copied()
    }
}

/// Spread of a measure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Median. For an even number of values, the mean of the middle two.
    pub median: f64,
    /// Minimum over the rounds.
    pub least: f64,
    /// Maximum over the rounds.
    pub most: f64,
}

impl Spread {
    /// Spread of these values. None without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, most })
    }
}

/// Spread over the rounds of a measure of a target in a scenario.
pub fn spread(rounds: &[Round], scenario: &str, target: TargetKind, name: &str) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(|round| round.measure(scenario, target, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_even_and_no_values() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(spread(&[]), None);
    }
}
