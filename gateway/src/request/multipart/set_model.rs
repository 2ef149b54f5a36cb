//! Setting the model of a form whose path names the model.

use std::ops::Range;

use super::{FormPart, MultipartReader, PartContent};
use crate::request::invalid_request::{InvalidRequest, invalid_member};

impl MultipartReader {
    /// Sets the field `model` in the bytes that have been read so far, and returns the place of the name. A form without the
    /// field gets a first part with it, and a `model` that is read later is an error, like a second one. The reader is
    /// then as if it had read the changed bytes.
    ///
    /// Called when the first boundary has been read, and while no field `model` is incomplete.
    pub fn set_model(&mut self, body: &mut Vec<u8>, model: &str) -> Result<Range<usize>, InvalidRequest> {
        if model.contains(['\r', '\n']) {
            return Err(invalid_member("model", "expected a model name without line breaks"));
        }
        let (replaced, before, after) = match self.text("model") {
            Some((_, range)) => (range, String::new(), ""),
            None => {
                let boundary = String::from_utf8_lossy(&self.delimiter[2..]);
                let head = format!("{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
                (self.first_boundary..self.first_boundary, head, "\r\n")
            }
        };
        let start = replaced.start + before.len();
        let name = start..start + model.len();
        let inserted = [before.as_str(), model, after].concat();
        let growth = inserted.len().cast_signed() - replaced.len().cast_signed();
        self.position += growth;
        let _ = self.begin_part("model");
        self.parts.retain(|part| part.name != "model");
        for part in &mut self.parts {
            if let PartContent::Text(_, place) = &mut part.content
                && place.start >= replaced.end
            {
                *place = place.start.strict_add_signed(growth)..place.end.strict_add_signed(growth);
            }
        }
        let content = PartContent::Text(model.to_owned(), name.clone());
        self.parts.push(FormPart { name: "model".to_owned(), content });
        body.splice(replaced, inserted.into_bytes());
        Ok(name)
    }
}
