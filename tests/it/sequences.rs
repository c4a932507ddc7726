//! Sequences of system calls on real mounts, compared with the model of the tree: which paths exist, their attributes, what each call
//! reads, and the errno of each modification. Generated and shrunk by proptest, from a fixed seed.
//!
//! `SHUFFLEFS_TEST_SEQUENCES=N` runs N sequences instead of 10,000.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::ring::{Part, Ring};
use crate::support::{Mount, store};
use crate::tree_model::{Entry, Kind, OUTSIDE, TreeModel, next_entries};

/// A position in a file or directory.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A fraction of its length, in 65536ths.
    Share(u16),
    /// Relative to the end.
    End(i8),
    Far,
}

#[derive(Clone, Debug)]
enum Op {
    Stat(Vec<u8>),
    Access(Vec<u8>, i32),
    Open(usize, Vec<u8>, i32),
    Change(&'static str, Vec<u8>),
    Statfs(Vec<u8>),
    Xattr(Vec<u8>, &'static str),
    Readlink(Vec<u8>),
    // On open handles.
    Close(usize),
    Dup(usize, usize),
    Fstat(usize),
    Pread(usize, At, usize),
    Read(usize, usize),
    Vectored(usize, At, usize),
    Seek(usize, i32, At),
    Map(usize, At, usize, bool),
    Advise(usize, i32),
    Send(usize, At, usize),
    Splice(usize, At, usize),
    CopyRange(usize, At, usize),
    /// Parts through io_uring, all in flight at once.
    Ring(usize, At, usize),
    /// The kernel drops unused names and inodes, as under memory pressure.
    Forget,
    Write(usize),
    Sync(usize),
    Lock(usize, i32),
    Entries(usize, usize),
    Rewind(usize, u16),
}

const SLOTS: usize = 3;

fn name() -> impl Strategy<Value = Vec<u8>> {
    let view = select(vec!["", "", "train/", "val/", "test/", "/", "./"]);
    let rank =
        select(vec!["", "", "", "rank-0-of-1/", "rank-1-of-3/", "rank-2-of-5/", "rank-3-of-3/", "rank-6-of-64/"]);
    let epoch =
        select(vec!["epoch-0000", "epoch-0001", "epoch-0002", "epoch-0007", "epoch-12345", "epoch-1", "epoch-00001"]);
    let extension =
        select(vec!["npz", "npy", "h5ad", "tsv", "arrow", "tar", "safetensors", "parquet", "tfrecord", "txt"]);
    let batch = (view.clone(), rank.clone(), epoch.clone(), 0u64..9, extension)
        .prop_map(|(view, rank, epoch, batch, extension)| format!("{view}{rank}{epoch}/batch-{batch:06}.{extension}"));
    let whole =
        (view.clone(), rank.clone(), epoch.clone()).prop_map(|(view, rank, epoch)| format!("{view}{rank}{epoch}.h5ad"));
    let folder = (view.clone(), rank.clone(), epoch).prop_map(|(view, rank, epoch)| format!("{view}{rank}{epoch}"));
    let above = (view, rank).prop_map(|(view, rank)| format!("{view}{rank}"));
    let fixed = select(vec![
        "",
        ".",
        "README.txt",
        "dataset.json",
        "var.tsv",
        "categories",
        "categories/cell_type.txt",
        ".shufflefs",
        ".shufflefs/stats.json",
        ".shufflefs/log",
        ".shufflefs/options.json",
        "stored.h5ad",
        "val/stored.h5ad",
        "categories/größe é.txt",
        "nothing",
        "README.txt/x",
        "epoch-0000/../README.txt",
        "categories/.",
        "README.txt/",
        "epoch-99999999999999999999999",
        "rank--1-of-2",
        "rank-00-of-2",
        "rank-0-of-0",
        "epoch-0000/batch-0000000.npz",
    ]);
    let valid = prop_oneof![
        6 => batch,
        1 => whole,
        2 => folder,
        1 => above,
        4 => fixed.prop_map(str::to_owned),
    ];
    // One byte is changed, omitted or added.
    let slip = (any::<prop::sample::Index>(), select(b"0-./xN\xff \n".to_vec()), 0..3);
    (valid, proptest::option::weighted(0.15, slip)).prop_map(|(name, slip)| {
        let mut name = name.into_bytes();
        if let Some((at, byte, what)) = slip {
            let at = at.index(name.len() + 1);
            match what {
                0 => name.insert(at, byte),
                1 if at < name.len() => name[at] = byte,
                _ if at < name.len() => drop(name.remove(at)),
                _ => {}
            }
        }
        name
    })
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let at =
        || prop_oneof![4 => any::<u16>().prop_map(At::Share), 2 => any::<i8>().prop_map(At::End), 1 => Just(At::Far)];
    let len = || prop_oneof![0usize..40, 0usize..5000, Just(1 << 20)];
    let flags = select(vec![
        0,
        0,
        0,
        0,
        libc::O_DIRECT,
        libc::O_NOATIME,
        libc::O_SYNC,
        libc::O_NONBLOCK,
        libc::O_APPEND,
        libc::O_NOFOLLOW,
        libc::O_DIRECTORY,
        libc::O_PATH,
        libc::O_CREAT,
        libc::O_CREAT | libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_WRONLY | libc::O_CREAT,
        libc::O_RDWR | libc::O_DIRECT,
        libc::O_WRONLY | libc::O_APPEND,
    ]);
    let change = select(vec![
        "unlink",
        "rmdir",
        "mkdir",
        "mknod",
        "symlink",
        "link",
        "rename",
        "chmod",
        "chown",
        "utimes",
        "truncate",
        "setxattr",
        "removexattr",
    ]);
    let advice = select(vec![
        libc::POSIX_FADV_NORMAL,
        libc::POSIX_FADV_RANDOM,
        libc::POSIX_FADV_SEQUENTIAL,
        libc::POSIX_FADV_WILLNEED,
        libc::POSIX_FADV_DONTNEED,
        libc::POSIX_FADV_NOREUSE,
    ]);
    let seek = select(vec![libc::SEEK_SET, libc::SEEK_END, libc::SEEK_DATA, libc::SEEK_HOLE]);
    let by_name = prop_oneof![
        3 => name().prop_map(Op::Stat),
        1 => (name(), select(vec![libc::F_OK, libc::R_OK, libc::W_OK, libc::X_OK])).prop_map(|(name, mode)| Op::Access(name, mode)),
        10 => (slot(), name(), flags).prop_map(|(slot, name, flags)| Op::Open(slot, name, flags)),
        2 => (change, name()).prop_map(|(what, name)| Op::Change(what, name)),
        1 => name().prop_map(Op::Statfs),
        1 => (name(), select(vec!["user.x", "security.capability", "trusted.y", "system.posix_acl_access"]))
            .prop_map(|(name, attribute)| Op::Xattr(name, attribute)),
        1 => name().prop_map(Op::Readlink),
    ];
    let on_open = prop_oneof![
        1 => slot().prop_map(Op::Close),
        1 => (slot(), slot()).prop_map(|(from, to)| Op::Dup(from, to)),
        1 => slot().prop_map(Op::Fstat),
        6 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::Pread(slot, at, len)),
        3 => (slot(), len()).prop_map(|(slot, len)| Op::Read(slot, len)),
        1 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::Vectored(slot, at, len)),
        2 => (slot(), seek, at()).prop_map(|(slot, whence, at)| Op::Seek(slot, whence, at)),
        3 => (slot(), at(), len(), any::<bool>()).prop_map(|(slot, at, len, shared)| Op::Map(slot, at, len, shared)),
        1 => (slot(), advice).prop_map(|(slot, advice)| Op::Advise(slot, advice)),
        1 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::Send(slot, at, len)),
        1 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::Splice(slot, at, len)),
        1 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::CopyRange(slot, at, len)),
        2 => (slot(), at(), len()).prop_map(|(slot, at, len)| Op::Ring(slot, at, len)),
        1 => slot().prop_map(Op::Write),
        1 => slot().prop_map(Op::Sync),
        1 => (slot(), select(vec![libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN])).prop_map(|(slot, how)| Op::Lock(slot, how)),
        3 => (slot(), select(vec![0usize, 24, 100, 300, 4096, 32 << 10])).prop_map(|(slot, size)| Op::Entries(slot, size)),
        1 => (slot(), any::<u16>()).prop_map(|(slot, share)| Op::Rewind(slot, share)),
    ];
    prop_oneof![2000 => by_name, 2000 => on_open, 1 => Just(Op::Forget)]
}

/// An open file or directory.
#[derive(Clone)]
struct Handle {
    file: Arc<OwnedFd>,
    entry: Entry,
    flags: i32,
    /// The position of the next read; shared with duplicates.
    place: Arc<RefCell<usize>>,
}

/// One mount, its model, and a sink for calls that write.
struct World {
    mount: Mount,
    model: TreeModel,
    sink: File,
    ring: Option<Ring>,
    pipe: [OwnedFd; 2],
}

struct Run<'a> {
    world: &'a World,
    slots: [Option<Handle>; SLOTS],
}

type Verdict = Result<(), String>;

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// The result of a call, or its errno.
fn answer(result: i64) -> Result<i64, i32> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Verdict {
    if got == wanted { Ok(()) } else { Err(format!("{got:?}, not {wanted:?}")) }
}

impl World {
    fn path(&self, name: &[u8]) -> CString {
        let mut path = self.mount.path().as_os_str().as_bytes().to_vec();
        path.push(b'/');
        path.extend(name);
        CString::new(path).unwrap()
    }
}

impl Run<'_> {
    fn run(&mut self, op: &Op) -> Verdict {
        match op {
            Op::Stat(name)
            | Op::Access(name, _)
            | Op::Open(_, name, _)
            | Op::Change(_, name)
            | Op::Statfs(name)
            | Op::Xattr(name, _)
            | Op::Readlink(name) => match self.world.model.resolve(name) {
                Err(OUTSIDE) => Ok(()),
                found => self.by_name(op, &self.world.path(name), name, found),
            },
            Op::Forget => {
                // Only root may, and not in every container.
                let _ = fs::write("/proc/sys/vm/drop_caches", "2");
                Ok(())
            }
            &Op::Close(slot) => {
                self.slots[slot] = None;
                Ok(())
            }
            &Op::Dup(from, to) => {
                self.slots[to] = self.slots[from].clone();
                Ok(())
            }
            &(Op::Fstat(slot)
            | Op::Pread(slot, ..)
            | Op::Read(slot, _)
            | Op::Vectored(slot, ..)
            | Op::Seek(slot, ..)
            | Op::Map(slot, ..)
            | Op::Advise(slot, _)
            | Op::Send(slot, ..)
            | Op::Splice(slot, ..)
            | Op::CopyRange(slot, ..)
            | Op::Ring(slot, ..)
            | Op::Write(slot)
            | Op::Sync(slot)
            | Op::Lock(slot, _)
            | Op::Entries(slot, _)
            | Op::Rewind(slot, _)) => match self.slots[slot].clone() {
                None => Ok(()),
                Some(handle) if handle.flags & libc::O_PATH != 0 => {
                    let mut byte = [0u8];
                    // SAFETY: a buffer of one byte for one byte.
                    let got = unsafe { libc::pread(handle.file.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) };
                    same(answer(got as i64), Err(libc::EBADF))
                }
                Some(handle) => match handle.entry.kind {
                    Kind::Directory => self.on_directory(op, &handle),
                    Kind::File => self.on_file(op, &handle),
                    Kind::Live => Ok(()),
                },
            },
        }
    }

    fn by_name(&mut self, op: &Op, path: &CString, name: &[u8], found: Result<Entry, i32>) -> Verdict {
        let world = self.world;
        let refused = |wanted: i32, result: i64| same(answer(result), Err(wanted));
        let kind = found.as_ref().map(|entry| entry.kind);
        let is_directory = kind == Ok(Kind::Directory);
        // A path with a trailing slash must be a directory.
        let place = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        match op {
            Op::Stat(_) => match (fs::symlink_metadata(place), found) {
                (Err(error), Err(errno)) => same(error.raw_os_error(), Some(errno)),
                (Ok(meta), Ok(entry)) => self.looks(&meta, &entry),
                (got, wanted) => Err(format!("{got:?}, not {wanted:?}")),
            },
            &Op::Access(_, mode) => {
                // SAFETY: a C string.
                let got = answer(unsafe { libc::access(path.as_ptr(), mode) }.into());
                let wanted = match (found, mode) {
                    (Err(errno), _) => Err(errno),
                    (Ok(_), libc::W_OK) => Err(libc::EROFS),
                    (Ok(_), libc::X_OK) if !is_directory => Err(libc::EACCES),
                    _ => Ok(0),
                };
                same(got, wanted)
            }
            &Op::Open(slot, _, flags) => {
                // SAFETY: a C string.
                let got = answer(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) }.into());
                let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
                let creates = flags & libc::O_CREAT != 0;
                let ends_in_slash = name.ends_with(b"/");
                let wanted: &[i32] = match &found {
                    Err(libc::ENOENT) if creates && self.has_parent(name) => {
                        if ends_in_slash {
                            &[libc::EISDIR]
                        } else {
                            &[libc::EROFS, libc::ENOENT]
                        }
                    }
                    Err(libc::ENOTDIR) if creates => &[libc::ENOTDIR, libc::EISDIR],
                    Err(libc::ENOENT) if creates => &[libc::ENOENT, libc::EISDIR],
                    Err(errno) => &[*errno],
                    Ok(_) if flags & libc::O_EXCL != 0 => &[libc::EEXIST, libc::EISDIR],
                    Ok(_) if is_directory && (creates || writes) => &[libc::EISDIR, libc::EROFS],
                    Ok(_) if is_directory && flags & libc::O_TRUNC != 0 => &[libc::EISDIR, libc::EROFS],
                    // Directories may ignore O_DIRECT or refuse it.
                    Ok(_) if is_directory && flags & libc::O_DIRECT != 0 => &[0, libc::EINVAL],
                    Ok(_) if !is_directory && flags & libc::O_DIRECTORY != 0 => &[libc::ENOTDIR],
                    Ok(_) if writes || flags & libc::O_TRUNC != 0 => &[libc::EROFS],
                    Ok(_) => &[0],
                };
                if !wanted.contains(&got.err().unwrap_or(0)) {
                    return Err(format!("{got:?}, not one of {wanted:?}"));
                }
                if let (Ok(number), Ok(entry)) = (got, found) {
                    // SAFETY: the descriptor is new.
                    let file = Arc::new(unsafe { OwnedFd::from_raw_fd(number as RawFd) });
                    self.slots[slot] = Some(Handle { file, entry, flags, place: Arc::default() });
                }
                Ok(())
            }
            &Op::Change(what, _) => {
                let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
                let there = world.path(b"README.txt");
                let new = world.path(b"new");
                let (p, attribute) = (path.as_ptr(), c"user.x");
                // SAFETY: C strings that live until the end of the call.
                let result = unsafe {
                    match what {
                        "unlink" => libc::unlink(p),
                        "rmdir" => libc::rmdir(p),
                        "mkdir" => libc::mkdir(p, 0o755),
                        "mknod" => libc::mknod(p, libc::S_IFIFO | 0o600, 0),
                        "symlink" => libc::symlink(c"x".as_ptr(), p),
                        "link" => libc::link(there.as_ptr(), p),
                        "rename" => libc::rename(p, new.as_ptr()),
                        "chmod" => libc::chmod(p, 0o600),
                        "chown" => libc::lchown(p, 0, 0),
                        "utimes" => libc::utimensat(libc::AT_FDCWD, p, times.as_ptr(), 0),
                        "truncate" => libc::truncate(p, 0),
                        "setxattr" => libc::lsetxattr(p, attribute.as_ptr(), c"x".as_ptr().cast(), 1, 0),
                        _ => libc::lremovexattr(p, attribute.as_ptr()),
                    }
                };
                // If several errnos apply, the kernel decides which it returns; it must be one of these.
                let mut may = vec![libc::EROFS];
                may.extend(found.as_ref().err());
                if matches!(what, "mkdir" | "mknod" | "symlink" | "link") && found.is_ok() {
                    may.push(libc::EEXIST);
                }
                let odd =
                    name.ends_with(b"/") || name.ends_with(b".") || name.iter().all(|&byte| b"./".contains(&byte));
                if odd || is_directory {
                    may.extend([
                        libc::EXDEV,
                        libc::EISDIR,
                        libc::EBUSY,
                        libc::EINVAL,
                        libc::ENOTEMPTY,
                        libc::ENOTDIR,
                        libc::EEXIST,
                        libc::ENOENT,
                    ]);
                }
                match answer(result.into()) {
                    Err(errno) if may.contains(&errno) => Ok(()),
                    got => Err(format!("{got:?}, not one of {may:?}")),
                }
            }
            Op::Statfs(_) => {
                // SAFETY: zeros are a valid value, and the C string lives.
                let (result, told) = unsafe {
                    let mut told: libc::statfs = std::mem::zeroed();
                    (libc::statfs(path.as_ptr(), &raw mut told), told)
                };
                match found {
                    Err(errno) => refused(errno, result.into()),
                    Ok(_) => same((result, told.f_type, told.f_bavail, told.f_bsize), (0, 0x6573_5546, 0, 4096)),
                }
            }
            &Op::Xattr(_, attribute) => {
                let attribute = CString::new(attribute).unwrap();
                // SAFETY: C strings, and an empty buffer.
                let result = unsafe { libc::lgetxattr(path.as_ptr(), attribute.as_ptr(), std::ptr::null_mut(), 0) };
                match (answer(result as i64), found) {
                    (got, Err(errno)) => same(got, Err(errno)),
                    (Err(libc::EOPNOTSUPP | libc::ENODATA), Ok(_)) => Ok(()),
                    (got, Ok(_)) => Err(format!("an attribute: {got:?}")),
                }
            }
            _ => {
                let mut buffer = [0u8; 16];
                // SAFETY: the buffer has this length.
                let result = unsafe { libc::readlink(path.as_ptr(), buffer.as_mut_ptr().cast(), 16) };
                refused(found.err().unwrap_or(libc::EINVAL), result as i64)
            }
        }
    }

    fn has_parent(&self, name: &[u8]) -> bool {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let cut = name.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        matches!(self.world.model.resolve(&name[..cut]), Ok(Entry { kind: Kind::Directory, .. }))
    }

    /// Compares the attributes from `stat`.
    fn looks(&self, meta: &fs::Metadata, entry: &Entry) -> Verdict {
        let is_directory = entry.kind == Kind::Directory;
        same((meta.is_dir(), meta.mode() & 0o7777), (is_directory, if is_directory { 0o555 } else { 0o444 }))?;
        same((meta.uid(), meta.gid(), meta.blksize()), (1234, 4321, 4096))?;
        if is_directory {
            let listing = self.world.model.listing(&entry.path);
            return same(listing[0].2, meta.ino());
        }
        same(meta.nlink(), 1)?;
        if entry.kind == Kind::File {
            let len = self.world.model.content(&entry.path).len() as u64;
            same((meta.len(), meta.blocks()), (len, len.div_ceil(512)))?;
        }
        Ok(())
    }

    fn on_directory(&self, op: &Op, handle: &Handle) -> Verdict {
        let file = handle.file.as_raw_fd();
        let listing = self.world.model.listing(&handle.entry.path);
        let mut place = handle.place.borrow_mut();
        match *op {
            Op::Entries(_, size) => match next_entries(file, size) {
                Ok(got) => {
                    let wanted = listing.get(*place..*place + got.len()).unwrap_or_default();
                    if got != wanted || (got.is_empty() && *place < listing.len()) {
                        return Err(format!("{got:?}, not {wanted:?} at {}", *place));
                    }
                    *place += got.len();
                    Ok(())
                }
                // The next entry does not fit. At the end, none need fit.
                Err(libc::EINVAL) if size < 300 && *place < listing.len() => Ok(()),
                Err(errno) => Err(format!("errno {errno} into {size} bytes")),
            },
            Op::Rewind(_, share) => {
                let to = (usize::from(share) * (listing.len() + 1)) >> 16;
                let offset = if to == 0 { 0 } else { listing[to - 1].3 };
                // SAFETY: no pointers.
                same(answer(unsafe { libc::lseek(file, offset, libc::SEEK_SET) }), Ok(offset))?;
                *place = to;
                Ok(())
            }
            Op::Pread(..) | Op::Read(..) => {
                let mut byte = [0u8];
                // SAFETY: a buffer of one byte for one byte.
                same(answer(unsafe { libc::read(file, byte.as_mut_ptr().cast(), 1) } as i64), Err(libc::EISDIR))
            }
            Op::Fstat(_) => self.looks(&fs::metadata(format!("/proc/self/fd/{file}")).unwrap(), &handle.entry),
            _ => Ok(()),
        }
    }

    fn on_file(&self, op: &Op, handle: &Handle) -> Verdict {
        let (file, world) = (handle.file.as_raw_fd(), self.world);
        let whole = world.model.content(&handle.entry.path);
        let size = whole.len();
        let offset = |at: At| match at {
            At::Share(share) => (usize::from(share) * size) >> 16,
            At::End(beside) => size.saturating_add_signed(beside.into()),
            At::Far => 1 << 40,
        };
        let part = |from: usize, len: usize| &whole[from.min(size)..from.saturating_add(len).min(size)];
        let mut place = handle.place.borrow_mut();
        let equal = |what: &[u8], wanted: &[u8]| match what == wanted {
            true => Ok(()),
            false => Err(format!("{} bytes, other than the {} there", what.len(), wanted.len())),
        };
        match *op {
            Op::Fstat(_) => self.looks(&fs::metadata(format!("/proc/self/fd/{file}")).unwrap(), &handle.entry),
            Op::Pread(_, at, len) => {
                let mut bytes = vec![0xa5; len];
                // SAFETY: the buffer has this length.
                let got = unsafe { libc::pread(file, bytes.as_mut_ptr().cast(), len, offset(at) as i64) };
                same(answer(got as i64), Ok(part(offset(at), len).len() as i64))?;
                equal(&bytes[..got as usize], part(offset(at), len))
            }
            Op::Read(_, len) => {
                let mut bytes = vec![0xa5; len];
                // SAFETY: the buffer has this length.
                let got = unsafe { libc::read(file, bytes.as_mut_ptr().cast(), len) };
                same(answer(got as i64), Ok(part(*place, len).len() as i64))?;
                equal(&bytes[..got as usize], part(*place, len))?;
                *place += got as usize;
                Ok(())
            }
            Op::Vectored(_, at, len) => {
                let (mut first, mut second) = (vec![0xa5; len / 3], vec![0xa5; len - len / 3]);
                let places = [&mut first, &mut second]
                    .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
                // SAFETY: two buffers with these lengths.
                let got = unsafe { libc::preadv(file, places.as_ptr(), 2, offset(at) as i64) };
                same(answer(got as i64), Ok(part(offset(at), len).len() as i64))?;
                first.extend(second);
                equal(&first[..got as usize], part(offset(at), len))
            }
            Op::Seek(_, whence, at) => {
                let to = offset(at) as i64;
                let (given, wanted) = match whence {
                    libc::SEEK_END => (to - size as i64, Ok(to)),
                    libc::SEEK_DATA if to < size as i64 => (to, Ok(to)),
                    libc::SEEK_HOLE if to < size as i64 => (to, Ok(size as i64)),
                    libc::SEEK_DATA | libc::SEEK_HOLE => (to, Err(libc::ENXIO)),
                    _ => (to, Ok(to)),
                };
                // SAFETY: no pointers.
                same(answer(unsafe { libc::lseek(file, given, whence) }), wanted)?;
                *place = wanted.map_or(*place, |place| place as usize);
                Ok(())
            }
            Op::Map(_, at, len, shared) => {
                const PAGE: usize = 4096;
                let from = offset(at) / PAGE * PAGE;
                let len = len.min(size.saturating_sub(from));
                if len == 0 {
                    return Ok(());
                }
                let how = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let whole_pages = len.next_multiple_of(PAGE);
                // SAFETY: a new mapping of pages that the file has, unmapped below, only read.
                let (got, tail) = unsafe {
                    let map = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, how, file, from as i64);
                    if map == libc::MAP_FAILED {
                        return Err(format!("mmap: errno {}", last()));
                    }
                    let bytes = std::slice::from_raw_parts(map.cast::<u8>(), whole_pages);
                    let copy = (bytes[..len].to_vec(), bytes[len..].to_vec());
                    libc::munmap(map, len);
                    copy
                };
                if from + len == size && tail.iter().any(|&byte| byte != 0) {
                    return Err("what is mapped behind the end is not zero".to_owned());
                }
                equal(&got, part(from, len))
            }
            Op::Advise(_, advice) => {
                // SAFETY: no pointers.
                same(unsafe { libc::posix_fadvise(file, 0, 0, advice) }, 0)
            }
            Op::Send(_, at, len) | Op::CopyRange(_, at, len) => {
                let is_copy = matches!(op, Op::CopyRange(..));
                world.sink.set_len(0).map_err(|error| error.to_string())?;
                let (mut from, mut to, sink) = (offset(at) as i64, 0i64, world.sink.as_raw_fd());
                // SAFETY: offsets that live until the end of the call.
                let got = unsafe {
                    if is_copy {
                        libc::copy_file_range(file, &raw mut from, sink, &raw mut to, len, 0)
                    } else {
                        libc::lseek(sink, 0, libc::SEEK_SET);
                        libc::sendfile(sink, file, &raw mut from, len)
                    }
                };
                let wanted = part(offset(at), len);
                match answer(got as i64) {
                    // Between file systems, the caller must copy.
                    Err(libc::EXDEV) if is_copy => Ok(()),
                    // It may stop early, like write(2), but not at once.
                    Ok(got) if got > 0 || wanted.is_empty() => {
                        let mut bytes = vec![0; got as usize];
                        world.sink.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
                        equal(&bytes, wanted.get(..got as usize).unwrap_or_default())
                    }
                    other => Err(format!("{other:?} for {} bytes", wanted.len())),
                }
            }
            Op::Splice(_, at, len) => {
                let len = len.min(60 << 10);
                let mut from = offset(at) as i64;
                let (out, end) = (world.pipe[0].as_raw_fd(), world.pipe[1].as_raw_fd());
                // SAFETY: an offset that lives until the end of the call.
                let got = unsafe { libc::splice(file, &raw mut from, end, std::ptr::null_mut(), len, 0) };
                let wanted = part(offset(at), len);
                let got = answer(got as i64).map_err(|errno| format!("errno {errno}"))? as usize;
                let mut bytes = vec![0; got];
                // SAFETY: the pipe has this many bytes.
                let read = if got == 0 { 0 } else { unsafe { libc::read(out, bytes.as_mut_ptr().cast(), got) } };
                same(read as usize, got)?;
                if got == 0 && !wanted.is_empty() {
                    return Err(format!("nothing of {} bytes", wanted.len()));
                }
                equal(&bytes, wanted.get(..got).unwrap_or_default())
            }
            Op::Ring(_, at, len) => {
                let Some(ring) = &world.ring else { return Ok(()) };
                let mut bytes = vec![0xa5; len];
                // Four parts, the last first.
                let step = len.div_ceil(4).max(1);
                let part = |(number, out)| Part { offset: (offset(at) + number * step) as u64, out };
                let mut parts: Vec<Part<'_>> = bytes.chunks_mut(step).enumerate().map(part).collect();
                parts.reverse();
                for got in ring.read(file, &mut parts).iter().zip(&parts) {
                    let (got, Part { offset, out }) = got;
                    let wanted = whole.get(*offset as usize..).unwrap_or_default();
                    let wanted = &wanted[..wanted.len().min(out.len())];
                    same(*got, Ok(wanted.len()))?;
                    equal(&out[..wanted.len()], wanted)?;
                }
                Ok(())
            }
            // SAFETY: a buffer of one byte; no other pointers.
            Op::Write(_) => unsafe {
                same(answer(libc::pwrite(file, [0u8].as_ptr().cast(), 1, 0) as i64), Err(libc::EBADF))?;
                same(answer(libc::ftruncate(file, 0).into()), Err(libc::EINVAL))?;
                same(answer(libc::fallocate(file, 0, 0, 1).into()), Err(libc::EBADF))?;
                same(answer(libc::fchmod(file, 0o600).into()), Err(libc::EROFS))
            },
            // SAFETY: no pointers.
            Op::Sync(_) => unsafe {
                // The kernel answers without the daemon: nothing is to be written, or nobody could.
                let may = |result: i32| {
                    matches!(answer(result.into()), Ok(0) | Err(libc::ENOSYS | libc::EINVAL | libc::EROFS))
                };
                if may(libc::fsync(file)) && may(libc::fdatasync(file)) {
                    Ok(())
                } else {
                    Err(format!("errno {}", last()))
                }
            },
            Op::Lock(_, how) => {
                // SAFETY: no pointers.
                let got = answer(unsafe { libc::flock(file, how | libc::LOCK_NB) }.into());
                // Another handle of the test may have the lock.
                match got {
                    Ok(0) | Err(libc::EAGAIN) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
            Op::Entries(_, size) => same(next_entries(file, size).map(|_| ()), Err(libc::ENOTDIR)),
            _ => Ok(()),
        }
    }
}

/// A mount, and another one with other resources for its model.
fn world(name: &str, views: &[(&str, u64)], options: &[&str], more: &[&str]) -> World {
    let paths = [store(name)];
    let fixed = ["--epochs", "3", "--uid", "1234", "--gid", "4321", "--format", "npz"];
    let of = |extra: &[&str]| Mount::new(&paths, &[&fixed[..], options, extra].concat());
    let model = TreeModel::of(of(&["--threads", "1", "--memory", "64MiB"]), views, options.contains(&"--rank"), 3);
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are new and owned here.
    let pipe = unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        ends.map(|end| OwnedFd::from_raw_fd(end))
    };
    World { mount: of(more), model, sink: tempfile::tempfile().unwrap(), ring: Ring::new(), pipe }
}

#[test]
fn sequences_of_calls_agree_with_the_model() {
    let cases = std::env::var("SHUFFLEFS_TEST_SEQUENCES").map_or(10_000, |count| count.parse().unwrap());
    const SMALL: [&str; 4] = ["--block-size", "8", "--fetch-factor", "2"];
    // 300 rows: 8 batches of 40; 240 and 60 of them in two views. 250 rows: every third of 7 batches.
    let with = |more: &[&'static str]| [&["--batch-size", "40"][..], &SMALL[..], more].concat();
    let worlds = [
        world("join-a.h5ad", &[("", 8)], &with(&[]), &[]),
        world("join-a.h5ad", &[("train", 6), ("val", 2)], &with(&["--split", "train=0.8,val=0.2"]), &["--cache"]),
        world("join-permuted.zarr", &[("", 2)], &with(&["--rank", "1/3"]), &["--memory", "16MiB"]),
    ];
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sequences = (0..worlds.len(), vec(op(), 1..14));
    let outcome = runner.run(&sequences, |(world, ops)| {
        let mut run = Run { world: &worlds[world], slots: Default::default() };
        for op in &ops {
            run.run(op).map_err(|why| TestCaseError::fail(format!("world {world}: {op:?}: {why}")))?;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{cases} sequences");
    for world in worlds {
        crate::faults::settled(&world.mount);
        world.mount.unmount();
    }
}

/// Signals that arrive during reads do not change the bytes.
#[test]
fn signals_in_the_middle_of_reads() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: an empty handler, without SA_RESTART, for a signal that nothing else uses here.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
    }
    let options = ["--batch-size", "64", "--block-size", "16", "--fetch-factor", "2", "--memory", "16MiB"];
    let path = store("csr-float32-gzip.h5ad");
    let (mount, truth) = (Mount::new(std::slice::from_ref(&path), &options), Mount::new(&[path], &options));
    let stop = AtomicBool::new(false);
    // SAFETY: this thread outlives the scope.
    let reader = unsafe { libc::pthread_self() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                // SAFETY: as above.
                unsafe { libc::pthread_kill(reader, libc::SIGUSR2) };
                std::thread::yield_now();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for epoch in 0..6 {
                for batch in 0..10 {
                    let name = format!("epoch-{epoch:04}/batch-{batch:06}.npz");
                    // `fs::read` retries after EINTR.
                    assert!(fs::read(mount.join(&name)).unwrap() == fs::read(truth.join(&name)).unwrap(), "{name}");
                }
            }
        }));
        stop.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    crate::faults::settled(&mount);
    mount.unmount();
}
