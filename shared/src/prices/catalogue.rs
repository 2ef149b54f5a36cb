//! A price list: providers, their models, and the prices of each model by date, time of day and service tier. The format is
//! that of genai-prices.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use sha2::{Digest as _, Sha256};
use time::{Date, OffsetDateTime, Time, UtcOffset};

use super::matches::Matches;
use super::price_key::PriceKey;
use super::rate::Rate;
use super::rule::{Rule, with_dashed_dates};

/// The largest price list that is read, in bytes.
pub const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// The number of hexadecimal digits of a list's hash that name the list in rows.
const VERSION_DIGITS: usize = 16;

/// A price list that has been read and checked.
#[derive(Debug)]
pub struct Catalogue {
    sha256: String,
    providers: Vec<Provider>,
    matches: Matches,
}

/// A provider of a price list.
#[derive(Debug, Deserialize)]
struct Provider {
    id: String,
    #[serde(default)]
    model_match: Option<Rule>,
    #[serde(default)]
    provider_match: Option<Rule>,
    #[serde(default)]
    fallback_model_providers: Vec<String>,
    models: Vec<Model>,
}

/// A model of a price list.
#[derive(Debug, Deserialize)]
pub struct Model {
    /// The name of the model in the list.
    pub id: String,
    #[serde(rename = "match")]
    rule: Rule,
    #[serde(deserialize_with = "dated_prices")]
    prices: Vec<DatedPrices>,
    #[serde(default)]
    price_variants: Vec<Variant>,
    /// The maximum number of tokens of prompt and answer together, where the list names it.
    #[serde(default)]
    pub context_window: Option<u64>,
}

/// Prices that are in force from a date, or at some time of each day.
#[derive(Debug, Deserialize)]
struct DatedPrices {
    #[serde(default)]
    constraint: Option<Constraint>,
    prices: RateCard,
}

/// Prices that replace the standard ones in a service tier.
#[derive(Debug, Deserialize)]
struct Variant {
    when: BTreeMap<String, String>,
    #[serde(default)]
    constraint: Option<Constraint>,
    prices: RateCard,
}

/// The prices of one model at one time. Empty if the model is free of charge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateCard(pub BTreeMap<PriceKey, Rate>);

#[derive(Debug)]
enum Constraint {
    StartDate(Date),
    TimeOfDay { start: Time, end: Time },
}

/// A model that was found for a call, and the provider whose prices apply.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The id of the provider in the list.
    pub provider: &'a str,
    /// The model.
    pub model: &'a Model,
    /// False if the price is that of another provider, to which the list refers. Service tiers do not apply then.
    pub is_own: bool,
}

/// An error in a price list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file is larger than [`MAX_LIST_BYTES`].
    #[error("the price list has {0} bytes, expected at most {MAX_LIST_BYTES}")]
    TooLarge(usize),
    /// The file is no JSON in the format of a price list.
    #[error("expected a price list in the format of genai-prices, a JSON array of providers")]
    Format(#[from] serde_json::Error),
    /// The list contradicts itself.
    #[error("provider {provider:?}: {problem}")]
    Provider {
        /// The id of the provider.
        provider: String,
        /// The problem in words.
        problem: String,
    },
}

// === impl Catalogue ===

impl Catalogue {
    /// Reads and checks a price list.
    pub fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(ListError::TooLarge(bytes.len()));
        }
        let mut providers: Vec<Provider> = serde_json::from_slice(bytes)?;
        for index in 0..providers.len() {
            let before = &providers[..index];
            let provider = &providers[index];
            let is_repeated = before.iter().any(|other| other.id.eq_ignore_ascii_case(&provider.id));
            let problem = if is_repeated { Err("the provider is named twice".to_owned()) } else { provider.check() };
            problem.map_err(|problem| ListError::Provider { provider: provider.id.clone(), problem })?;
        }
        providers.iter_mut().for_each(|provider| provider.id = provider.id.to_lowercase());
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { sha256, providers, matches: Matches::default() })
    }

    /// Returns the SHA-256 of the list, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the name of the list in rows: the first 16 digits of its hash.
    pub fn version(&self) -> &str {
        &self.sha256[..VERSION_DIGITS]
    }

    /// Returns the number of models.
    pub fn models(&self) -> usize {
        self.providers.iter().map(|provider| provider.models.len()).sum()
    }

    /// Finds the provider and the model of a call. `provider_names` and `model_names` are tried in their order; the provider of an
    /// unknown name is found by the model's name.
    pub fn find(&self, provider_names: &[&str], model_names: &[&str]) -> Option<Match<'_>> {
        let found = self.matches.get_or_find(provider_names, model_names, || self.search(provider_names, model_names));
        let (selected, owner, model) = found?;
        let provider = self.providers.get(owner)?;
        Some(Match { provider: &provider.id, model: provider.models.get(model)?, is_own: selected == owner })
    }

    /// Returns the positions of the selected provider, of the provider that has the model, and of the model.
    fn search(&self, provider_names: &[&str], model_names: &[&str]) -> Option<(usize, usize, usize)> {
        let models: Vec<String> = model_names.iter().map(|name| name.to_lowercase()).collect();
        let mut by_name: Vec<usize> = provider_names.iter().filter_map(|name| self.provider(name)).collect();
        by_name.dedup();
        models.iter().find_map(|model| {
            let of_model = if by_name.is_empty() { self.provider_of_model(model) } else { None };
            by_name.iter().copied().chain(of_model).find_map(|selected| {
                let (owner, index) = self
                    .model(selected, model)
                    .or_else(|| with_dashed_dates(model).and_then(|dashed| self.model(selected, &dashed)))?;
                Some((selected, owner, index))
            })
        })
    }

    fn provider(&self, name: &str) -> Option<usize> {
        let name = name.trim().to_lowercase();
        let is_known_as =
            |provider: &Provider| provider.provider_match.as_ref().is_some_and(|rule| rule.matches(&name));
        let by_id = self.providers.iter().position(|provider| provider.id == name);
        by_id.or_else(|| self.providers.iter().position(is_known_as))
    }

    fn provider_of_model(&self, model: &str) -> Option<usize> {
        let has = |provider: &Provider| provider.model_match.as_ref().is_some_and(|rule| rule.matches(model));
        self.providers.iter().position(has)
    }

    /// Returns the position of a model, in the provider itself or in the providers to which it refers.
    fn model(&self, selected: usize, name: &str) -> Option<(usize, usize)> {
        let within = |provider: usize| {
            let models = &self.providers[provider].models;
            models.iter().position(|model| model.rule.matches(name)).map(|model| (provider, model))
        };
        within(selected).or_else(|| {
            let others = self.providers[selected].fallback_model_providers.iter();
            others.filter_map(|id| self.providers.iter().position(|provider| provider.id == *id)).find_map(within)
        })
    }
}

// === impl Provider ===

impl Provider {
    fn check(&self) -> Result<(), String> {
        if self.id.trim().is_empty() {
            return Err("the id is empty".to_owned());
        }
        for rule in self.model_match.iter().chain(&self.provider_match) {
            rule.check()?;
        }
        self.models
            .iter()
            .try_for_each(|model| model.check().map_err(|problem| format!("model {:?}: {problem}", model.id)))
    }
}

// === impl Model ===

impl Model {
    /// Returns the prices of a call that started at the given time, in the given context, such as a service tier.
    pub fn rates(&self, at: OffsetDateTime, context: &[(&str, &str)]) -> RateCard {
        let is_active = |constraint: &Option<Constraint>| constraint.as_ref().is_none_or(|one| one.is_active(at));
        let standard = self.prices.iter().rev().find(|dated| is_active(&dated.constraint)).or(self.prices.first());
        let mut card = standard.map(|dated| dated.prices.clone()).unwrap_or_default();
        let said = |(key, value): (&String, &String)| context.iter().any(|(k, v)| k == key && v == value);
        let variants = self.price_variants.iter();
        // The first variant that names a price decides about it.
        for variant in variants.filter(|variant| is_active(&variant.constraint) && variant.when.iter().all(said)).rev()
        {
            card.0.extend(variant.prices.0.iter().map(|(key, rate)| (*key, rate.clone())));
        }
        card
    }

    /// Returns the standard prices and the prices of each service tier, of calls that start at the given time.
    pub fn all_rates(&self, at: OffsetDateTime) -> Vec<RateCard> {
        let tiers = self.price_variants.iter().map(|variant| {
            let context: Vec<_> = variant.when.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            self.rates(at, &context)
        });
        [self.rates(at, &[])].into_iter().chain(tiers).collect()
    }

    fn check(&self) -> Result<(), String> {
        self.rule.check()?;
        if self.prices.iter().filter(|dated| dated.constraint.is_none()).count() != 1 {
            return Err("expected exactly one price without a date or time of day".to_owned());
        }
        self.prices.iter().try_for_each(|dated| dated.prices.check())?;
        if self.price_variants.iter().any(|variant| variant.when.is_empty()) {
            return Err("a price variant says nothing in \"when\"".to_owned());
        }
        Ok(())
    }
}

fn dated_prices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DatedPrices>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let read = if value.is_array() {
        serde_json::from_value(value)
    } else {
        serde_json::from_value(value).map(|prices| vec![DatedPrices { constraint: None, prices }])
    };
    read.map_err(D::Error::custom)
}

// === impl RateCard ===

impl RateCard {
    fn check(&self) -> Result<(), String> {
        for key in self.0.keys() {
            if let Some(required) = key.required().filter(|required| !self.0.contains_key(required)) {
                return Err(format!("the prices have {} without {}", key.name(), required.name()));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for RateCard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rates = BTreeMap::<String, Option<serde_json::Value>>::deserialize(deserializer)?;
        let read = rates.into_iter().filter_map(|(name, rate)| Some((name, rate?))).map(|(name, rate)| {
            let key = PriceKey::from_name(&name)
                .ok_or_else(|| D::Error::custom(format!("unknown price {name:?}, which this version cannot apply")))?;
            let rate = serde_json::from_value(rate).map_err(|error| D::Error::custom(format!("{name}: {error}")))?;
            Ok((key, rate))
        });
        read.collect::<Result<_, _>>().map(Self)
    }
}

// === impl Constraint ===

impl Constraint {
    fn is_active(&self, at: OffsetDateTime) -> bool {
        let at = at.to_offset(UtcOffset::UTC);
        match *self {
            Self::StartDate(date) => at.date() >= date,
            Self::TimeOfDay { start, end } if end < start => at.time() >= start || at.time() < end,
            Self::TimeOfDay { start, end } => start <= at.time() && at.time() < end,
        }
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            start_date: Option<String>,
            start_time: Option<String>,
            end_time: Option<String>,
        }
        let date = |text: &str| {
            Date::parse(text, time::macros::format_description!("[year]-[month]-[day]"))
                .map_err(|_| D::Error::custom(format!("{text:?} is no date, expected YYYY-MM-DD")))
        };
        let time = |text: &str| {
            utc_time(text).ok_or_else(|| D::Error::custom(format!("{text:?} is no time, expected 16:30:00Z")))
        };
        let Form { start_date, start_time, end_time } = Form::deserialize(deserializer)?;
        match (start_date, start_time, end_time) {
            (Some(start), None, None) => date(&start).map(Self::StartDate),
            (None, Some(start), Some(end)) => Ok(Self::TimeOfDay { start: time(&start)?, end: time(&end)? }),
            _ => Err(D::Error::custom("expected a constraint with start_date, or with start_time and end_time")),
        }
    }
}

/// Reads a time of day with an offset, such as `01:30:00+02:00`, as a time of day in UTC.
fn utc_time(text: &str) -> Option<Time> {
    let at = format!("2000-01-02T{text}");
    let at = OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).ok()?;
    Some(at.to_offset(UtcOffset::UTC).time())
}
