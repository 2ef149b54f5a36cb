//! The cost of a call before the call: what it will probably cost, and a bound of what it can cost.

use std::sync::Arc;

use shared::event::{Budget, BudgetPolicy, UnpricedCalls};
use shared::prices::{PriceBook, TokenPrices, embedded};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

/// The number of tokens of an answer that are drawn on a budget at once.
pub const STEP_TOKENS: u64 = 64;

/// A call as it is expected before it begins.
#[derive(Clone, Debug, Default)]
pub struct ExpectedCall {
    /// The tokens of the prompt, estimated.
    pub prompt: u64,
    /// A bound of the tokens of the prompt; none if the request refers to content that it does not contain.
    pub most_prompt: Option<u64>,
    /// The maximum for one answer, if the request names one.
    pub max_answer: Option<u64>,
    /// True if the answer is streamed, so that it can be ended when a budget is used up.
    pub is_streamed: bool,
    /// The number of answers.
    pub answers: u64,
    /// The upstreams that may answer, and their names of the model. Empty for a call without a model.
    pub targets: Vec<(String, String)>,
}

/// The reason for which no amount can be reserved for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostUnknown {
    /// The price of the model is not known, and the budget admits no such calls.
    Price,
    /// There is no bound of the cost, and the budget admits no such calls.
    Bound,
}

/// Reads the price list that is part of the program, off the runtime's threads: the first call with a budget waits for it.
pub async fn read_prices() {
    static IS_READ: OnceCell<()> = OnceCell::const_new();
    let read = || async {
        // Without the thread, the list is read by the first look into it.
        drop(tokio::task::spawn_blocking(|| Arc::clone(embedded::catalogue())).await);
    };
    IS_READ.get_or_init(read).await;
}

/// The money that a call takes from a budget, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// The money that is reserved before the call.
    pub money: u64,
    /// The price of [`STEP_TOKENS`] tokens of the answer, which are drawn while it streams. 0: nothing is drawn.
    pub step: u64,
}

/// Returns the money that a call takes from a budget. Of several upstreams that may answer, the most expensive counts.
pub fn money(
    budget: &Budget,
    call: &ExpectedCall,
    likely_answer: u64,
    book: &PriceBook,
    at: OffsetDateTime,
) -> Result<Reserve, CostUnknown> {
    let found: Vec<_> =
        call.targets.iter().map(|(upstream, model)| TokenPrices::find(book, at, upstream, model)).collect();
    if budget.unpriced == UnpricedCalls::Refuse && (found.is_empty() || found.contains(&None)) {
        return Err(CostUnknown::Price);
    }
    let mut most = Reserve::default();
    for prices in found.into_iter().flatten() {
        let reserve = match budget.policy {
            BudgetPolicy::Strict => Reserve { money: greatest(&prices, call).ok_or(CostUnknown::Bound)?, step: 0 },
            BudgetPolicy::Cut if call.is_streamed => {
                let (prompt, begun) = (prices.likely(call.prompt, 0), prices.likely(call.prompt, STEP_TOKENS));
                Reserve { money: begun, step: begun.saturating_sub(prompt) }
            }
            _ => {
                let answer = call.max_answer.map_or(likely_answer, |most| most.min(likely_answer));
                Reserve { money: prices.likely(call.prompt, answer.saturating_mul(call.answers.max(1))), step: 0 }
            }
        };
        most = Reserve { money: most.money.max(reserve.money), step: most.step.max(reserve.step) };
    }
    Ok(most)
}

fn greatest(prices: &TokenPrices, call: &ExpectedCall) -> Option<u64> {
    let window = prices.context_window;
    let input = match (call.most_prompt, window) {
        (Some(most), Some(window)) => most.min(window),
        (most, window) => most.or(window)?,
    };
    let answer = call.max_answer.or(window)?;
    prices.greatest(input, answer.saturating_mul(call.answers.max(1)))
}

#[cfg(test)]
mod tests {
    use shared::event::BudgetPeriod;
    use time::macros::datetime;

    use super::*;

    const AT: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn budget(policy: BudgetPolicy, unpriced: UnpricedCalls) -> Budget {
        let (period, time_zone) = (BudgetPeriod::Day, "UTC".to_owned());
        Budget { amount_nanodollars: 1, period, time_zone, policy, unpriced, offline_nanodollars: 0 }
    }

    fn call(model: &str) -> ExpectedCall {
        let targets = vec![("openai".to_owned(), model.to_owned())];
        ExpectedCall {
            prompt: 1000,
            most_prompt: Some(4000),
            max_answer: Some(500),
            is_streamed: false,
            answers: 1,
            targets,
        }
    }

    #[test]
    fn a_likely_cost_is_below_the_greatest() {
        let book = PriceBook::default();
        let taken = |policy, call: &ExpectedCall| money(&budget(policy, UnpricedCalls::Refuse), call, 100, &book, AT);
        let of = |policy, call: &ExpectedCall| taken(policy, call).map(|reserve| reserve.money);
        let likely = of(BudgetPolicy::Finish, &call("gpt-4o")).unwrap();
        let greatest = of(BudgetPolicy::Strict, &call("gpt-4o")).unwrap();
        // 2.50 and 10.00 dollars for a million tokens of prompt and answer.
        assert_eq!(likely, 1000 * 2500 + 100 * 10_000);
        assert!(greatest >= 4000 * 2500 + 500 * 10_000, "{greatest}");
        let several = ExpectedCall { answers: 3, ..call("gpt-4o") };
        assert_eq!(of(BudgetPolicy::Finish, &several).unwrap(), 1000 * 2500 + 300 * 10_000);
        assert!(of(BudgetPolicy::Strict, &several).unwrap() > greatest);
        // A streamed answer is drawn step by step; an answer that comes at once cannot be ended.
        let streamed = ExpectedCall { is_streamed: true, ..call("gpt-4o") };
        let step = STEP_TOKENS * 10_000;
        assert_eq!(taken(BudgetPolicy::Cut, &streamed), Ok(Reserve { money: 1000 * 2500 + step, step }));
        assert_eq!(taken(BudgetPolicy::Cut, &call("gpt-4o")), Ok(Reserve { money: likely, step: 0 }));
        assert_eq!(taken(BudgetPolicy::Finish, &streamed), Ok(Reserve { money: likely, step: 0 }));
    }

    #[test]
    fn a_call_of_unknown_cost_is_refused_or_free() {
        let book = PriceBook::default();
        let of = |policy, unpriced, call: &ExpectedCall| money(&budget(policy, unpriced), call, 100, &book, AT);
        let unknown = call("no-such-model");
        assert_eq!(of(BudgetPolicy::Finish, UnpricedCalls::Refuse, &unknown), Err(CostUnknown::Price));
        assert_eq!(of(BudgetPolicy::Strict, UnpricedCalls::Allow, &unknown), Ok(Reserve::default()));
        let unbounded = ExpectedCall { max_answer: None, most_prompt: None, ..call("gpt-4o") };
        let greatest = of(BudgetPolicy::Strict, UnpricedCalls::Refuse, &unbounded);
        let window = TokenPrices::find(&book, AT, "openai", "gpt-4o").unwrap().context_window;
        assert_eq!(greatest.is_ok(), window.is_some(), "the size of the model's window bounds the call");
        assert!(of(BudgetPolicy::Finish, UnpricedCalls::Refuse, &unbounded).is_ok());
    }
}
