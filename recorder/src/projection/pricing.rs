//! The pricing of chats: a pure function of a chat's row, and of the published price lists and repricings.
//!
//! The row alone is priced, never the event, so that a row can be priced again at any time with the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use shared::event::Media;
use shared::prices::catalogue::{Catalogue, ListError};
use shared::prices::history::{ListsInForce, PriceHistory, PublishedList, RepricedSpan};
use shared::prices::{Charge, Cost, PriceBook, PricedCall, TokenCounts, with_whole_numbers};
use shared::usage::UsageSource;
use time::OffsetDateTime;

use super::chat::{Chat, ChatEnding, ChatOutcome};
use super::chat_cost::{CostOfChat, Pricing};

/// The number of lists and of combinations of lists after which all of them are forgotten. A list takes some megabytes.
const MAX_REMEMBERED: usize = 16;

/// The prices of all times: the history of publications, and the lists that were read so far.
#[derive(Debug, Default)]
pub struct Prices {
    history: PriceHistory,
    /// Lists by SHA-256. None for a list that this version cannot read: such a list is never in force.
    lists: BTreeMap<String, Option<Arc<Catalogue>>>,
    books: BTreeMap<ListsInForce, PriceBook>,
}

impl Prices {
    /// Returns the history of publications.
    pub fn history(&self) -> &PriceHistory {
        &self.history
    }

    /// Replaces the history of publications. Lists that were read stay, unless they are many.
    pub fn set_history(&mut self, history: PriceHistory) {
        if self.lists.len() > MAX_REMEMBERED || self.books.len() > MAX_REMEMBERED {
            self.lists.clear();
            self.books.clear();
        }
        self.history = history;
    }

    /// Adds a list to the history, as if it had been published.
    pub fn suppose_list(&mut self, list: PublishedList) {
        self.history.add_list(list);
    }

    /// Adds a repricing to the history, as if it had been published.
    pub fn suppose_repricing(&mut self, repricing: RepricedSpan) {
        self.history.add_repricing(repricing);
    }

    /// Returns the SHA-256 of each list that applies to calls of the given times and that was not read yet.
    pub fn missing_lists(&self, times: impl IntoIterator<Item = OffsetDateTime>) -> Vec<String> {
        let needed: BTreeSet<String> =
            times.into_iter().flat_map(|at| self.history.in_force(at).into_values()).collect();
        needed.into_iter().filter(|sha256| !self.lists.contains_key(sha256)).collect()
    }

    /// Adds the content of a list. A list that this version cannot read is never in force; the error says why.
    pub fn add_list(&mut self, sha256: &str, list: &str) -> Result<(), ListError> {
        let (list, outcome) = match Catalogue::parse(list.as_bytes()) {
            Ok(list) => (Some(Arc::new(list)), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.lists.insert(sha256.to_owned(), list);
        self.books.retain(|lists, _| lists.values().all(|other| other != sha256));
        outcome
    }

    /// Prices a chat that has ended. The lists of [`Self::missing_lists`] must have been added.
    pub fn price(&mut self, chat: &mut Chat) {
        let Some(ending) = &chat.ending else { return };
        let in_force = self.history.in_force(chat.started_at);
        let lists = &self.lists;
        let book = self.books.entry(in_force).or_insert_with_key(|in_force| {
            let list = |(layer, sha256): (&String, &String)| Some((layer.clone(), lists.get(sha256)?.clone()?));
            PriceBook::of(in_force.iter().filter_map(list))
        });
        let pricing = price(chat, ending, book);
        if let Some(ending) = &mut chat.ending {
            ending.pricing = pricing;
        }
    }
}

/// Prices a call with the given book. None if nothing is charged.
pub fn price(chat: &Chat, ending: &ChatEnding, book: &PriceBook) -> Option<Pricing> {
    let cost = match charge(ending) {
        Charge::Nothing => return None,
        Charge::Unknown => None,
        Charge::ByUsage => cost(chat, ending, book),
    };
    let base_version = || book.base_version(chat.started_at).to_owned();
    let price_version = cost.as_ref().map_or_else(base_version, |cost| cost.price_version.clone());
    Some(Pricing { price_version, cost: cost.as_ref().map(CostOfChat::new) })
}

fn charge(ending: &ChatEnding) -> Charge {
    let failed_at_stage = match ending.outcome {
        ChatOutcome::Failed { stage, .. } => Some(stage),
        ChatOutcome::Completed => None,
    };
    Charge::of(failed_at_stage, ending.usage.source, ending.has_message)
}

fn cost(chat: &Chat, ending: &ChatEnding, book: &PriceBook) -> Option<Cost> {
    let raw_usage = ending.usage.raw.as_ref().and_then(|raw| serde_json::from_str(raw.as_str()).ok());
    let raw_usage = with_whole_numbers(raw_usage.unwrap_or(Value::Null));
    let media = ending.media.as_ref().and_then(|media| serde_json::from_str::<Media>(media.as_str()).ok());
    let parts = ending.usage.parts;
    let is_counted = matches!(ending.usage.source, UsageSource::Reported | UsageSource::Estimated);
    let call = PricedCall {
        upstream: ending.upstream.as_ref().map_or("", |upstream| &upstream.name),
        answered_model: ending.upstream.as_ref().and_then(|upstream| upstream.model.as_deref()),
        requested_model: &chat.model,
        started_at: chat.started_at,
        tokens: is_counted.then_some(TokenCounts {
            uncached_input: parts.uncached_input.unsigned_abs(),
            cache_read: parts.cache_read.unsigned_abs(),
            cache_write: parts.cache_write.unsigned_abs(),
            output: parts.output.unsigned_abs(),
            reasoning: parts.reasoning.unsigned_abs(),
        }),
        raw_usage: &raw_usage,
        input_seconds: media.and_then(|media| media.input_seconds),
    };
    Cost::of_call(&call, book)
}
