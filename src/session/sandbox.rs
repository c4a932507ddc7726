//! Restricts a child that parses stores to reading files.
//!
//! Landlock (Linux 5.13) removes the rights to write, create, remove or execute files and, from Linux 6.7 on, to connect over TCP, unless
//! stores are remote; from Linux 6.12 on also to signal processes that are not its own. A seccomp filter denies system calls that
//! Landlock does not cover: changes of modes, owners and attributes, other network protocols, tracing, io_uring (whose requests no filter
//! sees) and administration. Of root's capabilities only those for reading files are kept. Restrictions that the kernel lacks are left
//! out: this is a second line of defence after the parsers' own checks.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::storage::local;

/// The newest Landlock rules that are used: files, truncation, TCP.
const RULES: ABI = ABI::V4;

/// System calls that no child needs.
const DENIED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    // Metadata of files.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // Other processes.
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    // Interfaces of the kernel.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Administration.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_open_by_handle_at,
];

/// Further ones, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const DENIED_OLD: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_ioperm,
    libc::SYS_iopl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_OLD: &[i64] = &[];

/// System calls that only a child with remote stores needs: sockets, and the times of files that it caches.
const DENIED_LOCAL: &[i64] = &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_utimensat];

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
    if let Err(error) = deny(network) {
        tracing::debug!("the sandbox is not complete: {error}");
    }
}

/// Makes the system calls that are not needed fail with EPERM.
fn deny(network: bool) -> Result<(), Box<dyn std::error::Error>> {
    let local = if network { &[] } else { DENIED_LOCAL };
    let rules = [DENIED, DENIED_OLD, local].concat().into_iter().map(|call| (call, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

fn restrict(network: bool, index: Option<&Path>) -> Result<(), RulesetError> {
    let rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(RULES))?;
    let rules = if network { rules } else { rules.handle_access(AccessNet::from_all(RULES))? };
    let mut rules = rules.scope(Scope::Signal)?.create()?;
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
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::time::SystemTime;

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
            denied(UdpSocket::bind("127.0.0.1:0").expect_err("has a socket"));
            denied(fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).expect_err("changes a mode"));
            denied(std::os::unix::fs::chown(&file, Some(1), None).expect_err("changes an owner"));
            denied(
                fs::File::open(&file)
                    .and_then(|file| file.set_modified(SystemTime::now()))
                    .expect_err("changes a time"),
            );
            // SAFETY: signal 0 only checks permission.
            assert_eq!(unsafe { libc::kill(libc::getppid(), 0) }, -1, "signals others");
            // SAFETY: without parameters it fails with EFAULT if it is allowed.
            let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
            let why = std::io::Error::last_os_error();
            assert!(ring == -1 && why.kind() == ErrorKind::PermissionDenied, "{why}");
            // Its own work is not restricted.
            std::thread::spawn(|| vec![0_u8; 1 << 20].len()).join().expect("starts threads");
        });
        inside(true, Some(&index), || {
            File::create(index.join("new")).expect("makes a file of the index");
            denied(File::create(place.path().join("new")).expect_err("makes a file"));
            TcpStream::connect(address).expect("connects");
            UdpSocket::bind("127.0.0.1:0").expect("has a socket");
            denied(fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).expect_err("changes a mode"));
            denied(Command::new("/bin/true").spawn().expect_err("executes"));
            let now = capabilities(None).expect("tells");
            assert!(!now.effective.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE));
        });
        fs::write(&file, "the rest of the process is as it was").expect("writes");
    }
}
