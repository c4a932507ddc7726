//! The kernel's table of mounts, as visible to this process.
//!
//! Mounts are looked up here and not by `stat`: a mount whose daemon has died or hangs answers `stat` with an error or never.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor device number, as in `st_dev`.
    pub device: (u32, u32),
    pub mountpoint: PathBuf,
    /// Type and subtype, such as `ext4` or `fuse.shufflefs`.
    pub kind: String,
    pub source: String,
}

/// The topmost mount at exactly this path, which must be absolute and without symbolic links.
pub fn at(path: &Path) -> io::Result<Option<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    // Later entries are mounted on top of earlier ones.
    Ok(parse(&table).filter(|entry| entry.mountpoint == path).last())
}

/// The mount that a `/dev/fuse` descriptor serves, if there is one and it is visible. Kernels before 6.11 do not tell which it is.
pub fn of_descriptor(descriptor: BorrowedFd<'_>) -> Option<MountEntry> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).ok()?;
    let minor: u32 = about.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?.trim().parse().ok()?;
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    parse(&table).find(|entry| entry.device == (0, minor))
}

/// Whether a mount is one of shufflefs.
pub fn is_ours(entry: &MountEntry) -> bool {
    entry.kind == "fuse.shufflefs"
}

/// Whether the daemon of the FUSE mount at this path is gone. `stat` would not tell: the kernel may answer it from its cache, for a day
/// with our mounts.
pub fn is_dead(path: &Path) -> bool {
    rustix::fs::statfs(path).is_err_and(|error| error == Errno::NOTCONN)
}

fn parse(table: &[u8]) -> impl Iterator<Item = MountEntry> {
    table.split(|&byte| byte == b'\n').filter_map(line)
}

/// `36 35 98:0 /root /mount/point options shared:1 - type source options`
fn line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    // The number of optional fields varies; a single dash ends them.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountEntry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        kind: String::from_utf8_lossy(&unescape(fields.next()?)).into_owned(),
        source: String::from_utf8_lossy(&unescape(fields.next()?)).into_owned(),
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The path as in the kernel's table of mounts. The last component is not accessed, as it may be a dead mount.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize();
    };
    let joined = parent.canonicalize()?.join(name);
    match fs::symlink_metadata(&joined) {
        Ok(metadata) if metadata.is_symlink() => path.canonicalize(),
        _ => Ok(joined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let text = b"74 61 0:53 / /tmp/a\\040b\\134c ro,nosuid shared:30 master:1 - fuse.shufflefs x.h5ad\\040(+1) ro,user_id=0\n";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(
            found,
            [MountEntry {
                device: (0, 53),
                mountpoint: PathBuf::from("/tmp/a b\\c"),
                kind: "fuse.shufflefs".into(),
                source: "x.h5ad (+1)".into(),
            }]
        );
        assert!(is_ours(&found[0]));
    }

    #[test]
    fn the_real_table_has_proc() {
        assert_eq!(at(Path::new("/proc")).unwrap().map(|entry| entry.kind).as_deref(), Some("proc"));
        assert_eq!(at(Path::new("/no such place")).unwrap(), None);
    }
}
