//! What a child that parses stores may do: read files, and no more.
//!
//! Landlock (Linux 5.13 and later) takes from it the rights to write, make, remove or execute any file, and (Linux 6.7) to connect
//! over TCP, unless its stores lie behind a network. Of root's capabilities it keeps those that let it read files. Where the
//! kernel has no Landlock, or an older one, it goes without what is missing: it is a second wall, the first being that the
//! parsers check what they read.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::storage::local;

/// The newest rules that are asked for: files, truncation, TCP.
const RULES: ABI = ABI::V4;

/// Gives up what reading stores does not need, for this thread and those that it starts. `network`: its stores lie behind one,
/// and what it learns of them is kept below `index`.
pub fn enter(network: bool, index: Option<&Path>) {
    if let Err(error) = restrict(network, index) {
        tracing::debug!("the sandbox is not complete: {error}");
    }
    let kept = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    if let Ok(now) = capabilities(None) {
        let (effective, permitted) = (now.effective & kept, now.permitted & kept);
        // What is given up may always be given up.
        let _ = set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() });
    }
}

fn restrict(network: bool, index: Option<&Path>) -> Result<(), RulesetError> {
    let rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(RULES))?;
    let rules = if network { rules } else { rules.handle_access(AccessNet::from_all(RULES))? };
    let mut rules = rules.create()?;
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    if let Ok(root) = PathFd::new("/") {
        rules = rules.add_rule(PathBeneath::new(root, reads))?;
    }
    let index = index.filter(|_| network).and_then(|index| {
        // Without the directory nothing is kept, which costs requests and no more.
        let _ = local::make_private(index);
        PathFd::new(index).ok()
    });
    if let Some(index) = index {
        rules = rules.add_rule(PathBeneath::new(index, AccessFs::from_all(RULES) & !AccessFs::Execute))?;
    }
    rules.restrict_self().map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use super::*;

    /// Whether this kernel has these rules at all.
    fn has_rules() -> bool {
        let version = 1;
        // SAFETY: without attributes it only tells a version.
        let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, version) };
        abi >= 4
    }

    /// Runs in a thread of its own, which alone is restricted.
    fn inside(network: bool, index: Option<&Path>, check: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(network, index);
                check();
            });
            thread.join().expect("what is checked holds");
        });
    }

    #[test]
    fn a_child_reads_and_does_nothing_else() {
        if !has_rules() {
            return;
        }
        let place = tempfile::tempdir().expect("a directory");
        let (file, index) = (place.path().join("file"), place.path().join("index"));
        fs::write(&file, "x").expect("writes");
        fs::create_dir(&index).expect("makes");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        inside(false, Some(&index), || {
            assert_eq!(fs::read(&file).expect("reads"), b"x");
            assert!(fs::read_dir(place.path()).expect("lists").count() > 0);
            denied(File::create(place.path().join("new")).expect_err("makes a file"));
            denied(File::create(index.join("new")).expect_err("makes a file of the index"));
            denied(File::options().append(true).open(&file).expect_err("opens for writing"));
            denied(fs::remove_file(&file).expect_err("removes"));
            denied(fs::create_dir(place.path().join("folder")).expect_err("makes a folder"));
            denied(Command::new("/bin/true").spawn().expect_err("executes"));
            denied(TcpStream::connect(address).expect_err("connects"));
            denied(TcpListener::bind("127.0.0.1:0").expect_err("listens"));
        });
        inside(true, Some(&index), || {
            File::create(index.join("new")).expect("makes a file of the index");
            denied(File::create(place.path().join("new")).expect_err("makes a file"));
            TcpStream::connect(address).expect("connects");
            denied(Command::new("/bin/true").spawn().expect_err("executes"));
            let now = capabilities(None).expect("tells");
            assert!(!now.effective.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE));
        });
        fs::write(&file, "the rest of the process is as it was").expect("writes");
    }
}
