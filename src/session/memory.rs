//! How much memory this process may use: the machine's, the lowest cgroup limit, or its own limits.
//!
//! Containers and batch schedulers set limits by cgroups, at any level between the process's group and the root.

use std::fs;
use std::path::Path;

use super::address_space;

/// The smallest useful budget: less does not hold one fetch of any real store.
pub const LEAST: u64 = 16 << 20;

/// The limit in bytes; `None` if the system does not tell.
pub fn limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroups.lines().filter_map(cgroup_limit).chain(machine).chain(address_space::limit()).min()
}

/// The value of `--memory auto`: a quarter of the limit, divided among the processes of a job that share it.
pub fn default_budget(sharing: u64) -> Option<u64> {
    limit().map(|bytes| share(bytes, sharing))
}

fn share(limit: u64, sharing: u64) -> u64 {
    (limit / 4 / sharing.max(1)).max(LEAST)
}

/// Maximum bytes of row bounds and obs columns: three quarters of the limit.
pub fn metadata() -> Option<u64> {
    limit().map(|bytes| bytes / 4 * 3)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limit of the cgroup in a line of /proc/self/cgroup, `number:controllers:path`; controllers are empty in version 2.
fn cgroup_limit(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let places: &[(&str, &str)] = if controllers.is_empty() {
        &[("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/unified", "memory.max")]
    } else if controllers.split(',').any(|name| name == "memory") {
        &[("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
    } else {
        &[]
    };
    let path = Path::new(path.trim_start_matches('/'));
    places
        .iter()
        .flat_map(|(root, file)| path.ancestors().map(move |above| Path::new(root).join(above).join(file)))
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_processes_of_a_node_take_no_more_than_one() {
        let node = share(64 << 30, 1);
        assert_eq!((node, 8 * share(64 << 30, 8)), (16 << 30, node));
        assert_eq!(share(1 << 20, 8), LEAST);
    }

    #[test]
    fn reads_meminfo() {
        assert_eq!(total("MemTotal:       24684096 kB\nMemFree: 1 kB\n"), Some(24_684_096 * 1024));
        assert_eq!(total("nothing"), None);
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
