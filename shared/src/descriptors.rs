//! The number of files and connections that the process may have open at once (`RLIMIT_NOFILE`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit, and returns the limit in force, `u64::MAX` if there is none.
///
/// Shells and service managers set a soft limit of 1,024 for programs that use `select`. Neither service does, and each
/// connection needs a descriptor.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(Some(raise_limit()), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
