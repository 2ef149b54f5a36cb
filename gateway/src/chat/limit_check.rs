//! The limits of a caller, asked before the start of a call is recorded.

use super::ChatPipeline;
use super::limited_call::LimitedCall;
use crate::access::limit_table::CallOrigin;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::grants::admission::Admission;

impl ChatPipeline {
    /// Takes what a call needs from the limits that apply to it. Returns 429 if a limit is reached, and `None` if no limit applies.
    pub(crate) async fn check_limits(
        &self,
        caller: &Caller,
        call: &LimitedCall<'_>,
    ) -> Result<Option<Admission>, ApiError> {
        let (project, key, model) = (caller.project_id(), caller.key_id(), call.model);
        let origin = CallOrigin { user: &caller.user, project, key, model };
        Ok(self.grants.admit(&origin, call.started_at, || call.expected()).await?)
    }
}
