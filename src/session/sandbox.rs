//! Restricts a child that parses stores to reading files.
//!
//! Landlock (Linux 5.13) removes the rights to write, create, remove or execute files and, from Linux 6.7 on, to connect over TCP, unless
//! stores are remote. Of root's capabilities only those for reading files are kept. Restrictions that the kernel lacks are left out: this
//! is a second line of defence after the parsers' own checks.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::storage::local;

/// The newest Landlock rules that are used: files, truncation, TCP.
const RULES: ABI = ABI::V4;

/// Restricts this thread and those that it starts. `network`: its stores are remote, and what it reads of them is cached below
/// `index`.
pub fn enter(network: bool, index: Option<&Path>) {
    if let Err(error) = restrict(network, index) {
        tracing::debug!("the sandbox is not complete: {error}");
    }
    let kept = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    if let Ok(now) = capabilities(None) {
        let (effective, permitted) = (now.effective & kept, now.permitted & kept);
        // Reducing capabilities is always permitted.
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
        // Without the directory nothing is cached, which only costs requests.
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

    /// Whether this kernel has Landlock with these rules.
    fn has_rules() -> bool {
        let version = 1;
        // SAFETY: without attributes, the call only returns a version.
        let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, version) };
        abi >= 4
    }

    /// Runs a check in a thread, as only that is restricted.
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
