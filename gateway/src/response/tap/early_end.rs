//! The end of a response that the gateway ends before the provider does.

use super::{BodyFormat, ExpectedBody, Tap};
use crate::response::early_end::EarlyEnd;

impl Tap {
    /// Ends the response where it is. The final events of the dialect are held back until [`Tap::release`]; an incomplete event and what was
    /// held back before are dropped. Returns false if the client's body cannot end cleanly here, as within a document.
    pub fn finish_early(&mut self, is_event_stream: bool, why: EarlyEnd) -> bool {
        self.held_back.clear();
        let end = match (&mut self.ui_stream, &self.format) {
            (Some(ui_stream), _) => Some(ui_stream.end_early(self.fold.transcript(), why)),
            // The client's bytes are compressed.
            _ if self.decoder.is_some() => None,
            (None, BodyFormat::Events(events)) if !events.is_partly_forwarded() => self.event_stream_end(why),
            (None, BodyFormat::Unknown(ExpectedBody::Answer)) if is_event_stream => self.event_stream_end(why),
            _ => None,
        };
        let is_clean = end.is_some();
        self.held_back.extend(end);
        is_clean
    }

    /// The final events, after a line end: a comment may have been forwarded in part.
    fn event_stream_end(&self, why: EarlyEnd) -> Option<bytes::Bytes> {
        let end = self.fold.early_end(why)?;
        Some([b"\n", end.as_slice()].concat().into())
    }
}
