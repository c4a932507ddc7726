//! `shufflefs doctor`: checks what mounts need of this machine, one line each, with remedies.
//!
//! Whatever prevents all mounts, or mounts of this user, is a problem, and makes the exit code 1. What only costs speed is a note.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::exit::{Exit, OrExit, Outcome};
use super::index_dir;
use crate::session::memory;

#[derive(Debug, Args)]
#[command(after_help = super::exit::HELP)]
pub struct DoctorArgs {
    /// Also check whether the server of this address can be reached, as in https://data.example.org/cells.zarr [default: none]
    #[arg(value_name = "URL")]
    url: Option<String>,

    /// The directory for what is derived from stores [default: shufflefs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    index_dir: Option<PathBuf>,
}

/// The result of one check.
enum Finding {
    Ok(String),
    /// Missing, but not required.
    Note(String),
    Problem(String),
}
use Finding::{Note, Ok as Fine, Problem};

/// Timeout for a server.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn doctor(args: &DoctorArgs) -> Outcome {
    let index = args.index_dir.clone().or_else(index_dir::standard);
    let namespaces = can_unshare();
    let mut looks = vec![
        ("/dev/fuse", device()),
        ("fusermount3", helper(namespaces)),
        ("user namespaces", user_namespaces(namespaces)),
        ("passthrough", passthrough()),
        ("io_uring", io_uring()),
        ("memlock", memlock()),
        ("nofile", nofile()),
        ("memory", memory_limit()),
        ("cache directory", directory(index.as_deref())),
    ];
    if let Some(url) = &args.url {
        looks.push(("network", network(url)));
    }
    let mut text = String::new();
    for (name, finding) in &looks {
        let (word, line) = match finding {
            Fine(line) => ("ok", line),
            Note(line) => ("note", line),
            Problem(line) => ("problem", line),
        };
        let _ = writeln!(text, "{word:8} {name}: {line}");
    }
    std::io::stdout().write_all(text.as_bytes()).or_exit(Exit::Internal)?;
    let is_well = !looks.iter().any(|(_, finding)| matches!(finding, Problem(_)));
    Ok(if is_well { 0 } else { Exit::Internal as u8 })
}

fn device() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Fine("can be opened".into()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Problem("cannot be opened by this user; as root: chmod 666 /dev/fuse".into())
        }
        Err(error) => {
            Problem(format!("{error}; load the module (modprobe fuse), or start the container with --device /dev/fuse"))
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn helper(namespaces: bool) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["fusermount3", "fusermount"];
    let found =
        std::env::split_paths(&path).flat_map(|place| names.map(|name| place.join(name))).find(|path| path.is_file());
    let set_uid = |path: &Path| fs::metadata(path).is_ok_and(|file| file.mode() & 0o4000 != 0 && file.uid() == 0);
    match found {
        Some(path) if set_uid(&path) => Fine(format!("{}, set-uid root", path.display())),
        Some(path) if is_root() => {
            Note(format!("{} is not set-uid root, so users cannot mount with it", path.display()))
        }
        _ if is_root() => Note("not found; root needs it not, users do: install the package fuse3".into()),
        _ if namespaces => {
            Note("not found; `shufflefs run` works without, `mount` needs it: install the package fuse3".into())
        }
        _ => {
            Problem("not found or not set-uid root, and `run` has no user namespaces: install the package fuse3".into())
        }
    }
}

/// Whether a child process can create namespaces, as `run` needs.
fn can_unshare() -> bool {
    // SAFETY: this process has one thread; the child makes two system calls and ends.
    match unsafe { libc::fork() } {
        -1 => false,
        0 => {
            // SAFETY: calls without pointers.
            unsafe {
                let done = libc::unshare(libc::CLONE_NEWNS) == 0
                    || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0;
                libc::_exit(i32::from(!done))
            }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child and writes the status into a live integer.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

fn user_namespaces(allowed: bool) -> Finding {
    if allowed {
        Fine("`shufflefs run` can have a mount of its own".into())
    } else {
        Problem(format!("`shufflefs run` is not allowed a namespace{}", crate::mount::namespace::hint()))
    }
}

/// Major and minor version of the running kernel.
fn kernel() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn passthrough() -> Finding {
    match kernel() {
        Some(version) if version < (6, 9) => Note(format!(
            "Linux {}.{} has none (6.9 or later): readers that map files get copies",
            version.0, version.1
        )),
        _ if !is_root() => Note("root only: readers that map files get copies".into()),
        _ => Fine("readers that map files see the daemon's memory".into()),
    }
}

fn io_uring() -> Finding {
    // SAFETY: with 0 entries the kernel refuses the call before it reads the pointer.
    let code = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, std::ptr::null::<u8>()) };
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOSYS) => Note("this kernel has none: stores are read by preadv".into()),
        Some(libc::EPERM) if code == -1 => Note(
            "forbidden (sysctl kernel.io_uring_disabled, or a container's seccomp rules): stores are read by preadv"
                .into(),
        ),
        _ => Fine("allowed".into()),
    }
}

/// The soft and the hard limit; `None`: unlimited.
fn limit(resource: rustix::process::Resource) -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(resource);
    (limit.current, limit.maximum)
}

fn memlock() -> Finding {
    match limit(rustix::process::Resource::Memlock).0 {
        Some(bytes) if bytes < 64 << 10 => {
            Note(format!("{}: io_uring may not lock buffers; ulimit -l 8192", ByteSize(bytes)))
        }
        Some(bytes) => Fine(ByteSize(bytes).to_string()),
        None => Fine("unlimited".into()),
    }
}

/// Open files of a mount with a few hundred stores.
const FILES: u64 = 1024;

fn nofile() -> Finding {
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let (soft, hard) = limit(rustix::process::Resource::Nofile);
    let line = format!("{} files (hard limit {})", shown(soft), shown(hard));
    match hard {
        Some(hard) if hard < FILES => {
            Note(format!("{line}: too few for many stores; raise it (ulimit -n, LimitNOFILE=)"))
        }
        _ => Fine(line),
    }
}

fn memory_limit() -> Finding {
    match (memory::limit(), memory::default_budget(1)) {
        (Some(limit), Some(budget)) => {
            Fine(format!("{} for this machine or container; --memory auto takes {}", ByteSize(limit), ByteSize(budget)))
        }
        _ => Note("this system does not tell; --memory auto takes 1 GiB".into()),
    }
}

fn directory(path: Option<&Path>) -> Finding {
    let Some(path) = path else {
        return Problem("there is none; name one with --index-dir".into());
    };
    let file = path.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::create_dir_all(path).and_then(|()| fs::write(&file, "x")).and_then(|()| fs::remove_file(&file));
    match tried {
        Ok(()) => {
            let free = rustix::fs::statvfs(path).map(|place| place.f_bavail.saturating_mul(place.f_frsize));
            Fine(format!("{}, {} free", path.display(), free.map_or("?".to_owned(), |free| ByteSize(free).to_string())))
        }
        Err(error) => Problem(format!("{}: {error}; give another with --index-dir", path.display())),
    }
}

fn network(url: &str) -> Finding {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Problem(format!("{url} is no URL, as in https://data.example.org/cells.zarr"));
    };
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Note(format!("{scheme}:// has no address of its own; give the https:// address of the service")),
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let address = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let reached = address.to_socket_addrs().and_then(|mut addresses| {
        let address = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
        TcpStream::connect_timeout(&address, PATIENCE)
    });
    match reached {
        Ok(_) => Fine(format!("{address} answers")),
        Err(error) => Problem(format!("{address}: {error}; see the network, and https_proxy if there is a proxy")),
    }
}
