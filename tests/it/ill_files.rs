//! A FUSE file system of the tests that shows a directory with calls that fail, are slow, hang or return wrong data.
//!
//! The program under test reads a store through it, so a fault reaches every kind of reader: `pread` of a chunk, a zarr document,
//! libhdf5 in a child. The kernel caches nothing of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
    spawn_mount,
};

use crate::support::bounded;

/// The fault of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ail {
    /// It fails with this errno.
    Errno(i32),
    /// A read gives half of what was asked for.
    Short,
    /// A read returns that the file ends here.
    Empty,
    /// It takes some time.
    Slow,
    /// A read is answered only after `recover`.
    Stuck,
    /// A read returns changed bytes.
    Flip,
}

/// Kinds of calls, as a bit set.
pub const READ: u8 = 1;
pub const OPEN: u8 = 2;
pub const STAT: u8 = 4;
pub const LIST: u8 = 8;
pub const ANY: u8 = READ | OPEN | STAT | LIST;

/// A fault, and which calls have it: every `every`th from the `from`th on; with `once` only that one.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub ail: Ail,
    pub calls: u8,
    pub from: u64,
    pub every: u64,
    pub once: bool,
}

impl Fault {
    pub fn always(ail: Ail, calls: u8) -> Fault {
        Fault { ail, calls, from: 0, every: 1, once: false }
    }
}

#[derive(Default)]
struct Health {
    fault: Mutex<Option<Fault>>,
    /// Calls of the fault's kinds since it was set.
    calls: AtomicU64,
    /// How many of them had it.
    met: AtomicU64,
    /// Added to the times and sizes that `stat` shows.
    later: AtomicI64,
    longer: AtomicI64,
    stuck: Mutex<Vec<(ReplyData, Vec<u8>)>>,
}

struct Files {
    /// The path of inode i + 1; the first is the root.
    paths: Vec<PathBuf>,
    health: Arc<Health>,
}

/// A directory, shown at another path.
pub struct IllFiles {
    place: tempfile::TempDir,
    health: Arc<Health>,
    session: Option<BackgroundSession>,
}

impl IllFiles {
    /// None if nothing can be mounted.
    pub fn show(directory: &Path) -> IllFiles {
        let mut paths = vec![directory.to_path_buf()];
        let mut at = 0;
        while at < paths.len() {
            if paths[at].is_dir() {
                let mut below: Vec<PathBuf> = fs::read_dir(&paths[at]).unwrap().map(|e| e.unwrap().path()).collect();
                below.sort();
                paths.append(&mut below);
            }
            at += 1;
        }
        let place = tempfile::Builder::new().prefix("shufflefs-ill-").tempdir().unwrap();
        let health = Arc::<Health>::default();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("ill".to_owned())];
        config.n_threads = Some(4);
        let files = Files { paths, health: health.clone() };
        let session = spawn_mount(files, place.path(), &config).expect("mounts");
        IllFiles { place, health, session: Some(session) }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    pub fn fall_ill(&self, fault: Fault) {
        self.health.calls.store(0, Ordering::SeqCst);
        self.health.met.store(0, Ordering::SeqCst);
        *self.health.fault.lock().unwrap() = Some(fault);
    }

    /// Shows files with an mtime `later` nanoseconds later, and a size `longer` bytes larger, than they have.
    pub fn change(&self, later: i64, longer: i64) {
        self.health.later.store(later, Ordering::SeqCst);
        self.health.longer.store(longer, Ordering::SeqCst);
    }

    /// Removes the fault and answers waiting calls. Returns how many calls had the fault, of how many.
    pub fn recover(&self) -> (u64, u64) {
        *self.health.fault.lock().unwrap() = None;
        for (reply, bytes) in self.health.stuck.lock().unwrap().drain(..) {
            reply.data(&bytes);
        }
        (self.health.met.load(Ordering::SeqCst), self.health.calls.load(Ordering::SeqCst))
    }
}

impl Drop for IllFiles {
    fn drop(&mut self) {
        self.recover();
        // Lazily: the daemon of a failed test may have files open.
        let _ = bounded(30, "umount").arg("-l").arg(self.place.path()).status();
        drop(self.session.take());
    }
}

impl Health {
    /// The fault of a call of this kind.
    fn meets(&self, call: u8) -> Option<Ail> {
        let fault = (*self.fault.lock().unwrap())?;
        if fault.calls & call == 0 {
            return None;
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let met = match fault.once {
            true => number == fault.from,
            false => number >= fault.from && (number - fault.from).is_multiple_of(fault.every),
        };
        if !met {
            return None;
        }
        self.met.fetch_add(1, Ordering::SeqCst);
        if fault.ail == Ail::Slow {
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(fault.ail)
    }

    /// The errno of a call that is not a read.
    fn fails(&self, call: u8) -> Option<Errno> {
        match self.meets(call) {
            Some(Ail::Errno(errno)) => Some(Errno::from_i32(errno)),
            _ => None,
        }
    }
}

impl Files {
    fn path(&self, ino: INodeNo) -> &Path {
        &self.paths[ino.0 as usize - 1]
    }

    fn number(&self, path: &Path) -> Option<u64> {
        self.paths.iter().position(|other| other == path).map(|at| at as u64 + 1)
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let found = fs::metadata(self.path(ino)).unwrap();
        let later = self.health.later.load(Ordering::SeqCst);
        let mtime = found.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64 + later;
        let mtime: SystemTime = UNIX_EPOCH + Duration::from_nanos(mtime as u64);
        let longer = if found.is_dir() { 0 } else { self.health.longer.load(Ordering::SeqCst) };
        let size = found.len().saturating_add_signed(longer);
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: if found.is_dir() { FileType::Directory } else { FileType::RegularFile },
            perm: if found.is_dir() { 0o555 } else { 0o444 },
            nlink: 1,
            uid: found.uid(),
            gid: found.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(number) = self.number(&self.path(parent).join(name)) else { return reply.error(Errno::ENOENT) };
        match self.health.fails(STAT) {
            Some(errno) => reply.error(errno),
            None => reply.entry(&Duration::ZERO, &self.attr(INodeNo(number)), Generation(0)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.health.fails(STAT) {
            Some(errno) => reply.error(errno),
            None => reply.attr(&Duration::ZERO, &self.attr(ino)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.health.fails(OPEN) {
            Some(errno) => reply.error(errno),
            None => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let got = fs::File::open(self.path(ino)).and_then(|file| file.read_at(&mut bytes, offset)).unwrap();
        bytes.truncate(got);
        match self.health.meets(READ) {
            Some(Ail::Errno(errno)) => return reply.error(Errno::from_i32(errno)),
            Some(Ail::Short) => bytes.truncate(got.div_ceil(2)),
            Some(Ail::Empty) => bytes.clear(),
            Some(Ail::Flip) => {
                if let Some(byte) = bytes.get_mut(got / 2) {
                    *byte ^= 0x41;
                }
            }
            Some(Ail::Stuck) => return self.health.stuck.lock().unwrap().push((reply, bytes)),
            Some(Ail::Slow) | None => {}
        }
        reply.data(&bytes);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if let Some(errno) = self.health.fails(LIST) {
            return reply.error(errno);
        }
        let here = self.path(ino);
        let below = self.paths.iter().enumerate().filter(|(_, path)| path.parent() == Some(here));
        let names = below.map(|(at, path)| (at as u64 + 1, path.file_name().unwrap().to_owned()));
        let dots = [".", ".."].map(|name| (ino.0, name.into()));
        for (at, (number, name)) in dots.into_iter().chain(names).enumerate().skip(offset as usize) {
            let kind =
                if self.paths[number as usize - 1].is_dir() { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
