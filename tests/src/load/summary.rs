//! Rounds of measures, and what they come to: the median, with the least and the most beside it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::scenario::Outcome;
use crate::load::targets::TargetKind;

/// One scenario on one target in one round.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Which scenario.
    pub scenario: String,
    /// On what.
    pub target: TargetKind,
    /// What came out, by name; the unit is the name's end.
    pub measures: BTreeMap<String, f64>,
}

/// Every scenario on every target, once.
#[derive(Debug, Default, Serialize)]
pub struct Round {
    /// In the order in which they ran.
    pub runs: Vec<Run>,
}

impl Round {
    /// Puts a run down.
    pub fn add(&mut self, scenario: &str, target: TargetKind, outcome: Outcome) {
        self.runs.push(Run { scenario: scenario.to_owned(), target, measures: outcome.measures });
    }

    /// A measure of this round.
    pub fn measure(&self, scenario: &str, target: TargetKind, name: &str) -> Option<f64> {
        let run = self.runs.iter().find(|run| run.scenario == scenario && run.target == target)?;
        run.measures.get(name).copied()
    }
}

/// A measure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these values, if there are any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, most })
    }
}

/// A measure of a target in a scenario over the rounds.
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
