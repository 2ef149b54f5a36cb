//! A call that is about to start, as far as limits ask for it: what the call is expected to use.

use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::grants::expected_cost::ExpectedCall;
use crate::json::lenient::Members;
use crate::response::token_estimate;
use crate::routing::Route;
use crate::upstream::registry::RoutingSnapshot;

/// Beginnings of members and types that may stand for content that the request does not contain, or that has more tokens than bytes:
/// pictures, sound, files, earlier responses, and tools that the provider runs.
const UNBOUNDED_WORDS: [&str; 12] = [
    "\"audio",
    "\"conversation",
    "\"document",
    "\"file",
    "\"image",
    "\"inlineData",
    "\"inline_data",
    "\"input_audio",
    "\"input_file",
    "\"input_image",
    "\"previous_response_id",
    "\"video",
];

/// A call that is about to start, as far as limits ask for it.
pub(crate) struct LimitedCall<'a> {
    /// The model that the request names.
    pub(crate) model: Option<&'a str>,
    /// The prompt.
    pub(crate) prompt: &'a RawValue,
    /// The other members of the request.
    pub(crate) parameters: &'a RawValue,
    /// True for a chat whose answer is streamed.
    pub(crate) is_streamed: bool,
    /// The route of the model, with the upstreams that may answer.
    pub(crate) route: (&'a RoutingSnapshot, &'a Route),
    /// The start of the call.
    pub(crate) started_at: OffsetDateTime,
}

impl LimitedCall<'_> {
    /// Returns what the call is expected to use.
    pub(crate) fn expected(&self) -> ExpectedCall {
        let (prompt, max_answer) = token_estimate::expected_tokens(self.prompt, self.parameters);
        let texts = [self.prompt.get(), self.parameters.get()];
        let is_bounded = !UNBOUNDED_WORDS.iter().any(|word| texts.iter().any(|text| text.contains(word)));
        // A token has a byte at least. A provider adds some tokens for each message and tool, which have more bytes around their texts.
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        let (snapshot, route) = self.route;
        let targets = self.model.iter().flat_map(|model| {
            route.upstreams.iter().map(|target| {
                let upstream = &snapshot.table.upstreams[target.upstream_index];
                (upstream.name.clone(), target.model.as_deref().unwrap_or(model).to_owned())
            })
        });
        ExpectedCall {
            prompt,
            most_prompt: is_bounded.then_some(bytes),
            max_answer,
            is_streamed: self.is_streamed,
            answers: number_of_answers(self.parameters),
            targets: targets.collect(),
        }
    }
}

/// Returns the number of answers that a request asks for.
fn number_of_answers(parameters: &RawValue) -> u64 {
    let number = |raw: &RawValue| serde_json::from_str::<u64>(raw.get()).ok();
    let Ok(members) = serde_json::from_str::<Members<'_>>(parameters.get()) else { return 1 };
    let config = members.get("generationConfig").and_then(|raw| serde_json::from_str::<Members<'_>>(raw.get()).ok());
    let google = config.and_then(|config| config.get("candidateCount").and_then(number));
    let named = ["n", "best_of"].iter().filter_map(|name| members.get(name).and_then(number)).chain(google);
    named.max().unwrap_or(1).max(1)
}
