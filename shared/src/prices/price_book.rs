//! The price lists in force at each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::catalogue::{Catalogue, Match, Model};
use super::embedded;

/// The layer of complete price lists. All other layers are overlays, such as negotiated prices, and are asked first.
pub const BASE_LAYER: &str = "base";

/// The longest name of a layer, in bytes.
const MAX_LAYER_BYTES: usize = 64;

/// Returns true for the name of a layer: 1 to 64 lower-case letters, digits, `-` and `_`.
pub fn is_layer_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=MAX_LAYER_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The price lists of all times, in layers. In each layer, the list that was put in force last for a time is the one of that time.
///
/// Where no complete list was published, the list that is part of the program is in force.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    layers: BTreeMap<String, Vec<Period>>,
}

/// The time for which a list is in force.
#[derive(Clone, Debug)]
struct Period {
    from: OffsetDateTime,
    until: Option<OffsetDateTime>,
    list: Arc<Catalogue>,
}

/// A model with its list, found for a call.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The list.
    pub list: &'a Catalogue,
    /// The id of the provider in the list.
    pub provider: &'a str,
    /// The model.
    pub model: &'a Model,
    /// False if the list refers to another provider's prices.
    pub is_own: bool,
}

impl PriceBook {
    /// Makes the book of lists that are in force at all times, by layer.
    pub fn of(lists: impl IntoIterator<Item = (String, Arc<Catalogue>)>) -> Self {
        let always = time::PrimitiveDateTime::MIN.assume_utc();
        let periods = lists.into_iter().map(|(layer, list)| (layer, vec![Period { from: always, until: None, list }]));
        Self { layers: periods.collect() }
    }

    /// Puts a list in force from `from` on, until `until` if given. Lists must be put in force in the order in which they were
    /// published: a later one prevails for the time that both name.
    pub fn put_in_force(
        &mut self,
        layer: &str,
        from: OffsetDateTime,
        until: Option<OffsetDateTime>,
        list: Arc<Catalogue>,
    ) {
        self.layers.entry(layer.to_owned()).or_default().push(Period { from, until, list });
    }

    /// Finds the model of a call in the lists in force when the call started: in the overlays by name, then in the base. In an
    /// overlay, the provider has the name of the upstream, or the id that the base list gives to the provider.
    pub fn find(
        &self,
        started_at: OffsetDateTime,
        upstream: &str,
        answered_model: Option<&str>,
        requested_model: &str,
    ) -> Option<Found<'_>> {
        let models: Vec<&str> = answered_model.into_iter().chain([requested_model]).collect();
        let base = self.base(started_at);
        let overlays = self.layers.keys().filter(|layer| *layer != BASE_LAYER);
        let overlays = overlays.filter_map(|layer| self.in_force(layer, started_at));
        let mut in_base = None;
        for overlay in overlays {
            let found = *in_base.get_or_insert_with(|| base.find(&[upstream], &models));
            let names: Vec<&str> = [Some(upstream), found.map(|found| found.provider)].into_iter().flatten().collect();
            if let Some(found) = overlay.find(&names, &models) {
                return Some(Found::new(overlay, found));
            }
        }
        let found = in_base.unwrap_or_else(|| base.find(&[upstream], &models))?;
        Some(Found::new(base, found))
    }

    /// Returns the version of the complete list in force at a time.
    pub fn base_version(&self, at: OffsetDateTime) -> &str {
        self.base(at).version()
    }

    fn base(&self, at: OffsetDateTime) -> &Catalogue {
        self.in_force(BASE_LAYER, at).unwrap_or_else(|| embedded::catalogue())
    }

    fn in_force(&self, layer: &str, at: OffsetDateTime) -> Option<&Catalogue> {
        let mut periods = self.layers.get(layer)?.iter().rev();
        periods.find(|period| period.contains(at)).map(|period| &*period.list)
    }
}

impl Period {
    fn contains(&self, at: OffsetDateTime) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

impl<'a> Found<'a> {
    fn new(list: &'a Catalogue, found: Match<'a>) -> Self {
        Self { list, provider: found.provider, model: found.model, is_own: found.is_own }
    }
}
