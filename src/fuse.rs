//! The kernel's requests, decoded and answered: a thin adaptor that knows no AnnData.
//!
//! No request blocks its session thread: `lookup`, `getattr`, `readdir`, `open` and `statfs` read no store, and a read whose bytes are
//! not in memory leaves its reply object with the engine. A panic costs the request that meets it (its reply object is dropped, which
//! sends EIO); without that it would end the session thread, and the mount with it.

mod attributes;
mod handles;
pub mod look;
pub mod page_cache;
pub mod passthrough;

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::array::ArrayError;
use crate::array::catch_panic::contain_panic;
use crate::engine::access::Opening;
use crate::engine::view_file::{DealtEpoch, ViewFile, ViewFiles};
use crate::engine::{Engine, ImageKey, ReadError};
use crate::format::directory::{Directory, Inside};
use crate::plan::rank::Rank;
use crate::tree::documents::Documents;
use crate::tree::{Node, Sequence, Tree};

pub use attributes::Ownership;
use attributes::{FOREVER, ttl};
use handles::CONTENT;
pub use handles::Handles;
use page_cache::PageCache;
use passthrough::{OpenRequest, PASSTHROUGH_HANDLE, Passthrough};

/// The file system of one mount.
pub struct ShuffleFs {
    pub engine: Arc<Engine>,
    pub files: Arc<ViewFiles>,
    pub tree: Arc<Tree>,
    pub page_cache: PageCache,
    pub passthrough: Arc<Passthrough>,
    pub documents: Documents,
    pub ownership: Ownership,
    /// Approximate bytes of one epoch of all views in the listed format, for `df`.
    pub epoch_bytes: u64,
    /// Keep file contents in the page cache, for readers that read files again.
    pub keep_cache: bool,
    /// What `.shufflefs/options.json` shows.
    pub options: String,
    /// Reads the log so far, for `.shufflefs/log`.
    pub log: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Open control files, with their content as of `open`.
    pub handles: Handles,
    pub start: Instant,
}

/// Bytes of a block in `statfs`.
const BLOCK: u32 = 4096;
/// Free inodes in `statfs`: monitors warn when nearly all are used.
const FREE_INODES: u64 = 1 << 32;

/// Maps an error to an errno; the only place that does.
fn errno(error: &ReadError) -> Errno {
    match error {
        ReadError::Array(ArrayError::Stale { .. }) => Errno::ESTALE,
        // Limits and permissions of the machine are no fault of the data, so they keep their errno.
        ReadError::Array(ArrayError::Io { source, .. }) => match (source.raw_os_error(), source.kind()) {
            (Some(errno @ (libc::EMFILE | libc::ENFILE)), _) => Errno::from_i32(errno),
            (_, ErrorKind::PermissionDenied) => Errno::EACCES,
            (_, ErrorKind::OutOfMemory) => Errno::ENOMEM,
            (_, ErrorKind::StaleNetworkFileHandle) => Errno::ESTALE,
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}

impl ShuffleFs {
    /// A handle that contains the time of `open`, in microseconds.
    fn now(&self) -> FileHandle {
        FileHandle(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(0) & !(CONTENT | PASSTHROUGH_HANDLE))
    }

    fn node(&self, ino: INodeNo) -> Option<Node> {
        self.tree.node(ino.0)
    }

    /// For a node at or below `epoch-N.zarr` and its like: the virtual directory, and the node's number in it.
    fn directory(&self, node: &Node) -> Option<(Arc<Directory>, u64)> {
        let Node::Inside { view, rank, epoch, kind, number } = *node else { return None };
        let dealt = DealtEpoch { view, rank: rank.or(self.tree.rank), epoch };
        match self.files.directory(dealt, kind) {
            Ok(directory) => Some((directory, number)),
            Err(reason) => {
                tracing::warn!("there is no .{}: {reason}", kind.as_str());
                None
            }
        }
    }

    fn child(&self, parent: &Node, name: &str) -> Option<Node> {
        match self.directory(parent) {
            Some((directory, folder)) => Some(inside(parent, directory.lookup(folder, name)?)),
            None => self.tree.lookup(parent, name),
        }
    }

    fn is_dir(&self, node: &Node) -> bool {
        match self.directory(node) {
            Some((directory, number)) => matches!(directory.get(number), Some(Inside::Folder)),
            None => node.is_dir(),
        }
    }

    /// The image of a batch file, as a batch of the whole epoch, and the rank whose tree the file is in.
    fn key(&self, node: &Node) -> Option<(ImageKey, Option<Rank>)> {
        key(&self.engine, &self.tree, node)
    }
}

/// The file of many batches of a node, which may be in a virtual directory.
fn view_file(files: &ViewFiles, tree: &Tree, node: &Node) -> Option<ViewFile> {
    if let Node::Inside { view, rank, epoch, kind, number } = *node {
        return Some(files.inside(DealtEpoch { view, rank: rank.or(tree.rank), epoch }, kind, number));
    }
    let Node::Whole { view, rank, sequence, extension } = *node else { return None };
    match sequence {
        Sequence::Epoch(epoch) => Some(files.of_epoch(DealtEpoch { view, rank: rank.or(tree.rank), epoch }, extension)),
        Sequence::Stored => files.stored(view, extension),
        Sequence::By(column) => files.by(view, column, None, extension),
        Sequence::Label(column, label) => files.by(view, column, Some(label), extension),
    }
}

/// The node with another number in the same virtual directory.
fn inside(node: &Node, to: u64) -> Node {
    match *node {
        Node::Inside { view, rank, epoch, kind, .. } => Node::Inside { view, rank, epoch, kind, number: to },
        other => other,
    }
}

fn key(engine: &Engine, tree: &Tree, node: &Node) -> Option<(ImageKey, Option<Rank>)> {
    let Node::Batch { view, rank, epoch, batch, extension } = *node else { return None };
    // The tree of a mount for one rank shows that rank's batches at the paths of the whole epoch.
    let rank = rank.or(tree.rank);
    let batch = match rank {
        Some(rank) => rank.batch(engine.plan(view), batch)?,
        None => batch,
    };
    Some((ImageKey::file(view, epoch, batch, extension), rank))
}

fn slice(bytes: &[u8], offset: u64, size: u32) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[start..start.saturating_add(size as usize).min(bytes.len())]
}

impl Filesystem for ShuffleFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each is an optimisation that an older kernel may lack.
        for flag in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ] {
            let _ = config.add_capabilities(flag);
        }
        // For correctness: without it, Linux up to at least 6.18 loses the length of a short io_uring read of an uncached file that
        // reaches the end of file, and appends the file's first bytes.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_background(64);
        // Backing files are tmpfs files, not of a stacked file system, so depth 1 is enough.
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok() {
            self.passthrough.allow();
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        contain_panic(|| {
            let found = self.node(parent).zip(name.to_str()).and_then(|(parent, name)| self.child(&parent, name));
            match found.and_then(|node| Some((node, self.attr(&node)?))) {
                Some((node, attr)) => reply.entry_with_ttls(&FOREVER, &ttl(&node), &attr, Generation(0)),
                None => reply.error(Errno::ENOENT),
            }
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        contain_panic(|| match self.node(ino).and_then(|node| Some((node, self.attr(&node)?))) {
            Some((node, attr)) => reply.attr(&ttl(&node), &attr),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        contain_panic(|| {
            if flags.acc_mode() != OpenAccMode::O_RDONLY {
                return reply.error(Errno::EROFS);
            }
            match self.node(ino) {
                None => reply.error(Errno::ENOENT),
                Some(Node::Control(control)) => {
                    reply.opened(self.handles.add(self.control(control)), FopenFlags::FOPEN_DIRECT_IO);
                }
                Some(Node::Whole { .. } | Node::Inside { .. }) if !self.keep_cache => {
                    reply.opened(self.now(), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
                }
                Some(node) => match self.key(&node) {
                    Some((key, rank)) => {
                        let (handle, Opening { service, store_ahead }) =
                            (self.now(), self.engine.opens(key, rank, ino.0));
                        if store_ahead {
                            self.page_cache.store_after(&node);
                        }
                        let file = OpenRequest { ino: ino.0, key, rank, handle, service };
                        self.passthrough.open(&self.engine, file, reply);
                    }
                    None => reply.opened(self.now(), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
                },
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        contain_panic(|| {
            let Some(node) = self.node(ino) else { return reply.error(Errno::ENOENT) };
            if let Some(content) = self.handles.get(fh) {
                return reply.data(slice(&content, offset, size));
            }
            if let Some(document) = self.document(&node) {
                return reply.data(slice(document, offset, size));
            }
            if let Some(file) = view_file(&self.files, &self.tree, &node) {
                let reply = Box::new(move |result: Result<&[u8], &ReadError>| match result {
                    Ok(bytes) => reply.data(bytes),
                    Err(error) => reply.error(errno(error)),
                });
                return self.files.read(file, (offset, size as usize), reply);
            }
            let Some((key, rank)) = self.key(&node) else { return reply.error(Errno::EISDIR) };
            // Requests of the page cache itself (readahead, mmap) have no lock owner.
            if offset == 0 && self.engine.starts(key, rank, lock_owner.is_none(), size as usize) {
                self.page_cache.store_after(&node);
            }
            self.passthrough.read(ino.0, fh, |lent| {
                if let Some(bytes) = lent {
                    return reply.data(slice(bytes, offset, size));
                }
                let reply = Box::new(move |result: Result<&[u8], &ReadError>| match result {
                    Ok(bytes) => reply.data(bytes),
                    Err(error) => reply.error(errno(error)),
                });
                let opened = (offset == 0).then(|| self.start + Duration::from_micros(fh.0));
                self.engine.read(key, rank, (offset, size as usize), opened, reply);
            });
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        contain_panic(|| {
            self.handles.remove(fh);
            self.passthrough.release(ino.0);
            reply.ok();
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Directory entries are not cached: an epoch is listed once, and caching 1.5 M names takes a sixth of the time.
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        contain_panic(|| {
            let Some(directory) = self.node(ino).filter(|node| self.is_dir(node)) else {
                return reply.error(Errno::ENOTDIR);
            };
            for (next, name, node) in self.entries(directory, offset) {
                let kind = if self.is_dir(&node) { FileType::Directory } else { FileType::RegularFile };
                let Some(ino) = self.tree.ino(&node) else { continue };
                if reply.add(INodeNo(ino), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        contain_panic(|| {
            let Some(directory) = self.node(ino).filter(|node| self.is_dir(node)) else {
                return reply.error(Errno::ENOTDIR);
            };
            for (next, name, node) in self.entries(directory, offset) {
                let Some(attr) = self.attr(&node) else { continue };
                if reply.add(attr.ino, next, name, &ttl(&node), &attr, Generation(0)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        contain_panic(|| {
            let files = self.tree.listed_epochs.saturating_mul(self.tree.batches().saturating_add(1));
            // A read-only file system has no free blocks; inodes are virtual.
            let blocks = self.epoch_bytes.div_ceil(BLOCK.into());
            reply.statfs(blocks, 0, 0, files.saturating_add(FREE_INODES), FREE_INODES, BLOCK, 255, BLOCK);
        });
    }

    // Mutations. The kernel refuses most of them because of the `ro` flag, but that flag may be missing where another program has
    // mounted (/dev/fd/N).

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _newparent: INodeNo, _newname: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    /// Errors of the system keep their errno; only errors in the data are EIO.
    #[test]
    fn errors_keep_their_errno_where_the_contract_allows_it() {
        let of = |source: Error| {
            let (store, what) = ("a.h5ad".to_owned(), "X/data: chunk 3: cannot be read".to_owned());
            i32::from(errno(&ReadError::Array(ArrayError::Io { store, what, source: Arc::new(source) })))
        };
        for kept in [libc::EACCES, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ESTALE] {
            assert_eq!(of(Error::from_raw_os_error(kept)), kept);
        }
        for other in [libc::EIO, libc::ETIMEDOUT, libc::ENOENT, libc::EINTR] {
            assert_eq!(of(Error::from_raw_os_error(other)), libc::EIO);
        }
        assert_eq!(of(ErrorKind::PermissionDenied.into()), libc::EACCES);
    }
}
