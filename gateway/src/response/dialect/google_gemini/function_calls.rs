//! The function calls of one candidate. A call is complete, or comes in pieces over several parts: the first one has the
//! name, the next ones have pieces of the arguments, and the last one does not say that the call continues
//! (`willContinue`).
//!
//! A piece belongs to the call with its id, or else to the open call. Another name, and complete arguments, are those of
//! another call.

use super::partial_arguments::PartialArguments;
use super::shape::FunctionCall;
use crate::response::transcript::{Transcript, TranscriptPart};

/// The maximum number of calls in pieces that are told apart at a time.
const MAX_CALLS_IN_PIECES: usize = 64;

/// The calls whose arguments come in pieces and are not in the transcript yet, in their order.
#[derive(Debug, Default)]
pub(super) struct FunctionCalls {
    in_pieces: Vec<CallInPieces>,
}

#[derive(Debug)]
struct CallInPieces {
    /// The index of the call in the transcript.
    index: usize,
    arguments: PartialArguments,
    /// True if the last piece said that another one follows.
    continues: bool,
}

impl FunctionCalls {
    /// Folds a call, or a piece of one.
    pub(super) fn fold(&mut self, transcript: &mut Transcript, call: &FunctionCall<'_>) {
        let (id, name, continues) = (call.id.non_empty(), call.name.non_empty(), call.will_continue.0);
        // An empty object before the pieces says nothing.
        let is_nothing = |args: &str| args == "{}" && (continues || call.has_pieces());
        if let Some(args) = call.args.non_empty().filter(|args| !is_nothing(args)) {
            let index = match self.take_waiting(transcript, id, name) {
                Some(index) => index,
                None => match transcript.open_tool_call() {
                    Some(index) => index,
                    None => return,
                },
            };
            transcript.name_tool_call(index, id, name);
            return transcript.append(TranscriptPart::Arguments(index), args);
        }
        let pieces = call.pieces();
        let position = match self.find(transcript, id, name, !pieces.is_empty()) {
            Some(position) => position,
            // The last piece of a call that is not known, or an empty part.
            None if id.is_none() && name.is_none() && pieces.is_empty() => return,
            None => {
                let Some(index) = transcript.open_tool_call() else { return };
                transcript.name_tool_call(index, id, name);
                if pieces.is_empty() && !continues {
                    return;
                }
                if self.in_pieces.len() == MAX_CALLS_IN_PIECES {
                    self.in_pieces.remove(0).record(transcript);
                }
                self.in_pieces.push(CallInPieces { index, arguments: PartialArguments::default(), continues });
                self.in_pieces.len() - 1
            }
        };
        let known = &mut self.in_pieces[position];
        transcript.name_tool_call(known.index, id, name);
        for piece in pieces {
            known.arguments.push(transcript, piece);
        }
        known.continues = continues;
    }

    /// Puts the arguments of complete calls into the transcript.
    pub(super) fn record_complete(&mut self, transcript: &mut Transcript) {
        for call in self.in_pieces.extract_if(.., |call| !call.continues) {
            call.record(transcript);
        }
    }

    /// Puts all arguments into the transcript, at the end of the response.
    pub(super) fn finish(&mut self, transcript: &mut Transcript) {
        for call in self.in_pieces.drain(..) {
            call.record(transcript);
        }
    }

    /// Finds the call that a part without complete arguments continues.
    fn find(&self, transcript: &Transcript, id: Option<&str>, name: Option<&str>, has_pieces: bool) -> Option<usize> {
        let fits = |call: &&CallInPieces| call.fits(transcript, id, name);
        let has_id = |call: &CallInPieces| id.is_some_and(|id| transcript.tool_calls[call.index].id == id);
        let is_last = |call: &CallInPieces| call.index + 1 == transcript.tool_calls.len();
        let calls = &self.in_pieces;
        calls
            .iter()
            .rposition(|call| has_id(call) && fits(&call))
            .or_else(|| calls.iter().rposition(|call| call.continues && fits(&call)))
            // Without a name, a piece cannot be the first of its call, although the call did not say that it continues.
            .or_else(|| calls.iter().rposition(|call| name.is_none() && has_pieces && is_last(call) && fits(&call)))
    }

    /// Takes out the open call that has a name and waits for arguments, if a part with complete arguments fits.
    fn take_waiting(&mut self, transcript: &Transcript, id: Option<&str>, name: Option<&str>) -> Option<usize> {
        let is_waiting =
            |call: &CallInPieces| call.continues && call.arguments.is_empty() && call.fits(transcript, id, name);
        let position = self.in_pieces.iter().rposition(is_waiting)?;
        Some(self.in_pieces.remove(position).index)
    }
}

impl CallInPieces {
    /// True if neither the id nor the name is that of another call.
    fn fits(&self, transcript: &Transcript, id: Option<&str>, name: Option<&str>) -> bool {
        let known = &transcript.tool_calls[self.index];
        let is_same = |known: &str, new: Option<&str>| known.is_empty() || new.is_none_or(|new| new == known);
        is_same(&known.id, id) && is_same(&known.name, name)
    }

    fn record(self, transcript: &mut Transcript) {
        // A call that broke off before its first piece has no arguments.
        if self.arguments.is_empty() && self.continues && !transcript.is_ended {
            return;
        }
        let record = self.arguments.into_record();
        transcript.set_arguments(self.index, record.json, record.room);
        if let Some(note) = record.note {
            transcript.note(note);
        }
    }
}
