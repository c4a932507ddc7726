//! Stores the files that are read next in the kernel's page cache, where `engine::access` decides so.
//!
//! A separate thread does it, because a file must be looked up first, which session threads answer. It also copies on another core
//! than the reader's.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{INodeNo, Notifier};

use crate::engine::Engine;
use crate::engine::access::{Ahead, Step};
use crate::tree::{Node, Tree};

use super::key;
use super::look::Look;

/// Bytes of one notification.
const MESSAGE: usize = 1 << 20;
/// Timeout of a lookup, longer than any takes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What the thread needs of the mount.
pub struct Kernel {
    pub notifier: Notifier,
    /// Mount point and device number, to look files up: pages can be stored only for inodes that the kernel knows.
    pub root: PathBuf,
    pub device: u64,
}

/// Stores pages; does nothing before [`PageCache::starter`] is called.
pub struct PageCache {
    shared: Arc<PusherShared>,
}

struct PusherShared {
    engine: Arc<Engine>,
    tree: Arc<Tree>,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The file opened last in each directory and format: the files after it are to be stored.
    opened: VecDeque<Node>,
    stop: bool,
}

impl PageCache {
    pub fn new(engine: Arc<Engine>, tree: Arc<Tree>) -> PageCache {
        PageCache { shared: Arc::new(PusherShared { engine, tree, queue: Mutex::default(), work: Condvar::new() }) }
    }

    /// A function that starts the thread, to be called when the mount answers.
    pub fn starter(&self) -> impl FnOnce(Kernel) + use<> {
        let shared = self.shared.clone();
        move |kernel| {
            shared.engine.can_store(true);
            let for_thread = shared.clone();
            let thread = std::thread::Builder::new().name("page-cache".to_owned());
            // Without the thread nothing is stored, and files are read with READ requests.
            if thread.spawn(move || for_thread.run(&kernel)).is_err() {
                shared.engine.can_store(false);
            }
        }
    }

    /// Queues a file: the thread stores the files after it.
    pub fn store_after(&self, node: &Node) {
        let mut queue = self.shared.lock();
        queue.opened.retain(|other| directory(other) != directory(node));
        queue.opened.push_back(*node);
        self.shared.work.notify_one();
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        // Not joined: the thread may wait for the kernel until the mount ends.
    }
}

impl PusherShared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, kernel: &Kernel) {
        let Ok(look) = Look::new() else { return self.engine.can_store(false) };
        let mut queue = self.lock();
        while !queue.stop {
            match queue.opened.pop_front() {
                None => queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(node) => {
                    drop(queue);
                    self.store_ahead(kernel, &look, node);
                    queue = self.lock();
                }
            }
        }
    }

    /// Stores the files after an opened one.
    fn store_ahead(&self, kernel: &Kernel, look: &Look, opened: Node) {
        let Node::Batch { view, rank, epoch, batch: first, extension } = opened else { return };
        let mut ahead = Ahead::default();
        for batch in first + 1..self.tree.batches_of(view, rank) {
            let node = Node::Batch { view, rank, epoch, batch, extension };
            let (Some(ino), Some((key, rank))) = (self.tree.ino(&node), key(&self.engine, &self.tree, &node)) else {
                return;
            };
            if self.lock().stop {
                return;
            }
            let image = match self.engine.store_ahead(&mut ahead, key, rank, ino) {
                Step::Skip => continue,
                Step::Stop => return,
                Step::Store(image) => image,
            };
            if !self.is_known_to_kernel(kernel, look, &node, ino) {
                return;
            }
            for (at, piece) in image.bytes().chunks(MESSAGE).enumerate() {
                if kernel.notifier.store(INodeNo(ino), (at * MESSAGE) as u64, piece).is_err() {
                    return;
                }
            }
            let bytes = (image.bytes().len() as u64).next_multiple_of(rustix::param::page_size() as u64);
            drop(image);
            for dropped in self.engine.stored(key, ino, bytes) {
                // The error is ignored: an inode that the kernel has forgotten has no pages.
                let _ = kernel.notifier.inval_inode(INodeNo(dropped), 0, 0);
            }
        }
    }

    /// Makes the kernel look the file up: pages can be stored only for inodes that it knows.
    fn is_known_to_kernel(&self, kernel: &Kernel, look: &Look, node: &Node, ino: u64) -> bool {
        let found = look.at(kernel.root.join(self.tree.path(node)), PATIENCE);
        found.is_ok_and(|found| found.dev() == kernel.device && found.ino() == ino)
    }
}

/// A node that all files of one directory in one format share, as a key.
fn directory(node: &Node) -> Node {
    match *node {
        Node::Batch { view, rank, epoch, extension, .. } => Node::Batch { view, rank, epoch, batch: 0, extension },
        other => other,
    }
}
