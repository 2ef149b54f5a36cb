//! Prices as exact decimals, and tiers by the size of the input.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The number of decimals of a price that are kept: prices are whole multiples of 10⁻¹⁵ dollars.
const DECIMALS: usize = 15;

/// The highest price of a unit, in dollars. Higher prices are taken for a mistake of the unit.
const MAX_DOLLARS: u64 = 10_000;

/// A price in units of 10⁻¹⁵ dollars, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

/// The price of a unit: one price, or a price for each range of the input's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The price up to the first tier.
    pub base: Price,
    /// The further prices, by ascending start.
    pub tiers: Vec<Tier>,
}

/// The price of all units of a call whose input is longer than `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The number of input tokens above which the tier applies.
    pub start: u64,
    /// The price in the tier.
    pub price: Price,
}

impl Price {
    /// Returns the price in units of 10⁻¹⁵ dollars, at most 10,000 dollars.
    pub fn femtodollars(self) -> u64 {
        self.0
    }

    /// Parses a number of dollars exactly. The error says what is wrong with the number.
    pub fn parse(dollars: f64) -> Result<Self, String> {
        if !dollars.is_finite() || dollars < 0.0 {
            return Err(format!("{dollars} is no price: expected a number of dollars of at least 0"));
        }
        // The shortest text that reads as the same number: the text in the list, for up to 15 digits.
        let text = dollars.to_string();
        let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
        let whole = whole.parse::<u64>().ok().filter(|whole| *whole < MAX_DOLLARS);
        let whole = whole.ok_or_else(|| format!("{text} is too high: expected less than {MAX_DOLLARS} dollars"))?;
        // Lists have prices such as 0.18000000000000002, the sum of two doubles: the sixteenth decimal is rounded half up.
        let is_rounded_up = decimals.as_bytes().get(DECIMALS).is_some_and(|digit| *digit >= b'5');
        let kept = &decimals[..decimals.len().min(DECIMALS)];
        let kept = format!("{kept:0<DECIMALS$}").parse::<u64>().map_err(|error| error.to_string())?;
        let price = whole * 10_u64.pow(15) + kept + u64::from(is_rounded_up);
        if price == 0 && dollars > 0.0 {
            return Err(format!("{text} is too low: expected at least 10⁻¹⁵ dollars, or 0"));
        }
        Ok(Self(price))
    }
}

impl std::fmt::Display for Price {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, decimals) = (self.0 / 10_u64.pow(15), self.0 % 10_u64.pow(15));
        let decimals = format!("{decimals:015}");
        match decimals.trim_end_matches('0') {
            "" => write!(formatter, "{whole}"),
            decimals => write!(formatter, "{whole}.{decimals}"),
        }
    }
}

impl Rate {
    /// Returns the price for a call with the given number of input tokens. A tier applies to all units of the call.
    pub fn at(&self, input_tokens: u64) -> Price {
        self.tiers.iter().rev().find(|tier| input_tokens > tier.start).map_or(self.base, |tier| tier.price)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a number of dollars, or {\"base\": …, \"tiers\": [{\"start\": …, \"price\": …}]}"
        )]
        enum Form {
            Flat(f64),
            Tiered { base: f64, tiers: Vec<TierForm> },
        }
        #[derive(Deserialize)]
        struct TierForm {
            start: u64,
            price: f64,
        }
        let price = |dollars| Price::parse(dollars).map_err(D::Error::custom);
        match Form::deserialize(deserializer)? {
            Form::Flat(dollars) => Ok(Self { base: price(dollars)?, tiers: Vec::new() }),
            Form::Tiered { base, tiers } => {
                let tiers = tiers.into_iter().map(|tier| Ok(Tier { start: tier.start, price: price(tier.price)? }));
                let mut tiers = tiers.collect::<Result<Vec<Tier>, D::Error>>()?;
                tiers.sort_by_key(|tier| tier.start);
                Ok(Self { base: price(base)?, tiers })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_decimals() {
        for (dollars, text) in [
            (0.0, "0"),
            (2.5, "2.5"),
            (0.0375, "0.0375"),
            (600.0, "600"),
            (0.1, "0.1"),
            (1e-9, "0.000000001"),
            (0.18000000000000002, "0.18"),
        ] {
            assert_eq!(Price::parse(dollars).unwrap().to_string(), text);
        }
        assert_eq!(Price::parse(0.075).unwrap().femtodollars(), 75_000_000_000_000);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 10_000.0, 1e-17] {
            assert!(Price::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tier_applies_above_its_start() {
        let rate: Rate =
            serde_json::from_str(r#"{"base": 1, "tiers": [{"start": 200, "price": 3}, {"start": 100, "price": 2}]}"#)
                .unwrap();
        let at = |tokens| rate.at(tokens).to_string();
        assert_eq!([at(0), at(100), at(101), at(200), at(201)], ["1", "1", "2", "2", "3"]);
    }
}
