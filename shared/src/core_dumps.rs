//! Core dumps, which would put chats, tokens and keys of the process's memory on the disk.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Forbids the process to write core dumps, to files and to programs such as `systemd-coredump`.
///
/// The limit is 1 byte and not 0: the kernel passes over a limit of 0 where a program takes the dumps, and takes a limit of 1 as
/// a ban. A limit that is 0 already and cannot be raised stays.
pub fn forbid() {
    let ban = Rlimit { current: Some(1), maximum: Some(1) };
    if setrlimit(Resource::Core, ban).is_err() {
        let maximum = getrlimit(Resource::Core).maximum;
        // Lowering a soft limit always succeeds.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_dump_is_allowed_afterwards() {
        forbid();
        let limit = getrlimit(Resource::Core);
        assert!(limit.current.is_some_and(|bytes| bytes <= 1), "{limit:?}");
    }
}
