//! The arguments of a function call that arrive in pieces (`partialArgs`). A piece names the place of a value by a JSON path,
//! and has the value: a number, a boolean, a null, or the next part of a text.
//!
//! The pieces of one place are joined as they arrive, so that a long text costs no more than its length. The object is built
//! when the call is complete. Pieces that make no object (a path that names no single value, a place that has a value
//! already, a list with a gap) are recorded as a list of pieces instead, so that nothing is lost.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::json_path::{Step, parse_path};
use crate::json::lenient::{Members, Text, compact};
use crate::json::repair::replace_invalid_text;
use crate::response::transcript::Transcript;

/// The room that a value takes besides its path and its text, in bytes: its place in memory, which is more than the names and
/// commas around it in the record.
const VALUE_BYTES: usize = 96;

/// The maximum length that a byte of a path takes in a record: an escape of JSON.
const ESCAPED_BYTES: usize = 6;

/// The arguments of one call, as far as they have arrived.
#[derive(Debug, Default)]
pub(super) struct PartialArguments {
    /// The values and the misfits, in the order in which they began.
    parts: Vec<Part>,
    /// The positions of the values by their paths.
    positions: HashMap<Arc<str>, usize>,
    /// The position of the value that had the last piece.
    last: usize,
    /// The room that the parts have taken in the transcript, at least the length of the record.
    room: usize,
    /// True if a piece was left out, because the transcript has no more room. Later pieces are left out too.
    is_full: bool,
}

#[derive(Debug)]
enum Part {
    Value {
        path: Arc<str>,
        value: Value,
    },
    /// A piece without a path or without a known value, as sent.
    Misfit(String),
}

/// A value as JSON.
#[derive(Debug)]
enum Value {
    /// The inside of a JSON string, with escapes as sent. Halves of a surrogate pair may arrive in two pieces.
    Text(String),
    /// A number, a boolean or a null.
    Literal(String),
}

/// The record of the arguments of a call.
#[derive(Debug)]
pub(super) struct RecordedArguments {
    pub(super) json: String,
    /// The room in the transcript that was taken for the record.
    pub(super) room: usize,
    /// A note about the record.
    pub(super) note: Option<&'static str>,
}

impl PartialArguments {
    /// True if no piece has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds a piece. The transcript gives the room.
    pub(super) fn push(&mut self, transcript: &mut Transcript, piece: &RawValue) {
        if self.is_full {
            return transcript.mark_truncated();
        }
        match Piece::read(piece.get()) {
            Some(Piece { value: None, .. }) => {}
            Some(Piece { path, value: Some(value) }) if !path.is_empty() => {
                if !self.push_value(transcript, &path, value) {
                    self.push_misfit(transcript, piece);
                }
            }
            _ => self.push_misfit(transcript, piece),
        }
    }

    /// Adds a value, or continues a text. Returns false if the place has another value already.
    fn push_value(&mut self, transcript: &mut Transcript, path: &str, new: PieceValue<'_>) -> bool {
        let has_path = |part: &Part| matches!(part, Part::Value { path: known, .. } if **known == *path);
        let known = match self.parts.get(self.last) {
            Some(part) if has_path(part) => Some(self.last),
            _ => self.positions.get(path).copied(),
        };
        let Some(position) = known else {
            let (PieceValue::Text(text) | PieceValue::Literal(text)) = new;
            if self.take_room(transcript, ESCAPED_BYTES * path.len() + text.len() + VALUE_BYTES) {
                let path: Arc<str> = path.into();
                self.last = self.parts.len();
                self.positions.insert(path.clone(), self.last);
                self.parts.push(Part::Value { path, value: new.to_value() });
            }
            return true;
        };
        self.last = position;
        let taken = match new {
            PieceValue::Text(text) => self.take_room(transcript, text.len()),
            PieceValue::Literal(_) => true,
        };
        match (&mut self.parts[position], new) {
            (Part::Value { value: Value::Text(text), .. }, PieceValue::Text(more)) => {
                text.push_str(if taken { more } else { "" });
                true
            }
            (Part::Value { value: Value::Literal(known), .. }, PieceValue::Literal(again)) => known == again,
            _ => false,
        }
    }

    fn push_misfit(&mut self, transcript: &mut Transcript, piece: &RawValue) {
        let piece = compact(piece);
        if self.take_room(transcript, piece.len() + VALUE_BYTES) {
            self.parts.push(Part::Misfit(piece));
        }
    }

    fn take_room(&mut self, transcript: &mut Transcript, bytes: usize) -> bool {
        self.is_full |= !transcript.take_room(bytes);
        self.room += if self.is_full { 0 } else { bytes };
        !self.is_full
    }

    /// Returns the record: the object, or else the list of the pieces.
    pub(super) fn into_record(self) -> RecordedArguments {
        let (json, mut note) = match Tree::build(&self.parts) {
            Some(tree) => (tree.to_json(), None),
            None => (self.pieces_json(), Some("arguments_in_pieces")),
        };
        let has_surrogates = memchr::memmem::find(json.as_bytes(), br"\u").is_some();
        let mended = if has_surrogates { replace_invalid_text(json.as_bytes()) } else { None };
        if mended.is_some() {
            note = note.or(Some("text_mended"));
        }
        RecordedArguments { json: mended.unwrap_or(json), room: self.room, note }
    }

    /// The pieces as a JSON list. Those of one text are one.
    fn pieces_json(&self) -> String {
        let mut json = String::from("[");
        for part in &self.parts {
            if json.len() > 1 {
                json.push(',');
            }
            match part {
                Part::Misfit(piece) => json.push_str(piece),
                Part::Value { path, value } => {
                    json.push_str(r#"{"jsonPath":"#);
                    push_quoted(&mut json, path);
                    json.push_str(match value {
                        Value::Text(_) => r#","stringValue":"#,
                        Value::Literal(literal) => match literal.as_bytes() {
                            [b't' | b'f', ..] => r#","boolValue":"#,
                            [b'n', ..] => r#","nullValue":"#,
                            _ => r#","numberValue":"#,
                        },
                    });
                    value.push_to(&mut json);
                    json.push('}');
                }
            }
        }
        json.push(']');
        json
    }
}

impl Value {
    fn push_to(&self, json: &mut String) {
        match self {
            Self::Text(text) => json.extend(["\"", text, "\""]),
            Self::Literal(literal) => json.push_str(literal),
        }
    }
}

/// A piece as sent.
struct Piece<'a> {
    path: Cow<'a, str>,
    value: Option<PieceValue<'a>>,
}

/// The value of a piece as JSON, see [`Value`].
#[derive(Clone, Copy)]
enum PieceValue<'a> {
    Text(&'a str),
    Literal(&'a str),
}

impl<'a> Piece<'a> {
    /// Reads a piece. `None` if the piece has no known form. Some services write the members of other types as null.
    fn read(json: &'a str) -> Option<Self> {
        let members: Members<'a> = serde_json::from_str(json).ok()?;
        let (mut path, mut value, mut has_null) = (Cow::Borrowed(""), None, false);
        for (name, raw) in &members.0 {
            let raw: &'a str = raw.get();
            let read = match (name.as_ref(), raw.as_bytes()) {
                ("jsonPath", _) => {
                    path = serde_json::from_str::<Text<'a>>(raw).ok()?.0.unwrap_or_default();
                    continue;
                }
                ("nullValue", _) => {
                    has_null = true;
                    continue;
                }
                ("stringValue", [b'"', .., b'"']) => PieceValue::Text(&raw[1..raw.len() - 1]),
                ("numberValue", [b'-' | b'0'..=b'9', ..]) | ("boolValue", b"true" | b"false") => {
                    PieceValue::Literal(raw)
                }
                (name, value) if !name.ends_with("Value") || value == b"null" => continue,
                _ => return None,
            };
            if value.replace(read).is_some() {
                return None;
            }
        }
        Some(Self { path, value: value.or(has_null.then_some(PieceValue::Literal("null"))) })
    }
}

impl PieceValue<'_> {
    fn to_value(self) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::Literal(literal) => Value::Literal(literal.to_owned()),
        }
    }
}

/// The object that the values make. The nodes refer to each other by position; the first node is the object.
struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

enum Node<'a> {
    /// A member that is known, and has no value yet.
    Open,
    Object {
        members: Vec<(Rc<str>, usize)>,
        positions: HashMap<Rc<str>, usize>,
    },
    List(BTreeMap<u32, usize>),
    Value(&'a Value),
}

impl<'a> Tree<'a> {
    /// Builds the object. `None` if the parts make none.
    fn build(parts: &'a [Part]) -> Option<Self> {
        let mut tree = Self { nodes: vec![Node::Object { members: Vec::new(), positions: HashMap::new() }] };
        for part in parts {
            let Part::Value { path, value } = part else { return None };
            let mut at = 0;
            for step in parse_path(path)? {
                at = tree.child(at, step)?;
            }
            match &mut tree.nodes[at] {
                open @ Node::Open => *open = Node::Value(value),
                _ => return None,
            }
        }
        let has_gap = |list: &BTreeMap<u32, usize>| list.keys().zip(0..).any(|(index, expected)| *index != expected);
        tree.nodes.iter().all(|node| !matches!(node, Node::List(list) if has_gap(list))).then_some(tree)
    }

    /// Returns a part of the node, which is made an object or a list if nothing is known of it. `None` if the node is of
    /// another kind.
    fn child(&mut self, at: usize, step: Step<'_>) -> Option<usize> {
        let new = self.nodes.len();
        if matches!(self.nodes[at], Node::Open) {
            self.nodes[at] = match step {
                Step::Member(_) => Node::Object { members: Vec::new(), positions: HashMap::new() },
                Step::Element(_) => Node::List(BTreeMap::new()),
            };
        }
        let child = match (&mut self.nodes[at], step) {
            (Node::Object { members, positions }, Step::Member(name)) => match positions.get(name.as_ref()) {
                Some(known) => *known,
                None => {
                    let name: Rc<str> = name.into();
                    members.push((name.clone(), new));
                    positions.insert(name, new);
                    new
                }
            },
            (Node::List(elements), Step::Element(index)) => *elements.entry(index).or_insert(new),
            _ => return None,
        };
        if child == new {
            self.nodes.push(Node::Open);
        }
        Some(child)
    }

    fn to_json(&self) -> String {
        let mut json = String::new();
        self.push_node(0, &mut json);
        json
    }

    /// Writes a node. The depth is bounded by the number of steps of a path.
    fn push_node(&self, at: usize, json: &mut String) {
        match &self.nodes[at] {
            // Every path ends at a value.
            Node::Open => json.push_str("null"),
            Node::Value(value) => value.push_to(json),
            Node::Object { members, .. } => {
                for (number, (name, child)) in members.iter().enumerate() {
                    json.push(if number == 0 { '{' } else { ',' });
                    push_quoted(json, name);
                    json.push(':');
                    self.push_node(*child, json);
                }
                json.push_str(if members.is_empty() { "{}" } else { "}" });
            }
            Node::List(elements) => {
                for (number, child) in elements.values().enumerate() {
                    json.push(if number == 0 { '[' } else { ',' });
                    self.push_node(*child, json);
                }
                json.push(']');
            }
        }
    }
}

fn push_quoted(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}
