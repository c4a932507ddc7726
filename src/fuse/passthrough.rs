//! FUSE passthrough: a reader that maps a file maps the memory of its image, without a copy and without READ requests.
//!
//! The kernel requires that all open handles of an inode agree: either all have the same backing file, or none has one. So all handles
//! are counted here, by inode. Only mappings are passed through; `read` still comes here (FOPEN_DIRECT_IO), because splice would
//! put the image's pages into pipes, and nothing tells when those are released.
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

/// Stages: not available; offered by the kernel, untried; in use, so that the engine makes images as tmpfs files.
const OFF: u8 = 0;
const POSSIBLE: u8 = 1;
const ON: u8 = 2;

/// The open handles of one inode, and the backing file that they share.
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
    /// The handle to reply with.
    pub handle: FileHandle,
    pub service: Service,
}

impl Passthrough {
    /// Notes that the kernel offers passthrough. Called before anything is opened.
    pub fn allow(&self) {
        self.stage.store(POSSIBLE, Ordering::Relaxed);
    }

    /// Answers an `open`: at once, or, where its image is to be leased, once that is loaded.
    pub fn open(self: &Arc<Self>, engine: &Engine, file: OpenRequest, reply: ReplyOpen) {
        let (key, rank) = (file.key, file.rank);
        // Handles of an inode must agree, so a second one never waits for an image.
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

    /// Whether the kernel accepts backing files. From the first success on, the engine makes images as tmpfs files.
    fn is_on(&self, engine: &Engine, reply: &ReplyOpen) -> bool {
        if self.stage.load(Ordering::Relaxed) == POSSIBLE {
            let stage = match sample().and_then(|file| reply.open_backing(file)) {
                Ok(_) => ON,
                Err(error) => {
                    tracing::debug!("files that are mapped go through the page cache: {error}");
                    OFF
                }
            };
            // Another thread may have decided first, and have opened a backing file.
            if self.stage.compare_exchange(POSSIBLE, stage, Ordering::Relaxed, Ordering::Relaxed) == Ok(POSSIBLE)
                && stage == ON
            {
                engine.use_files();
            }
        }
        self.stage.load(Ordering::Relaxed) == ON
    }

    /// Replies to `open`; true if the kernel will send no READs for this handle.
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
            // Reading a cold file through the page cache has half the rate (docs/performance.md).
            None => reply.opened(file.handle, direct),
        }
        backing_file.is_some() || file.service == Service::PageCache
    }

    /// Counts a handle of an inode; returns the backing file that it shares, if any.
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

    /// Counts a released handle. Mappings made through it may live on.
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

    /// Calls `take` with the bytes of the image that a handle was opened with, which the engine may have evicted since.
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
