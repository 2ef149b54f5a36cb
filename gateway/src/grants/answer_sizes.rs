//! The sizes of the answers of each model, so that a budget can reserve what a call will probably cost.

use std::collections::HashMap;

/// The number of models that are remembered. Further models share one memory.
const MAX_MODELS: usize = 256;
/// The number of classes of sizes: up to 2⁰, 2¹, … tokens.
const CLASSES: usize = 24;
/// The size that is expected while a model has no answers yet, in tokens.
const FIRST_SIZE: u64 = 1024;
/// The weight at which all counts are halved, so that new answers count more than old ones.
const MAX_WEIGHT: u32 = 512;

/// The sizes of the recent answers of each model.
#[derive(Debug, Default)]
pub struct AnswerSizes {
    models: HashMap<String, Sizes>,
    others: Sizes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    counts: [u32; CLASSES],
}

impl AnswerSizes {
    /// Adds an answer of a model.
    pub fn add(&mut self, model: &str, tokens: u64) {
        let has_room = self.models.len() < MAX_MODELS;
        let sizes = match self.models.get_mut(model) {
            Some(sizes) => sizes,
            None if has_room => self.models.entry(model.to_owned()).or_default(),
            None => &mut self.others,
        };
        sizes.add(tokens);
    }

    /// Returns a size in tokens that nine of ten recent answers of the model did not exceed.
    pub fn likely(&self, model: &str) -> u64 {
        self.models.get(model).unwrap_or(&self.others).percentile_90()
    }
}

impl Sizes {
    fn add(&mut self, tokens: u64) {
        let class = (u64::BITS - tokens.saturating_sub(1).leading_zeros()) as usize;
        self.counts[class.min(CLASSES - 1)] += 1;
        if self.counts.iter().sum::<u32>() > MAX_WEIGHT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn percentile_90(&self) -> u64 {
        let all: u32 = self.counts.iter().sum();
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += count;
            all > 0 && seen * 10 >= all * 9
        });
        class.map_or(FIRST_SIZE, |class| 1 << class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_answers_are_within_the_likely_size() {
        let mut sizes = AnswerSizes::default();
        assert_eq!(sizes.likely("m"), FIRST_SIZE);
        (0..90).for_each(|_| sizes.add("m", 100));
        (0..9).for_each(|_| sizes.add("m", 5000));
        assert_eq!((sizes.likely("m"), sizes.likely("other")), (128, FIRST_SIZE));
        (0..900).for_each(|_| sizes.add("m", 4000));
        assert_eq!(sizes.likely("m"), 4096, "new answers count more than old ones");
        sizes.add("m", u64::MAX);
        sizes.add("zero", 0);
        assert_eq!(sizes.likely("zero"), 1);
        (0..1000).for_each(|number| sizes.add(&format!("model-{number}"), 7));
        assert!(sizes.models.len() == MAX_MODELS && sizes.likely("model-999") == 8);
    }
}
