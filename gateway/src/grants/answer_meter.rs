//! The number of tokens of a streamed answer for which its budgets have money.

use super::expected_cost::STEP_TOKENS;

/// The tokens of an answer that are paid for, and those at which more is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerMeter {
    paid: u64,
}

impl Default for AnswerMeter {
    /// The first step is reserved before the answer.
    fn default() -> Self {
        Self { paid: STEP_TOKENS }
    }
}

impl AnswerMeter {
    /// Returns true if more is to be drawn: the answer has passed the middle of the last step that is paid for.
    pub fn is_due(self, arrived: u64) -> bool {
        arrived >= self.paid - STEP_TOKENS / 2
    }

    /// Returns the number of steps to draw, so that at least half a step beyond what has arrived is paid for. To be called when a draw is
    /// due.
    pub fn draw(&mut self, arrived: u64) -> u64 {
        let steps = (arrived.saturating_add(STEP_TOKENS / 2).saturating_sub(self.paid)) / STEP_TOKENS + 1;
        self.paid = self.paid.saturating_add(steps.saturating_mul(STEP_TOKENS));
        steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the tokens arrive, half a step at least and one and a half at most are paid for beyond them.
        #[test]
        fn money_is_drawn_ahead_and_not_far_ahead(chunks in prop::collection::vec(0..1000_u64, 1..200)) {
            let (mut meter, mut arrived, mut drawn) = (AnswerMeter::default(), 0, STEP_TOKENS);
            for chunk in chunks {
                arrived += chunk;
                if meter.is_due(arrived) {
                    drawn += meter.draw(arrived) * STEP_TOKENS;
                }
                prop_assert!(!meter.is_due(arrived));
                prop_assert!(drawn > arrived + STEP_TOKENS / 2 - 1 && drawn <= arrived + STEP_TOKENS * 3 / 2, "{arrived}, {drawn}");
            }
        }
    }
}
