//! Puts the files that come next into the kernel's page cache, for readers that map files or read them in small pieces.
//!
//! Such readers (safetensors, numpy, h5py) wait for the daemon many times a file; with the file in the page cache before
//! they open it they never do, and the copy is made on another core. Readers that take a whole file in one read are
//! served without the page cache, which is a copy less. Content is a pure function of the path, so a page can never be
//! out of date; missing pages are read through FUSE as usual. What was stored or opened longest ago is dropped again: memory that is
//! used over and over is quicker than fresh memory, and the rest of the cache is left to others. Nothing here is waited
//! for by a session thread: the thread below asks the kernel for names, and these requests are answered there.

use std::collections::VecDeque;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fuser::{INodeNo, Notifier};
use lru::LruCache;

use crate::engine::Engine;
use crate::tree::{Node, Tree};

use super::key;

/// Bytes and files that are put there ahead of the one that is being read.
const AHEAD_BYTES: u64 = 16 << 20;
const AHEAD_FILES: u64 = 64;
/// Bytes and files that stay there, at most and at least: those ahead of several readers, and some that were read.
const STORED_BYTES: u64 = 128 << 20;
const STORED_FILES: usize = 4;
/// One message to the kernel.
const MESSAGE: usize = 1 << 20;
/// Files and directories remembered. Without `--cache` there is room for fewer files, as each has a page.
const FILES: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The kernel's side of the mount.
pub struct Kernel {
    pub notifier: Notifier,
    /// Where it is mounted, and its device number: a file must have been looked up before its pages can be stored.
    pub root: PathBuf,
    pub device: u64,
}

/// What is in the page cache, and what is to be put there. Does nothing until it is started.
pub struct PageCache {
    shared: Arc<PusherShared>,
}

struct PusherShared {
    engine: Arc<Engine>,
    tree: Arc<Tree>,
    running: AtomicBool,
    state: Mutex<PusherState>,
    work: Condvar,
    /// What was stored stays as long as the kernel has room.
    keep: bool,
}

struct PusherState {
    /// Directories whose readers map files (then true) or read them in pieces.
    piecemeal: LruCache<Node, bool>,
    /// Inodes whose pages were stored, and the bytes of these; and the sum.
    stored: LruCache<u64, u64>,
    stored_bytes: u64,
    /// Files opened of late, at most one a directory: those after them are wanted.
    opened: VecDeque<Node>,
    stop: bool,
}

impl PageCache {
    /// `keep`: what was stored stays as long as the kernel has room.
    pub fn new(engine: Arc<Engine>, tree: Arc<Tree>, keep: bool) -> PageCache {
        let state = PusherState {
            piecemeal: LruCache::new(DIRECTORIES),
            stored: LruCache::new(FILES),
            stored_bytes: 0,
            opened: VecDeque::new(),
            stop: false,
        };
        let shared = PusherShared {
            engine,
            tree,
            running: AtomicBool::new(false),
            state: Mutex::new(state),
            work: Condvar::new(),
            keep,
        };
        PageCache { shared: Arc::new(shared) }
    }

    /// What starts the thread once the mount answers.
    pub fn starter(&self) -> impl FnOnce(Kernel) + use<> {
        let shared = self.shared.clone();
        move |kernel| {
            shared.running.store(true, Ordering::Relaxed);
            let for_thread = shared.clone();
            let thread = std::thread::Builder::new().name("page-cache".to_owned());
            // Without the thread nothing is stored, and files are read through FUSE.
            if thread.spawn(move || for_thread.run(&kernel)).is_err() {
                shared.running.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Notes that a file is opened; whether its pages are in the cache.
    pub fn opened(&self, ino: u64, node: &Node) -> bool {
        if !self.shared.running.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.shared.lock();
        if state.piecemeal.get(&directory(node)).is_some() {
            state.opened.retain(|other| directory(other) != directory(node));
            state.opened.push_back(*node);
            self.shared.work.notify_one();
        }
        state.stored.get(&ino).is_some()
    }

    /// Whether readers of the file's directory map files.
    pub fn maps(&self, node: &Node) -> bool {
        self.shared.lock().piecemeal.peek(&directory(node)) == Some(&true)
    }

    /// Notes how a file is read from its start: `mapped` (or through the page cache), or `len` bytes at once.
    pub fn read(&self, node: &Node, mapped: bool, len: usize, size: impl FnOnce() -> Option<u64>) {
        if !self.shared.running.load(Ordering::Relaxed) {
            return;
        }
        let piecemeal = mapped || (len < WHOLE && size().is_some_and(|size| size > len as u64));
        let mut state = self.shared.lock();
        // Those that map read headers, too.
        let maps = mapped || state.piecemeal.peek(&directory(node)) == Some(&true);
        if !piecemeal {
            state.piecemeal.pop(&directory(node));
        } else if state.piecemeal.put(directory(node), maps).is_none() {
            state.opened.push_back(*node);
            self.shared.work.notify_one();
        }
    }
}

/// A first read of at least this many bytes comes from a reader that takes whole files.
const WHOLE: usize = 512 << 10;

impl Drop for PageCache {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        // Not joined: it may be within a request to the kernel that ends with the mount.
    }
}

impl PusherShared {
    fn lock(&self) -> MutexGuard<'_, PusherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, kernel: &Kernel) {
        let mut state = self.lock();
        while !state.stop {
            match state.opened.pop_front() {
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(node) => {
                    drop(state);
                    self.store_after(kernel, node);
                    state = self.lock();
                }
            }
        }
    }

    /// Stores the files after an opened one, as far as they are loaded.
    fn store_after(&self, kernel: &Kernel, opened: Node) {
        let Node::Batch { view, rank, epoch, batch: first, extension } = opened else { return };
        let mut bytes = 0;
        // What is lent needs no pages of its own, nor what comes after it.
        let lent = self.lock().piecemeal.peek(&directory(&opened)) == Some(&true);
        let end = (first + 1 + AHEAD_FILES).min(self.tree.batches_of(view, rank));
        for batch in first + 1..end {
            let node = Node::Batch { view, rank, epoch, batch, extension };
            let (Some(ino), Some((key, _))) = (self.tree.ino(&node), key(&self.engine, &self.tree, &node)) else {
                return;
            };
            let known = {
                let state = self.lock();
                if state.stop {
                    return;
                }
                state.stored.contains(&ino)
            };
            let Some(size) = self.engine.size(key) else { return };
            if !known {
                // Not here yet: the next file that is opened asks again.
                let Some(image) = self.engine.loaded(key) else { return };
                if lent && image.is_file() {
                    return;
                }
                if !self.is_known_to_kernel(kernel, &node, ino) {
                    return;
                }
                for (at, piece) in image.bytes().chunks(MESSAGE).enumerate() {
                    if kernel.notifier.store(INodeNo(ino), (at * MESSAGE) as u64, piece).is_err() {
                        return;
                    }
                }
                drop(image);
                self.engine.stored(key);
                self.note(kernel, ino, size.next_multiple_of(rustix::param::page_size() as u64));
            }
            bytes += size;
            if bytes >= AHEAD_BYTES {
                return;
            }
        }
    }

    /// Notes that `bytes` of an inode were stored, and drops the oldest stored files beyond the limit.
    fn note(&self, kernel: &Kernel, ino: u64, bytes: u64) {
        let mut state = self.lock();
        state.stored.put(ino, bytes);
        if self.keep {
            return;
        }
        state.stored_bytes += bytes;
        while state.stored_bytes > STORED_BYTES
            && state.stored.len() > STORED_FILES
            && let Some((ino, bytes)) = state.stored.pop_lru()
        {
            state.stored_bytes -= bytes;
            drop(state);
            // An inode that the kernel has forgotten has no pages.
            let _ = kernel.notifier.inval_inode(INodeNo(ino), 0, 0);
            state = self.lock();
        }
    }

    /// Lets the kernel look the file up: pages can be stored only of inodes that it knows.
    fn is_known_to_kernel(&self, kernel: &Kernel, node: &Node, ino: u64) -> bool {
        let path = kernel.root.join(self.tree.path(node));
        fs::symlink_metadata(path).is_ok_and(|found| found.dev() == kernel.device && found.ino() == ino)
    }
}

/// What the files of one directory in one format have in common.
fn directory(node: &Node) -> Node {
    match *node {
        Node::Batch { view, rank, epoch, extension, .. } => Node::Batch { view, rank, epoch, batch: 0, extension },
        other => other,
    }
}
