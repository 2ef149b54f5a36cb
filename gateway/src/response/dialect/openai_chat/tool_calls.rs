//! Assigns the pieces of tool calls in a stream to calls. Providers differ in the members that they send: an id only
//! with the first piece or with each piece, an index for each call, the index 0 for all calls, or neither.
//!
//! A piece belongs to, in this order:
//!
//! 1. the call with the piece's id;
//! 2. the call with the piece's index, if the piece has no id, or another id but no name;
//! 3. the last call, if the piece has no index;
//! 4. a new call otherwise, or if the piece has a name and cannot continue the call found so far. A piece cannot continue
//!    a call that has another name or another id, or whose arguments are a complete object.

use serde::de::IgnoredAny;
use shared::event::ToolCall;

use super::shape::ToolCallPiece;
use crate::response::transcript::{Transcript, TranscriptPart};

/// The tool calls of one choice, at the same positions as in the transcript.
#[derive(Debug, Default)]
pub(super) struct ToolCallTable {
    calls: Vec<CallKeys>,
    /// The position of the call that the last piece belongs to.
    latest: Option<usize>,
    /// The maximum number of calls is reached, and further calls are not recorded.
    is_full: bool,
}

/// The keys of a call, in addition to the id in the transcript.
#[derive(Debug, Default)]
struct CallKeys {
    /// The index of the last piece that had one.
    index: Option<u64>,
    /// The id of later pieces, if it differs from the first.
    second_id: Option<String>,
}

/// The maximum length of a second id that is remembered, in bytes.
const MAX_ID_BYTES: usize = 256;

impl ToolCallTable {
    /// Adds the pieces of one delta to the transcript.
    pub(super) fn fold_pieces(&mut self, transcript: &mut Transcript, pieces: &[ToolCallPiece<'_>]) {
        let open_before = self.calls.len();
        if let Some(first) = self.group(transcript, pieces) {
            for (position, piece) in (first..).zip(pieces) {
                self.extend(transcript, position, piece);
            }
            return;
        }
        for (place, piece) in pieces.iter().enumerate() {
            // The pieces of one delta belong to different calls if they have names.
            let is_apart = |position: usize| {
                piece.name().is_some() && (position >= open_before || (place > 0 && piece.index.is_none()))
            };
            let known = match self.with_id(transcript, piece.id()) {
                Some(position) => Some(position),
                None => self
                    .candidate(piece)
                    .filter(|position| !is_apart(*position) && self.continues(transcript, *position, piece)),
            };
            match known.or_else(|| self.open(transcript)) {
                Some(position) => self.extend(transcript, position, piece),
                None => return,
            }
        }
    }

    /// Adds complete calls to the transcript, each as a new call.
    pub(super) fn fold_complete(&mut self, transcript: &mut Transcript, calls: &[ToolCallPiece<'_>]) {
        for call in calls {
            let Some(position) = self.open(transcript) else { return };
            self.extend(transcript, position, call);
        }
    }

    /// Adds to the transcript what it lacks of these complete calls. The calls are found by their ids, and else by their
    /// positions.
    pub(super) fn fill_in(&mut self, transcript: &mut Transcript, calls: &[ToolCallPiece<'_>]) {
        let known = self.calls.len();
        for (place, call) in calls.iter().enumerate() {
            let position = self.with_id(transcript, call.id()).or(Some(place).filter(|place| *place < known));
            let Some(position) = position.or_else(|| self.open(transcript)) else { return };
            transcript.name_tool_call(position, call.id(), call.name());
            transcript.append_missing(TranscriptPart::Arguments(position), &call.arguments);
        }
    }

    fn with_id(&self, transcript: &Transcript, id: Option<&str>) -> Option<usize> {
        let id = id?;
        let first = transcript.tool_calls.iter().rposition(|call| call.id == id);
        first.or_else(|| self.calls.iter().rposition(|keys| keys.second_id.as_deref() == Some(id)))
    }

    /// The call that a piece without a known id may continue.
    fn candidate(&self, piece: &ToolCallPiece<'_>) -> Option<usize> {
        let latest = self.latest?;
        if piece.index.is_some() && self.calls[latest].index == piece.index {
            return Some(latest);
        }
        let with_index = self.calls.iter().rposition(|keys| piece.index.is_some() && keys.index == piece.index);
        if self.is_full || with_index.is_some() {
            return with_index;
        }
        if piece.index.is_none() {
            return Some(latest);
        }
        // A piece with a new index and neither id nor name has nothing that a call begins with.
        Some(latest).filter(|_| piece.id().is_none() && piece.name().is_none())
    }

    /// True if the piece can be a continuation of the call.
    fn continues(&self, transcript: &Transcript, position: usize, piece: &ToolCallPiece<'_>) -> bool {
        let call = &transcript.tool_calls[position];
        let has_index = piece.index.is_some();
        match (piece.id(), piece.name()) {
            (None, None) => true,
            (Some(_), None) if call.id.is_empty() => !is_continued_after_end(call, piece),
            (Some(_), None) if has_index => true,
            // Without an index, a piece with arguments continues the call, and a piece without announces a call.
            (Some(_), None) => !piece.arguments.is_empty() && !is_complete(call),
            (Some(_), Some(_)) if !call.id.is_empty() => false,
            (_, Some(name)) if call.name.is_empty() || call.name == name => !is_continued_after_end(call, piece),
            (None, Some(_)) => has_index && !is_complete(call),
            (Some(_), Some(_)) => false,
        }
    }

    /// The position of the first of several calls that a delta continues by the order of its pieces alone.
    fn group(&self, transcript: &Transcript, pieces: &[ToolCallPiece<'_>]) -> Option<usize> {
        let has_no_keys = |piece: &ToolCallPiece<'_>| piece.id().is_none() && piece.index.is_none();
        if pieces.len() < 2 || !pieces.iter().all(has_no_keys) {
            return None;
        }
        let first = self.calls.len().checked_sub(pieces.len())?;
        let calls = &transcript.tool_calls[first..];
        let continues = |(call, piece): (&ToolCall, &ToolCallPiece<'_>)| match piece.name() {
            None => true,
            Some(name) => call.name == name && !is_complete(call),
        };
        calls.iter().zip(pieces).all(continues).then_some(first)
    }

    fn open(&mut self, transcript: &mut Transcript) -> Option<usize> {
        let Some(position) = transcript.open_tool_call() else {
            self.is_full = true;
            return None;
        };
        self.calls.push(CallKeys::default());
        Some(position)
    }

    fn extend(&mut self, transcript: &mut Transcript, position: usize, piece: &ToolCallPiece<'_>) {
        self.latest = Some(position);
        transcript.name_tool_call(position, piece.id(), piece.name());
        let keys = &mut self.calls[position];
        keys.index = piece.index.or(keys.index);
        if let Some(id) = piece.id()
            && id != transcript.tool_calls[position].id
            && id.len() <= MAX_ID_BYTES
        {
            keys.second_id = Some(id.to_owned());
        }
        // The last chunk of some providers repeats complete calls. Nothing can follow a complete object.
        let call = &transcript.tool_calls[position];
        if !(piece.arguments == call.arguments && is_complete(call)) {
            transcript.append(TranscriptPart::Arguments(position), &piece.arguments);
        }
    }
}

/// True if the arguments of the call are a complete object, and the piece has more arguments.
fn is_continued_after_end(call: &ToolCall, piece: &ToolCallPiece<'_>) -> bool {
    !piece.arguments.trim_ascii().is_empty() && is_complete(call)
}

/// True if the arguments of the call are a complete object.
fn is_complete(call: &ToolCall) -> bool {
    let arguments = call.arguments.trim_ascii();
    arguments.ends_with('}') && arguments.starts_with('{') && serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}
