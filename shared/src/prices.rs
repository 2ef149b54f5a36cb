//! Prices and costs: pure functions of a call's usage and of price lists.
//!
//! A price list has the format of genai-prices. The list that is part of the program is version 0; published lists replace it from
//! the time that each names. A cost is in nano-dollars, exact up to one rounding of the whole.

pub mod catalogue;
pub mod charged_call;
pub mod cost;
pub mod embedded;
pub mod history;
pub mod price_book;
pub mod price_key;
pub mod quantities;
pub mod rate;
pub mod rule;
pub mod token_prices;

mod matches;

pub use charged_call::{Charge, ChargedCall, with_whole_numbers};
pub use cost::{Cost, PricedCall, provider_cost};
pub use history::PriceHistory;
pub use price_book::PriceBook;
pub use quantities::{CostPart, TokenCounts};
pub use token_prices::TokenPrices;
