//! What the machine has for us: memory and descriptors.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How open files are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// For clients' connections, on all workers.
    pub(super) clients: usize,
    /// For connections to upstream, on all workers.
    pub(super) upstream: usize,
    /// For connections to the admin port.
    pub(super) admin: usize,
}

/// Kept from clients: for the admin port, files, runtimes, and connections that are turned away.
const RESERVE: u64 = 512;

/// May open as many files as the system lets this process. How many these are.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is refused, what was allowed before is what there is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    open_files()
}

/// Clients' connections that so many open files allow.
pub fn client_connections(open_files: u64) -> usize {
    Descriptors::of(open_files).clients
}

/// How many files this process may have open.
pub(super) fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl Descriptors {
    /// Shares out so many.
    pub(super) fn of(limit: u64) -> Self {
        let reserve = RESERVE.min(limit / 2);
        let shared = usize::try_from((limit - reserve) / 2).unwrap_or(usize::MAX);
        let admin = usize::try_from(reserve / 4).unwrap_or(usize::MAX);
        Self { clients: shared.max(1), upstream: shared.max(1), admin: admin.max(1) }
    }
}

/// The memory that this process may have, in bytes: the machine's, or its control group's where that is less.
pub(super) fn memory_bytes() -> Option<u64> {
    let group = cgroup_bytes("/sys/fs/cgroup/memory.max").or_else(|| {
        // The first version of control groups, still found in older containers.
        cgroup_bytes("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    });
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_bytes(&text));
    group.into_iter().chain(machine).min()
}

fn cgroup_bytes(path: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_out_and_never_more_than_there_are() {
        for limit in [3, 64, 256, 1024, 20_000, 1 << 20] {
            let Descriptors { clients, upstream, admin } = Descriptors::of(limit);
            assert!((clients + upstream + admin) as u64 <= limit, "{limit}");
            assert!(clients > 0 && upstream > 0 && admin > 0, "{limit}");
        }
        assert_eq!(Descriptors::of(20_000).clients, 9_744);
        assert!(Descriptors::of(u64::MAX).clients > 1 << 40);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(machine_bytes("MemTotal:       24 kB\nMemFree: 3 kB\n"), Some(24 * 1024));
        assert_eq!(machine_bytes("MemTotal: much\n"), None);
        assert!(memory_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
