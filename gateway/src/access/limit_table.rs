//! The limits of all scopes, and those that apply to a call.

use std::collections::HashMap;

use shared::access::LimitState;
use shared::event::{LimitScope, UsageLimits};
use shared::id::{KeyId, ProjectId, UserId};

/// The limits in force, by scope.
#[derive(Clone, Debug, Default)]
pub struct LimitTable {
    by_scope: HashMap<LimitScope, LimitState>,
}

/// The origin of a call, as far as limits ask for it.
#[derive(Clone, Debug)]
pub struct CallOrigin<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The project of the API key.
    pub project: Option<ProjectId>,
    /// The API key.
    pub key: Option<KeyId>,
    /// The model, as the request names it.
    pub model: Option<&'a str>,
}

impl LimitTable {
    /// Adds a new state of a scope, which joins with the present state.
    pub fn apply(&mut self, limit: LimitState) {
        match self.by_scope.get_mut(&limit.scope) {
            Some(present) => present.join(limit),
            None => drop(self.by_scope.insert(limit.scope.clone(), limit)),
        }
    }

    /// Returns the states of all scopes.
    pub fn all(&self) -> impl Iterator<Item = &LimitState> {
        self.by_scope.values()
    }

    /// Returns the limits that apply to a call, each with the scope that counts the call, the narrowest scope first. A limit of a user
    /// replaces the same limit of everyone.
    pub fn of_call(&self, call: &CallOrigin<'_>) -> Vec<(LimitScope, UsageLimits)> {
        if self.by_scope.is_empty() {
            return Vec::new();
        }
        let user = LimitScope::User(call.user.clone());
        let (own, everyone) = (self.limits(&user), self.limits(&LimitScope::Everyone));
        let user_limits = UsageLimits {
            requests_per_minute: own.requests_per_minute.or(everyone.requests_per_minute),
            tokens_per_minute: own.tokens_per_minute.or(everyone.tokens_per_minute),
            concurrent_chats: own.concurrent_chats.or(everyone.concurrent_chats),
            budget: own.budget.or(everyone.budget),
        };
        let others = [
            call.project.map(LimitScope::Project),
            call.model.map(|model| LimitScope::Model(model.to_owned())),
            Some(LimitScope::Deployment),
        ];
        let with_limits = |scope: LimitScope| {
            let limits = self.limits(&scope);
            (scope, limits)
        };
        let key = call.key.map(LimitScope::Key).map(with_limits);
        let others = others.into_iter().flatten().map(with_limits);
        let applying = key.into_iter().chain([(user, user_limits)]).chain(others);
        applying.filter(|(_, limits)| !limits.is_empty()).collect()
    }

    fn limits(&self, scope: &LimitScope) -> UsageLimits {
        self.by_scope.get(scope).map(|state| state.limits.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use shared::access::Act;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn requests(requests_per_minute: u64) -> UsageLimits {
        UsageLimits { requests_per_minute: Some(requests_per_minute), ..UsageLimits::default() }
    }

    #[test]
    fn a_users_own_limit_replaces_the_limit_of_everyone() {
        let mut table = LimitTable::default();
        let mut change = 0;
        let mut set = |table: &mut LimitTable, scope: &str, limits| {
            change += 1;
            let changed = Act { at: OffsetDateTime::UNIX_EPOCH, by: "admin".into() };
            table.apply(LimitState {
                scope: scope.parse().unwrap(),
                change_id: Uuid::from_u128(change),
                changed,
                limits,
            });
        };
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let of = |table: &LimitTable, user, model| {
            let limits = table.of_call(&CallOrigin { user, project: None, key: None, model });
            limits.into_iter().map(|(scope, limits)| (scope.to_string(), limits)).collect::<Vec<_>>()
        };
        assert_eq!(of(&table, &ann, Some("m")), []);
        set(&mut table, "everyone", UsageLimits { concurrent_chats: Some(5), ..requests(60) });
        set(&mut table, "user:ann", requests(100));
        set(&mut table, "model:m", requests(7));
        let ann_limits = UsageLimits { concurrent_chats: Some(5), ..requests(100) };
        assert_eq!(of(&table, &ann, Some("n")), [("user:ann".into(), ann_limits)]);
        assert_eq!(of(&table, &bob, Some("m"))[1], ("model:m".into(), requests(7)));
        set(&mut table, "everyone", UsageLimits::default());
        assert_eq!(of(&table, &bob, None), []);
    }

    /// Prints the times; the bound is generous, because other programs may have the processors.
    #[test]
    fn the_limits_of_a_call_are_found_in_microseconds() {
        let (mut table, ann): (_, UserId) = (LimitTable::default(), "ann".parse().unwrap());
        let call = CallOrigin { user: &ann, project: None, key: None, model: Some("a-model") };
        let time = |table: &LimitTable| {
            let began = std::time::Instant::now();
            (0..10_000).for_each(|_| drop(std::hint::black_box(table.of_call(&call))));
            began.elapsed() / 10_000
        };
        let without = time(&table);
        for (number, scope) in ["everyone", "model:a-model", "deployment"].into_iter().enumerate() {
            let changed = Act { at: OffsetDateTime::UNIX_EPOCH, by: "admin".into() };
            let (scope, change_id) = (scope.parse().unwrap(), Uuid::from_u128(number as u128));
            table.apply(LimitState { scope, change_id, changed, limits: requests(60) });
        }
        let with = time(&table);
        println!("{without:?} for a call without limits, {with:?} with limits of three scopes");
        assert!(without.as_micros() < 10 && with.as_micros() < 100, "{without:?}, {with:?}");
    }
}
