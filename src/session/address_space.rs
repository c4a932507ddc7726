//! Limits of the address space (`ulimit -v`, which SGE sets as h_vmem) and of data (`ulimit -d`) of a process.
//!
//! They count mapped memory, whether touched or not: malloc's arenas reserve 64 MiB each, threads their stacks. So with such a limit,
//! arenas and threads are kept few, the budget is what remains, and a mount with too little is refused with figures.

use bytesize::ByteSize;
use rustix::process::{Resource, getrlimit};

use super::error::SessionError;

/// Address space of one decoding thread: stacks in two pools, buffers for a stored and a decoded chunk.
const THREAD: u64 = 32 << 20;
/// Address space of session threads, and of all that grows a little with use.
const OTHER: u64 = 64 << 20;
/// The smallest budget: two regions of the slab.
const LEAST: u64 = 64 << 20;

/// The lower of both limits; `None` without limits.
pub fn limit() -> Option<u64> {
    limits().into_iter().filter_map(|(limit, _)| limit).min()
}

/// Each limit, and the field of /proc/self/status with its use.
fn limits() -> [(Option<u64>, &'static str); 2] {
    [(getrlimit(Resource::As).current, "VmSize:"), (getrlimit(Resource::Data).current, "VmData:")]
}

/// Bytes that can still be mapped.
fn left() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let used = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?;
        value.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let left = |(limit, name): (Option<u64>, &str)| Some(limit?.saturating_sub(used(name).unwrap_or_default()));
    limits().into_iter().filter_map(left).min()
}

/// Reduces the number of malloc's arenas to that of cores, or, with a limit, to what fits. Each arena keeps some MB of freed memory, and
/// glibc makes eight for each core where threads wait for storage. Call it before any thread exists.
pub fn keep_arenas_few() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 64);
        let fitting = limit().map_or(cores, |limit| usize::try_from(limit >> 30).unwrap_or(cores).clamp(1, 8));
        let arenas = libc::c_int::try_from(cores.min(fitting)).unwrap_or(2);
        // SAFETY: only sets a parameter of the allocator.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}

/// The budget for images and decoded chunks, and the number of decoding threads: as requested, or, if `asked` is `None`, as much of
/// `auto` as fits.
///
/// # Errors
/// The requested budget does not fit the remaining address space.
pub fn fit(asked: Option<u64>, auto: u64, threads: usize) -> Result<(u64, usize), SessionError> {
    match left().zip(limit()) {
        None => Ok((asked.unwrap_or(auto), threads)),
        Some((left, limit)) => within(left, limit, asked, auto, threads).map_err(SessionError::Refused),
    }
}

fn within(left: u64, limit: u64, asked: Option<u64>, auto: u64, threads: usize) -> Result<(u64, usize), String> {
    let most = usize::try_from(left / 4 / THREAD).unwrap_or(usize::MAX);
    let threads = threads.clamp(1, most.max(1));
    let own = OTHER + THREAD * threads as u64;
    // A quarter is left for what a batch needs besides its image.
    let room = left.saturating_sub(own) / 4 * 3;
    let (limit_shown, room_shown) = (ByteSize(limit), ByteSize(room));
    if room < LEAST {
        let needed = ByteSize(limit + (LEAST - room) / 3 * 4 + (1 << 20));
        return Err(format!(
            "the limit of {limit_shown} of address space or data (`ulimit -v`, `ulimit -d`, h_vmem) leaves {room_shown} for \
             batches, and {} are the least; raise it to {needed}",
            ByteSize(LEAST)
        ));
    }
    match asked {
        Some(asked) if asked > room => Err(format!(
            "--memory {} does not fit the limit of {limit_shown} of address space or data (`ulimit -v`, `ulimit -d`, h_vmem), \
             which leaves {room_shown}; ask for no more than that, or raise the limit",
            ByteSize(asked)
        )),
        Some(asked) => Ok((asked, threads)),
        None => Ok((auto.min(room), threads)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_bounds_the_budget_and_the_threads() {
        const MIB: u64 = 1 << 20;
        let fit = |left: u64, asked, threads| within(left * MIB, 2 * left * MIB, asked, 1 << 40, threads);
        assert_eq!(fit(256, None, 64), Ok((96 * MIB, 2)));
        assert_eq!(fit(1024, None, 64), Ok((528 * MIB, 8)));
        assert_eq!(fit(1024, Some(100 * MIB), 2), Ok((100 * MIB, 2)));
        assert!(fit(1024, Some(800 * MIB), 2).is_err_and(|cause| cause.contains("--memory 800")));
        let refused = fit(150, None, 2).unwrap_err();
        assert!(refused.contains("300.0 MiB") && refused.contains("raise it to"), "{refused}");
    }
}
