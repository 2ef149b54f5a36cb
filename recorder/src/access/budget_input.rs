//! Budgets as administrators write them: amounts in dollars, and words of closed sets.

use serde::Deserialize;
use serde_json::Value;
use shared::budget_window;
use shared::event::{Budget, BudgetPeriod, BudgetPolicy, UnpricedCalls};
use shared::nanodollars::parse_dollars;
use utoipa::ToSchema;

/// The money that the calls of a scope may cost in a period.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewBudget {
    /// The amount in dollars, up to nine decimals: a text such as `25.00`, or a number.
    #[schema(value_type = String)]
    amount: Value,
    /// The currency: `USD`.
    #[serde(default)]
    currency: Option<String>,
    /// The period after which the budget begins again: `hour`, `day`, `week` (from Monday on), `month` or `total`.
    period: String,
    /// The time zone in which periods begin, a name of the IANA database: `UTC` if left out.
    #[serde(default)]
    time_zone: Option<String>,
    /// `finish` (if left out): a call begins if its probable cost fits. `strict`: a call begins if its greatest possible cost fits.
    /// `cut`: as `finish`, and a streamed answer is ended when the budget is used up. `soft`: no call is refused.
    #[serde(default)]
    policy: Option<String>,
    /// Calls of models without a known price: `allow` (if left out; they count as free of charge) or `refuse`.
    #[serde(default)]
    unpriced: Option<String>,
    /// `refuse` (if left out), or the amount in dollars that each gateway may spend in a period while the broker is away:
    /// `{"allowance": "5.00"}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    when_broker_away: Option<Value>,
}

/// A budget that cannot be read: the member, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: expected {expected}")]
pub struct InvalidBudget {
    /// The member.
    pub member: &'static str,
    expected: String,
}

impl NewBudget {
    /// Creates a budget from texts, as the command line has them.
    pub fn from_texts(amount: String, period: String) -> Self {
        Self {
            amount: Value::String(amount),
            currency: None,
            period,
            time_zone: None,
            policy: None,
            unpriced: None,
            when_broker_away: None,
        }
    }

    /// Sets the members that may be left out.
    pub fn with(
        self,
        time_zone: Option<String>,
        policy: Option<String>,
        unpriced: Option<String>,
        allowance: Option<String>,
    ) -> Self {
        let when_broker_away = allowance.map(|allowance| serde_json::json!({ "allowance": allowance }));
        Self { time_zone, policy, unpriced, when_broker_away, ..self }
    }

    /// Reads the budget.
    pub fn read(self) -> Result<Budget, InvalidBudget> {
        if self.currency.is_some_and(|currency| currency != "USD") {
            return Err(invalid("budget.currency", "USD"));
        }
        let time_zone = self.time_zone.unwrap_or_else(|| "UTC".to_owned());
        if budget_window::time_zone(&time_zone).is_none() {
            return Err(invalid("budget.timeZone", "a time zone of the IANA database, such as UTC or Europe/Berlin"));
        }
        let policy = self.policy.unwrap_or_else(|| BudgetPolicy::Finish.as_str().to_owned());
        let unpriced = self.unpriced.unwrap_or_else(|| UnpricedCalls::Allow.as_str().to_owned());
        Ok(Budget {
            amount_nanodollars: dollars("budget.amount", &self.amount)?,
            period: word("budget.period", &self.period, BudgetPeriod::WORDS)?,
            time_zone,
            policy: word("budget.policy", &policy, BudgetPolicy::WORDS)?,
            unpriced: word("budget.unpriced", &unpriced, UnpricedCalls::WORDS)?,
            offline_nanodollars: allowance(self.when_broker_away)?,
        })
    }
}

fn allowance(value: Option<Value>) -> Result<u64, InvalidBudget> {
    const MEMBER: &str = "budget.whenBrokerAway";
    match value {
        None => Ok(0),
        Some(Value::String(word)) if word == "refuse" => Ok(0),
        Some(Value::Object(members)) if members.len() == 1 && members.contains_key("allowance") => {
            dollars("budget.whenBrokerAway.allowance", &members["allowance"])
        }
        Some(_) => Err(invalid(MEMBER, "\"refuse\" or {\"allowance\": an amount in dollars}")),
    }
}

fn dollars(member: &'static str, value: &Value) -> Result<u64, InvalidBudget> {
    let amount = match value {
        Value::String(text) => parse_dollars(text),
        Value::Number(number) => parse_dollars(&number.to_string()),
        _ => None,
    };
    let most = Budget::MAX_NANODOLLARS / shared::nanodollars::PER_DOLLAR;
    let expected =
        || invalid(member, format!("dollars from 0 to {most} with at most nine decimals, such as \"25.00\""));
    amount.filter(|amount| *amount <= Budget::MAX_NANODOLLARS).ok_or_else(expected)
}

fn word<T: std::str::FromStr>(member: &'static str, text: &str, words: &[&str]) -> Result<T, InvalidBudget> {
    let listed = words.iter().find(|word| **word == text);
    listed.and_then(|word| word.parse().ok()).ok_or_else(|| invalid(member, format!("one of {}", words.join(", "))))
}

fn invalid(member: &'static str, expected: impl Into<String>) -> InvalidBudget {
    InvalidBudget { member, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Budget, String> {
        let new: NewBudget = serde_json::from_value(value).map_err(|error| error.to_string())?;
        new.read().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let budget = read(json!({"amount": "25.5", "period": "month"})).unwrap();
        assert_eq!(budget.amount_nanodollars, 25_500_000_000);
        assert_eq!((budget.policy, budget.unpriced), (BudgetPolicy::Finish, UnpricedCalls::Allow));
        assert_eq!((budget.time_zone.as_str(), budget.offline_nanodollars), ("UTC", 0));
        let all = json!({"amount": 12.5, "currency": "USD", "period": "day", "timeZone": "Asia/Kathmandu", "policy": "strict",
            "unpriced": "refuse", "whenBrokerAway": {"allowance": 1}});
        let budget = read(all).unwrap();
        assert_eq!((budget.amount_nanodollars, budget.offline_nanodollars), (12_500_000_000, 1_000_000_000));
    }

    #[test]
    fn bad_budgets_are_refused_with_the_member() {
        for (member, value) in [
            ("amount", json!(-1)),
            ("amount", json!("1e3")),
            ("amount", json!(null)),
            ("amount", json!("200000000")),
            ("currency", json!("EUR")),
            ("period", json!("year")),
            ("timeZone", json!("Mars/Olympus")),
            ("timeZone", json!("x".repeat(1000))),
            ("policy", json!("later_word")),
            ("unpriced", json!("")),
            ("whenBrokerAway", json!("allow")),
            ("whenBrokerAway", json!({"allowance": "x"})),
            ("whenBrokerAway", json!(7)),
        ] {
            let mut budget = json!({"amount": "1", "period": "day"});
            budget[member] = value;
            let error = read(budget.clone()).unwrap_err();
            assert!(error.starts_with(&format!("budget.{member}")), "{budget}: {error}");
        }
        assert!(read(json!({"amount": "1", "period": "day", "other": 1})).is_err());
        assert!(read(json!({"amount": "1"})).is_err());
    }
}
