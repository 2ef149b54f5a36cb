//! The limits of a caller, asked before the start of a call is recorded.

use serde_json::value::RawValue;

use super::ChatPipeline;
use crate::access::limit_table::CallOrigin;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::grants::admission::{Admission, ExpectedTokens};
use crate::response::token_estimate;

impl ChatPipeline {
    /// Takes what a call needs from the limits that apply to it. Returns 429 if a limit is reached, and `None` if no limit applies.
    /// `request` has the prompt and the other members of the request.
    pub(crate) async fn check_limits(
        &self,
        caller: &Caller,
        model: Option<&str>,
        request: (&RawValue, &RawValue),
    ) -> Result<Option<Admission>, ApiError> {
        let origin = CallOrigin { user: &caller.user, project: caller.project_id(), key: caller.key_id(), model };
        let expected = || {
            let (prompt, max_answer) = token_estimate::expected_tokens(request.0, request.1);
            ExpectedTokens { prompt, max_answer }
        };
        Ok(self.grants.admit(&origin, expected).await?)
    }
}
