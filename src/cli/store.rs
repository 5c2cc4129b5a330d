//! What the store of `[replicas]` says of itself, for `check --connect` and `doctor`.

use crate::replicas::Server;

/// Something about the store that would lose the limits' memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) found: String,
    pub(super) mend: &'static str,
}

/// Its name and version, and how far it is away.
pub(super) fn name(server: &Server) -> String {
    format!("{}, {:.1} ms away", server.version, server.took.as_secs_f64() * 1e3)
}

/// What of its settings would lose the limits' memory.
pub(super) fn doubts(server: &Server) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if is_old(&server.version) {
        doubts.push(Doubt { found: "it is older than 6.2, with which nothing was tried".into(), mend: "update it" });
    }
    if !matches!(server.eviction.as_str(), "" | "noeviction") {
        let found = format!("maxmemory-policy is {}, so it may throw limits away", server.eviction);
        doubts.push(Doubt { found, mend: "set noeviction, or use a store of its own" });
    }
    if !server.is_append_only {
        let found = "appendonly is off, so a restart of it forgets, and for a window nothing new is granted".into();
        doubts.push(Doubt { found, mend: "set appendonly yes" });
    }
    doubts
}

/// What of its settings does not fit cached answers; `is_own` where limits and budgets are somewhere else.
pub(super) fn cache_doubts(server: &Server, is_own: bool) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let evicts = !matches!(server.eviction.as_str(), "" | "noeviction");
    if server.max_memory == 0 && !server.eviction.is_empty() {
        let found = "it has no maxmemory, so answers may fill the machine's memory".into();
        let mend = "set maxmemory, and for a store of the cache alone maxmemory-policy allkeys-lru";
        doubts.push(Doubt { found, mend });
    } else if is_own && !evicts && server.max_memory > 0 {
        let found = "maxmemory-policy is noeviction: where it is full, new answers are not shared until old ones end";
        doubts.push(Doubt { found: found.into(), mend: "set maxmemory-policy allkeys-lru" });
    }
    if !is_own {
        let found =
            "answers share it with limits and budgets: where they fill it, limits and budgets cannot be written either";
        doubts.push(Doubt { found: found.into(), mend: "give the cache a store of its own: [cache] store" });
    }
    doubts
}

/// Of a version such as `redis 7.0.15`.
fn is_old(version: &str) -> bool {
    let mut numbers =
        version.rsplit(' ').next().unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or_default()) < (6, 2))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_store_that_is_too_old_is_told_of() {
        for (version, is_old) in [
            ("redis 5.0.14", true),
            ("redis 6.0.9", true),
            ("redis 6.2.0", false),
            ("valkey 8.1.0", false),
            ("redis ", false),
        ] {
            assert_eq!(super::is_old(version), is_old, "{version}");
        }
    }
}
