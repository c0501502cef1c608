//! How much memory there is for us: what the machine has, and what the control groups that we are in leave of it.

use std::fs;
use std::path::Path;

/// What is taken for caches by default, at most.
const CACHE: u64 = 256 << 20;
/// And at least.
const LEAST: u64 = 16 << 20;

/// What the caches may take where nothing is said: an eighth of a small machine.
#[must_use]
pub fn default_cache() -> u64 {
    cache_of(memory(Path::new("/")))
}

fn cache_of(memory: Option<u64>) -> u64 {
    memory.map_or(CACHE, |memory| (memory / 8).clamp(LEAST, CACHE))
}

/// The least of the limits below `root`, which is `/` outside tests.
fn memory(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let total = read("proc/meminfo").and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // Every group above has its own limit. "max", or no such file: none.
        let above = Path::new(group.trim_start_matches('/')).ancestors();
        above
            .filter_map(|group| {
                let file = root.join(base).join(group).join(file);
                fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
            })
            .min()
    });
    total.into_iter().chain(limits).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(groups: &str, limits: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("proc/meminfo", "MemFree:  1 kB\nMemTotal:       8388608 kB\n");
        write("proc/self/cgroup", groups);
        for (path, text) in limits {
            write(&format!("sys/fs/cgroup/{path}"), text);
        }
        memory(root.path())
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        assert_eq!(machine("0::/\n", &[]), Some(8 * GIB));
        assert_eq!(machine("0::/a/b\n", &[("a/b/memory.max", "max\n")]), Some(8 * GIB));
        let limits = [("a/b/memory.max", "2147483648\n"), ("a/memory.max", "1073741824\n")];
        assert_eq!(machine("0::/a/b\n", &limits), Some(GIB));
        // The first version; in a container, the group that is named lies outside.
        let limits = [("memory/memory.limit_in_bytes", "536870912\n")];
        assert_eq!(machine("3:cpu:/x\n4:memory:/docker/1\n0::/\n", &limits), Some(GIB / 2));
        let limits = [("memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(machine("4:memory:/\n", &limits), Some(8 * GIB));
    }

    #[test]
    fn a_small_machine_gives_an_eighth() {
        assert_eq!(cache_of(None), 256 << 20);
        assert_eq!(cache_of(Some(64 * GIB)), 256 << 20);
        assert_eq!(cache_of(Some(GIB)), 128 << 20);
        assert_eq!(cache_of(Some(64 << 20)), 16 << 20);
    }
}
