//! Lends images to the kernel (FUSE passthrough): a reader that maps a file sees the memory that the engine made it in, without a
//! copy and without a request.
//!
//! All handles of one inode that are open at a time must be alike, or the kernel refuses one: all lent the same image, or none
//! lent. So handles are counted here, by inode, from the first one on. Only mappings are passed through: reads come here as
//! ever (FOPEN_DIRECT_IO), as splice would put our pages into pipes, where nothing tells when they are let go.
//! Passthrough needs Linux 6.9 and CAP_SYS_ADMIN; without them, mapped files go through the page cache.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};

use crate::engine::access::Service;
use crate::engine::lease::{LeasedImage, Loaded, sample};
use crate::engine::{Engine, ImageKey};
use crate::plan::rank::Rank;

use super::errno;

/// Handles with this bit belong to a file opened with a backing file.
pub const PASSTHROUGH_HANDLE: u64 = 1 << 62;

/// The passthrough of one mount: its state, and the open handles of each inode.
#[derive(Default)]
pub struct Passthrough {
    stage: AtomicU8,
    open: Mutex<HashMap<u64, InodeHandles>>,
}

/// The kernel has no passthrough, or it cannot be used; it has; images are made for it.
const OFF: u8 = 0;
const POSSIBLE: u8 = 1;
const ON: u8 = 2;

/// The open handles of one inode: how many, and the backing file that all of them share.
struct InodeHandles {
    count: u64,
    backing_file: Option<Arc<BackingFile>>,
}

struct BackingFile {
    backing: BackingId,
    image: LeasedImage,
}

/// A file that is being opened.
pub struct OpenRequest {
    pub ino: u64,
    pub key: ImageKey,
    pub rank: Option<Rank>,
    /// Its handle.
    pub handle: FileHandle,
    pub service: Service,
}

impl Passthrough {
    /// The kernel has agreed to passthrough. Called before anything is opened.
    pub fn allow(&self) {
        self.stage.store(POSSIBLE, Ordering::Relaxed);
    }

    /// Answers an `open`: where its image is to be lent, once that is loaded.
    pub fn open(self: &Arc<Self>, engine: &Engine, file: OpenRequest, reply: ReplyOpen) {
        let (key, rank) = (file.key, file.rank);
        // All handles of an inode are alike: where there are others, there is nothing to wait for.
        if file.service != Service::Lease || !self.is_on(engine, &reply) || self.lock().contains_key(&file.ino) {
            if self.answer(&file, None, reply) {
                engine.opened(key, rank);
            }
            return;
        }
        let this = self.clone();
        let opened = move |image: Result<Loaded, &_>| match image {
            Ok(image) => _ = this.answer(&file, Some(&image), reply),
            Err(error) => reply.error(errno(error)),
        };
        engine.open(key, rank, Box::new(opened));
    }

    /// Whether the kernel takes backing files; from the first success on, the engine makes images as files.
    fn is_on(&self, engine: &Engine, reply: &ReplyOpen) -> bool {
        if self.stage.load(Ordering::Relaxed) == POSSIBLE {
            let stage = match sample().and_then(|file| reply.open_backing(file)) {
                Ok(_) => ON,
                Err(error) => {
                    tracing::debug!("files that are mapped go through the page cache: {error}");
                    OFF
                }
            };
            // Another thread may have decided meanwhile, and have opened a backing file.
            if self.stage.compare_exchange(POSSIBLE, stage, Ordering::Relaxed, Ordering::Relaxed) == Ok(POSSIBLE)
                && stage == ON
            {
                engine.use_files();
            }
        }
        self.stage.load(Ordering::Relaxed) == ON
    }

    /// Answers; true if the kernel will send no READs for this handle.
    fn answer(&self, file: &OpenRequest, image: Option<&Loaded>, reply: ReplyOpen) -> bool {
        let backing_file =
            if self.stage.load(Ordering::Relaxed) == OFF { None } else { self.count(file, image, &reply) };
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        match &backing_file {
            Some(backing_file) => {
                reply.opened_passthrough(FileHandle(file.handle.0 | PASSTHROUGH_HANDLE), direct, &backing_file.backing)
            }
            None if file.service == Service::PageCache => {
                reply.opened(file.handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH)
            }
            // Through the page cache a cold file is read at half the rate (docs/performance.md).
            None => reply.opened(file.handle, direct),
        }
        backing_file.is_some() || file.service == Service::PageCache
    }

    /// Counts one more handle of an inode; the backing file that it gets, if any.
    fn count(&self, file: &OpenRequest, image: Option<&Loaded>, reply: &ReplyOpen) -> Option<Arc<BackingFile>> {
        let mut open = self.lock();
        let handles = open.entry(file.ino).or_insert_with(|| {
            let lease = |image: &Loaded| {
                let image = image.lease()?;
                Some(Arc::new(BackingFile { backing: reply.open_backing(&image).ok()?, image }))
            };
            InodeHandles { count: 0, backing_file: image.and_then(lease) }
        });
        handles.count += 1;
        handles.backing_file.clone()
    }

    /// Notes that a handle was released. Mappings made through it may live on.
    pub fn release(&self, ino: u64) {
        let mut open = self.lock();
        let Some(handles) = open.get_mut(&ino) else { return };
        handles.count -= 1;
        if handles.count == 0 {
            let gone = open.remove(&ino);
            drop(open);
            drop(gone);
        }
    }

    /// Passes on the bytes of the image that a handle was opened with; the engine may have evicted it since.
    pub fn read(&self, ino: u64, handle: FileHandle, take: impl FnOnce(Option<&[u8]>)) {
        let backing = if handle.0 & PASSTHROUGH_HANDLE == 0 {
            None
        } else {
            self.lock().get(&ino).and_then(|open| open.backing_file.clone())
        };
        take(backing.as_ref().map(|backing| backing.image.bytes()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, InodeHandles>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
