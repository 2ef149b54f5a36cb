//! The output items of a stream, told apart by their ids and their output indexes.
//!
//! OpenAI gives each item an id and an output index. Imitations leave out one or both, give all items the index 0, name
//! the call id in `item_id`, or give the same item another id in each event. An event is therefore assigned to an item
//! by a known id first, then by its output index, and then by the order of the items.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::item_kind::ItemKind;

/// The maximum number of items. Later items are not told apart.
const MAX_ITEMS: usize = 4096;

/// The maximum number of ids that are remembered for one item.
const MAX_IDS_PER_ITEM: usize = 8;

/// The items of one response, in the order in which events first named them.
#[derive(Debug, Default)]
pub(super) struct ItemTable {
    items: Vec<Item>,
    /// The position of the item that the last event was assigned to.
    last_position: usize,
}

/// An item as known so far.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// The index of the item's tool call in the transcript.
    pub(super) call: Option<usize>,
    /// True if the item has been counted as a call of the provider's own tools.
    pub(super) is_counted: bool,
    /// The kind; `None` while only a delta has named the item.
    kind: Option<ItemKind>,
    output_index: Option<u64>,
    /// The hashes of the item's id, of its call id and of other ids that events used for the item.
    ids: Vec<u64>,
    /// True if an event named the item by an id other than the call id.
    has_own_id: bool,
    /// True after the event that opens the item.
    is_opened: bool,
    /// True after the event with the complete item.
    is_done: bool,
}

/// The place of an event in the course of its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The event opens the item.
    Opened,
    /// The event has a part of the item.
    Within,
    /// The event has the complete item.
    Done,
}

/// The members of an event that tell its item.
#[derive(Clone, Copy, Debug)]
pub(super) struct ItemReference<'a> {
    pub(super) stage: Stage,
    pub(super) kind: Option<ItemKind>,
    pub(super) output_index: Option<u64>,
    pub(super) item_id: Option<&'a str>,
    pub(super) call_id: Option<&'a str>,
}

impl ItemTable {
    /// Returns the item at a position.
    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut Item> {
        self.items.get_mut(position)
    }

    /// Adds an item of a complete list. `None` if the maximum number is reached.
    pub(super) fn push(&mut self, kind: ItemKind) -> Option<usize> {
        self.add(Item { kind: Some(kind), is_done: true, ..Item::default() })
    }

    /// Returns the position of the item that an event refers to. Adds the item if no known item fits. `None` if the
    /// maximum number is reached.
    pub(super) fn assign(&mut self, reference: &ItemReference<'_>) -> Option<usize> {
        let (item_id, call_id) = (reference.item_id.map(hash), reference.call_id.map(hash));
        let position = match self.find(reference, item_id, call_id) {
            Some(position) => position,
            None => self.add(Item::default())?,
        };
        let item = &mut self.items[position];
        for id in [item_id, call_id].into_iter().flatten() {
            if item.ids.len() < MAX_IDS_PER_ITEM && !item.ids.contains(&id) {
                item.ids.push(id);
            }
        }
        // Some imitations name the call id in `item_id`.
        item.has_own_id |= item_id.is_some() && item_id != call_id;
        item.output_index = item.output_index.or(reference.output_index);
        item.is_opened |= reference.stage == Stage::Opened;
        item.is_done |= reference.stage == Stage::Done;
        item.kind = match reference.stage {
            Stage::Within => item.kind.or(reference.kind),
            Stage::Opened | Stage::Done => reference.kind.or(item.kind),
        };
        self.last_position = position;
        Some(position)
    }

    fn find(&self, reference: &ItemReference<'_>, item_id: Option<u64>, call_id: Option<u64>) -> Option<usize> {
        item_id
            .and_then(|id| self.position_of_id(id))
            .or_else(|| call_id.and_then(|id| self.position_of_id(id)))
            .or_else(|| match reference.output_index {
                Some(index) => self.find_by_index(reference, index),
                None => self.find_by_order(reference),
            })
    }

    fn position_of_id(&self, id: u64) -> Option<usize> {
        // Most events belong to the item of the event before.
        if self.items.get(self.last_position).is_some_and(|item| item.ids.contains(&id)) {
            return Some(self.last_position);
        }
        self.items.iter().rposition(|item| item.ids.contains(&id))
    }

    /// Finds the last item with the output index, unless the event must belong to another item with the same index.
    fn find_by_index(&self, reference: &ItemReference<'_>, index: u64) -> Option<usize> {
        let has_index = |item: &Item| item.output_index == Some(index) && item.fits(reference.kind);
        let Some(position) = self.items.iter().rposition(has_index) else {
            // An earlier event may have named the item without its index and id.
            return self.items.iter().position(|item| {
                item.output_index.is_none() && item.ids.is_empty() && !item.is_done && item.fits(reference.kind)
            });
        };
        let item = &self.items[position];
        let has_id = reference.item_id.is_some() || reference.call_id.is_some();
        let is_same = match reference.stage {
            Stage::Opened if item.is_opened => !item.is_done && (!has_id || item.ids.is_empty()),
            Stage::Opened | Stage::Done => !item.is_done,
            Stage::Within => !(item.is_done && has_id),
        };
        is_same.then_some(position)
    }

    /// Finds an item for an event without an output index and with an unknown id, or without an id.
    fn find_by_order(&self, reference: &ItemReference<'_>) -> Option<usize> {
        let is_open = |item: &Item| !item.is_done && item.fits(reference.kind);
        if reference.item_id.is_some() {
            // Items take their ids in their order.
            return self.items.iter().position(|item| {
                is_open(item) && !item.has_own_id && (reference.stage != Stage::Opened || !item.is_opened)
            });
        }
        match reference.stage {
            Stage::Opened => self.items.iter().rposition(|item| is_open(item) && !item.is_opened),
            Stage::Within => self
                .items
                .iter()
                .rposition(is_open)
                .or_else(|| self.items.iter().rposition(|item| item.fits(reference.kind))),
            Stage::Done if reference.call_id.is_some() => {
                self.items.iter().position(|item| is_open(item) && item.ids.is_empty())
            }
            Stage::Done => self.items.iter().position(is_open),
        }
    }

    fn add(&mut self, item: Item) -> Option<usize> {
        (self.items.len() < MAX_ITEMS).then(|| {
            self.items.push(item);
            self.items.len() - 1
        })
    }
}

impl Item {
    /// True if the item is of this kind, or if one of the kinds is not known.
    fn fits(&self, kind: Option<ItemKind>) -> bool {
        self.kind.is_none() || kind.is_none() || self.kind == kind
    }
}

/// The hash of an id: ids can be long, and are only compared.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
