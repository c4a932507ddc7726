//! Puts the files that come next into the kernel's page cache, where `engine::access` says so.
//!
//! Nothing here is waited for by a session thread: the thread below asks the kernel for names, and these requests are answered
//! there. The copy is made on another core than the reader's.

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

/// One message to the kernel.
const MESSAGE: usize = 1 << 20;
/// Longer than any look takes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The kernel's side of the mount.
pub struct Kernel {
    pub notifier: Notifier,
    /// Where it is mounted, and its device number: a file must have been looked up before its pages can be stored.
    pub root: PathBuf,
    pub device: u64,
}

/// Stores pages. Does nothing until it is started.
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
    /// Files opened of late, at most one a directory: those after them are to be stored.
    opened: VecDeque<Node>,
    stop: bool,
}

impl PageCache {
    pub fn new(engine: Arc<Engine>, tree: Arc<Tree>) -> PageCache {
        PageCache { shared: Arc::new(PusherShared { engine, tree, queue: Mutex::default(), work: Condvar::new() }) }
    }

    /// What starts the thread once the mount answers.
    pub fn starter(&self) -> impl FnOnce(Kernel) + use<> {
        let shared = self.shared.clone();
        move |kernel| {
            shared.engine.can_store(true);
            let for_thread = shared.clone();
            let thread = std::thread::Builder::new().name("page-cache".to_owned());
            // Without the thread nothing is stored, and files are read through FUSE.
            if thread.spawn(move || for_thread.run(&kernel)).is_err() {
                shared.engine.can_store(false);
            }
        }
    }

    /// Stores the files after one, when the thread comes to it.
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
        // Not joined: it may be within a request to the kernel that ends with the mount.
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
                // An inode that the kernel has forgotten has no pages.
                let _ = kernel.notifier.inval_inode(INodeNo(dropped), 0, 0);
            }
        }
    }

    /// Lets the kernel look the file up: pages can be stored only of inodes that it knows.
    fn is_known_to_kernel(&self, kernel: &Kernel, look: &Look, node: &Node, ino: u64) -> bool {
        let found = look.at(kernel.root.join(self.tree.path(node)), PATIENCE);
        found.is_ok_and(|found| found.dev() == kernel.device && found.ino() == ino)
    }
}

/// What the files of one directory in one format have in common.
fn directory(node: &Node) -> Node {
    match *node {
        Node::Batch { view, rank, epoch, extension, .. } => Node::Batch { view, rank, epoch, batch: 0, extension },
        other => other,
    }
}
