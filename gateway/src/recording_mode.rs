//! The recording mode of a call: the parts of the call that its events keep. docs/RECORDING.md has the modes.
//!
//! Pure. The mode is settled before the start of the call is recorded. Texts that the mode leaves out are in no event, so they reach
//! neither the journal nor the broker.

mod json;
mod reduce;

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::event::RecordingMode;

use crate::request::InvalidRequest;

pub use reduce::reduce;

/// The request header that lowers the mode of one request: `metadata` or `none`. The response header with the mode of a call of which
/// not everything is kept.
pub const RECORDING: HeaderName = HeaderName::from_static("x-stenograph-recording");

/// Returns the mode of a request: the strictest of the `configured` modes and of the header. The header only lowers the mode, so `full`
/// is an error there, like every unknown value.
pub fn resolve(
    headers: &HeaderMap,
    configured: impl IntoIterator<Item = RecordingMode>,
) -> Result<RecordingMode, InvalidRequest> {
    let mut mode = configured.into_iter().fold(RecordingMode::Full, RecordingMode::stricter);
    for value in headers.get_all(RECORDING) {
        mode = mode.stricter(match value.as_bytes() {
            b"metadata" => RecordingMode::Metadata,
            b"none" => RecordingMode::None,
            _ => {
                let message =
                    format!("{RECORDING}: expected metadata or none; a request can only lower what is recorded");
                return Err(InvalidRequest { message, param: None });
            }
        });
    }
    // A mode of a later version keeps less than every mode that this version knows.
    Ok(if matches!(mode, RecordingMode::Other(_)) { RecordingMode::None } else { mode })
}

/// Returns the value of the response header; `None` if everything is kept.
pub fn response_header(mode: RecordingMode) -> Option<HeaderValue> {
    (!mode.is_full()).then(|| HeaderValue::from_static(mode.label()))
}

#[cfg(test)]
mod tests {
    use RecordingMode::{Full, Metadata, None as Nothing};

    use super::*;

    #[test]
    fn the_strictest_mode_holds_and_a_request_only_lowers_it() {
        let asks = |configured: &[RecordingMode], words: &[&'static str]| {
            let headers = words.iter().map(|word| (RECORDING, HeaderValue::from_static(word))).collect();
            resolve(&headers, configured.iter().copied()).map_err(|error| error.message)
        };
        assert_eq!(asks(&[], &[]), Ok(Full));
        assert_eq!(asks(&[Full, Metadata, Full], &[]), Ok(Metadata));
        assert_eq!(asks(&[Nothing, Metadata], &[]), Ok(Nothing));
        assert_eq!(asks(&[Full], &["metadata"]), Ok(Metadata));
        assert_eq!(asks(&[Full], &["metadata", "none"]), Ok(Nothing));
        assert_eq!(asks(&[Nothing], &["metadata"]), Ok(Nothing), "a request never raises the mode");
        assert_eq!(asks(&["later".parse().unwrap()], &[]), Ok(Nothing), "a mode of a later version");
        for wrong in ["full", "off", "", "None", "metadata, none"] {
            let error = asks(&[Full], &["none", wrong]).unwrap_err();
            assert_eq!(
                error,
                "x-stenograph-recording: expected metadata or none; a request can only lower what is recorded"
            );
        }
    }
}
