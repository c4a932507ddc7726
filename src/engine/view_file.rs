//! Files of many batches: a whole epoch of a view, or a part of one, as one file.
//!
//! Such a file is never in memory as a whole. Known bytes come from its layout (`format::Segments`), obs fields and row bounds from the
//! collection, and matrices from images of one batch and one part each (`Parts`), which the engine loads, prefetches and evicts like those
//! of batch files. The offset of a batch follows from the number of values before each group of `fetch_factor` batches: 8 bytes for each
//! group
//! and sparse matrix, counted when values or row bounds are first read. `stat` needs only the totals of the view, unless rows are drawn,
//! dropped or divided among ranks: then it counts as well.

mod assembly;
mod cuts;
mod reading;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;

use crate::batch::Field;
use crate::format::directory::{BatchIndex, Directory, FileContent, Inside, Made};
use crate::format::{Content, DirectoryKind, Extension, FileShape, Segment, Segments};
use crate::plan::rank::Rank;
use crate::slab::reserve;

use super::loader::FetchLoader;
use super::{Engine, ImageKey, ReadError, Reply, at_most};
use assembly::Assembly;
use cuts::Cuts;
use reading::Reading;

/// A file of many batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewFile {
    pub dealt: DealtEpoch,
    /// The range of batches of the epoch; `None`: all.
    pub batches: Option<(u64, u64)>,
    pub place: FilePlace,
}

/// The file that has the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilePlace {
    /// All rows in one file.
    Whole(Extension),
    /// A file in a directory format, by its number there.
    Inside(DirectoryKind, u64),
}

/// A sequence of batches, which determines the offset of each in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DealtEpoch {
    pub view: u16,
    pub rank: Option<Rank>,
    pub epoch: u64,
}

/// How the bytes of a file are found.
enum LaidOut {
    Segments(Arc<Segments>),
    Batch(ImageKey),
    Index(Arc<BatchIndex>),
}

/// Layouts and sequences to cache.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// A format's name, rows, batches, and values of each element.
type ShapeKey = (&'static str, u64, u64, Vec<u64>);

/// The files of many batches of one mount.
pub struct ViewFiles {
    engine: Arc<Engine>,
    layouts: Mutex<LruCache<ShapeKey, Arc<Segments>>>,
    directories: Mutex<LruCache<ShapeKey, Arc<Directory>>>,
    /// Files that are assembled in memory.
    made: Mutex<LruCache<ViewFile, Arc<Segments>>>,
    cuts: Mutex<LruCache<DealtEpoch, Arc<OnceLock<Cuts>>>>,
    totals: Mutex<LruCache<u16, Arc<Vec<u64>>>>,
}

impl ViewFiles {
    pub fn new(engine: Arc<Engine>) -> Arc<ViewFiles> {
        let views = at_most(engine.shared.loader.plans.views().len());
        Arc::new(ViewFiles {
            engine,
            layouts: Mutex::new(LruCache::new(KEPT)),
            directories: Mutex::new(LruCache::new(KEPT)),
            made: Mutex::new(LruCache::new(KEPT)),
            cuts: Mutex::new(LruCache::new(KEPT)),
            totals: Mutex::new(LruCache::new(views)),
        })
    }

    /// An epoch, or a rank's part of it, as one file.
    pub fn of_epoch(&self, dealt: DealtEpoch, extension: Extension) -> ViewFile {
        ViewFile { dealt, batches: None, place: FilePlace::Whole(extension) }
    }

    /// A file in the directory of an epoch, or of a rank's part of it.
    pub fn inside(&self, dealt: DealtEpoch, kind: DirectoryKind, number: u64) -> ViewFile {
        ViewFile { dealt, batches: None, place: FilePlace::Inside(kind, number) }
    }

    /// The directory of an epoch.
    ///
    /// # Errors
    /// Why the format cannot have it.
    pub fn directory(&self, dealt: DealtEpoch, kind: DirectoryKind) -> Result<Arc<Directory>, String> {
        self.directory_of(self.inside(dealt, kind, 0), kind)
    }

    /// The directory that a file is in, of all batches or some.
    ///
    /// # Errors
    /// Why the format cannot have it.
    pub fn directory_of(&self, file: ViewFile, kind: DirectoryKind) -> Result<Arc<Directory>, String> {
        let loader = &self.engine.shared.loader;
        let (rows, nnz) = self.shape(file);
        let batches = self.batches(file);
        let key = (kind.as_str(), rows, batches, nnz);
        if let Some(found) = lock(&self.directories).get(&key) {
            return Ok(found.clone());
        }
        let shape = FileShape { table: &loader.collection.table, rows, nnz: &key.3, batches };
        let directory = Arc::new(loader.writers.directory(kind)?.directory(&shape)?);
        lock(&self.directories).put(key, directory.clone());
        Ok(directory)
    }

    /// A view in stored order.
    pub fn stored(&self, view: u16, extension: Extension) -> Option<ViewFile> {
        let view = self.engine.shared.loader.plans.stored(view)?;
        Some(self.of_epoch(DealtEpoch { view, rank: None, epoch: 0 }, extension))
    }

    /// A view sorted by the labels of its i-th categorical column, or only the rows of one label.
    pub fn by(&self, view: u16, column: u16, label: Option<u32>, extension: Extension) -> Option<ViewFile> {
        let loader = &self.engine.shared.loader;
        let view = match loader.plans.by(&loader.collection.table, view, column) {
            Ok(view) => view,
            Err(reason) => {
                tracing::warn!("there are no files by this column: {reason}");
                return None;
            }
        };
        let file = self.of_epoch(DealtEpoch { view, rank: None, epoch: 0 }, extension);
        let Some(label) = label else { return Some(file) };
        // For a label without rows in this view, the file is empty.
        let batches = loader.plan(view).strategy().batches_of_label(label as usize).unwrap_or(0..0);
        Some(ViewFile { batches: Some((batches.start, batches.end)), ..file })
    }

    /// Exact size of a file; `None` if the format has no such file.
    pub fn size(&self, file: ViewFile) -> Option<u64> {
        match self.laid_out(file).ok()? {
            LaidOut::Segments(segments) => Some(segments.size),
            LaidOut::Batch(key) => self.engine.size(key),
            LaidOut::Index(index) => Some(index.size()),
        }
    }

    /// Reads `len` bytes at `offset`, or fewer at the end of the file. Replies at once if all of it is in memory.
    pub fn read(self: &Arc<Self>, file: ViewFile, (offset, len): (u64, usize), reply: Reply) {
        let layout = match self.laid_out(file) {
            Ok(LaidOut::Segments(layout)) => layout,
            Ok(LaidOut::Batch(key)) => return self.engine.read(key, file.dealt.rank, (offset, len), None, reply),
            Ok(LaidOut::Index(index)) => return self.read_index(file, &index, (offset, len), reply),
            Err(reason) => return reply(Err(&ReadError::Internal(reason))),
        };
        let end = layout.size.min(offset.saturating_add(len as u64));
        let range = offset.min(end)..end;
        let counted = self.counted(file.dealt);
        let known = |segment: &Segment| match segment.content {
            Content::Bytes(_) => true,
            Content::Field(Field::Data(_) | Field::Indices(_) | Field::Indptr(_), _) => false,
            Content::Field(..) => file.batches.is_none() && self.has_full_batches(file.dealt),
        };
        if counted.get().is_some() || within(&layout, &range).all(known) {
            return self.serve(file, &layout, range, reply);
        }
        // Counting takes up to a second for 1e8 rows, so it is not done on a session thread. Concurrent readers wait for one count.
        let this = self.clone();
        let waiting = Arc::new(Mutex::new(Some(reply)));
        let theirs = waiting.clone();
        let count = move || {
            this.count(file.dealt);
            if let Some(reply) = lock(&theirs).take() {
                this.serve(file, &layout, range, reply);
            }
        };
        // The standard library's stack size.
        let fits = reserve::fits_thread(2 << 20);
        if (!fits || std::thread::Builder::new().name("count".to_owned()).spawn(count).is_err())
            && let Some(reply) = lock(&waiting).take()
        {
            reply(Err(&ReadError::Internal("no thread to count values with".to_owned())));
        }
    }

    fn serve(&self, file: ViewFile, layout: &Segments, range: Range<u64>, reply: Reply) {
        let counted = self.counted(file.dealt);
        let reading = Reading::new(&self.engine.shared.loader, file, counted.get());
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let mut pieces = Vec::new();
        for segment in within(layout, &range) {
            let from = range.start.max(segment.start) - segment.start + segment.from;
            let to = range.end.min(segment.start + segment.len) - segment.start + segment.from;
            let at = (segment.start + from - segment.from - range.start) as usize;
            let out = &mut bytes[at..at + (to - from) as usize];
            let found = match &segment.content {
                Content::Bytes(known) => known.get(from as usize..to as usize).map(|known| out.copy_from_slice(known)),
                Content::Field(field @ (Field::Data(_) | Field::Indices(_) | Field::Dense(_)), repr) => {
                    reading.pieces((*field, *repr), from..to, at).map(|found| pieces.extend(found))
                }
                Content::Field(field, repr) => reading.fill((*field, *repr), from..to, out),
            };
            if found.is_none() {
                return reply(Err(&ReadError::Internal("bytes of a file lie nowhere; please report it".to_owned())));
            }
        }
        if let [piece] = &pieces[..]
            && piece.len == bytes.len()
        {
            return self.engine.read(piece.key, file.dealt.rank, (piece.offset, piece.len), None, reply);
        }
        if pieces.is_empty() {
            return reply(Ok(&bytes));
        }
        let assembly = Assembly::new(bytes, pieces.len(), reply);
        for piece in pieces {
            let assembly = assembly.clone();
            let arrived = Box::new(move |result: Result<&[u8], &ReadError>| {
                assembly.arrived(piece.at..piece.at + piece.len, result);
            });
            self.engine.read(piece.key, file.dealt.rank, (piece.offset, piece.len), None, arrived);
        }
    }

    fn read_index(&self, file: ViewFile, index: &BatchIndex, (offset, len): (u64, usize), reply: Reply) {
        let end = index.size().min(offset.saturating_add(len as u64));
        let shape = |place| {
            let key = self.batch(file, index.format, place)?;
            Some((self.engine.rows(key), self.engine.size(key)?))
        };
        match index.read(offset.min(end)..end, shape) {
            Some(bytes) => reply(Ok(&bytes)),
            None => reply(Err(&ReadError::Internal(format!("a batch is too large for .{}", index.format.as_str())))),
        }
    }

    /// The image of a batch, by its position in a file or directory.
    fn batch(&self, file: ViewFile, extension: Extension, place: u64) -> Option<ImageKey> {
        let DealtEpoch { view, epoch, .. } = file.dealt;
        let from = file.batches.map_or(0, |(from, _)| from);
        let batch = file.dealt.batch(self.engine.plan(view), from + place)?;
        Some(ImageKey::file(view, epoch, batch, extension))
    }

    /// Number of batches of a file or directory.
    fn batches(&self, file: ViewFile) -> u64 {
        file.batches.map_or_else(|| file.dealt.batches(self.engine.plan(file.dealt.view)), |(from, to)| to - from)
    }

    fn laid_out(&self, file: ViewFile) -> Result<LaidOut, String> {
        let loader = &self.engine.shared.loader;
        let extension = match file.place {
            FilePlace::Whole(extension) => extension,
            FilePlace::Inside(kind, number) => {
                let content = match self.directory_of(file, kind)?.get(number) {
                    Some(Inside::File(content)) => content.clone(),
                    Some(Inside::Numbered(content)) => content,
                    _ => return Err("a directory is no file".to_owned()),
                };
                return match content {
                    FileContent::Segments(segments) => Ok(LaidOut::Segments(segments)),
                    FileContent::Made(made) => self.make(file, made).map(LaidOut::Segments),
                    FileContent::Batch(extension, place) => self
                        .batch(file, extension, place)
                        .map(LaidOut::Batch)
                        .ok_or("there is no such batch".to_owned()),
                    FileContent::Index(index) => Ok(LaidOut::Index(index)),
                };
            }
        };
        let writer = loader.writers.get(extension)?;
        let (rows, nnz) = self.shape(file);
        let batches = self.batches(file);
        let key = (extension.as_str(), rows, batches, nnz);
        if let Some(found) = lock(&self.layouts).get(&key) {
            return Ok(LaidOut::Segments(found.clone()));
        }
        let layout = writer.segments(&FileShape { table: &loader.collection.table, rows, nnz: &key.3, batches })?;
        let layout = Arc::new(layout);
        lock(&self.layouts).put(key, layout.clone());
        Ok(LaidOut::Segments(layout))
    }

    /// Assembles a file from the items of a field.
    fn make(&self, file: ViewFile, made: Made) -> Result<Arc<Segments>, String> {
        if let Some(found) = lock(&self.made).get(&file) {
            return Ok(found.clone());
        }
        // If any batch may be short, rows must be counted.
        let counted = (file.batches.is_some() || !self.has_full_batches(file.dealt)).then(|| self.count(file.dealt));
        let cuts = counted.as_ref().and_then(|counted| counted.get());
        let reading = Reading::new(&self.engine.shared.loader, file, cuts);
        let size = made.repr.size() as u64;
        let (from, to) = made.items;
        let mut items = vec![0; ((to - from) * size) as usize];
        let bytes = from * size..to * size;
        reading.fill((made.field, made.repr), bytes, &mut items).ok_or("items of a field lie nowhere")?;
        let bytes = (made.make)(made.repr, &items, made.padded);
        let len = bytes.len() as u64;
        let segment = Segment { start: 0, len, from: 0, content: Content::Bytes(bytes) };
        let segments = Arc::new(Segments::new(len, vec![segment]));
        lock(&self.made).put(file, segments.clone());
        Ok(segments)
    }

    /// Number of rows of a file, and of their values in each element.
    fn shape(&self, file: ViewFile) -> (u64, Vec<u64>) {
        let loader = &self.engine.shared.loader;
        let (view, plans) = (file.dealt.view, &loader.plans);
        let all = file.batches.is_none() && file.dealt.rank.is_none();
        // The rows of derived plans are those of their view, so they need not be made for this.
        if all && (usize::from(view) >= plans.views().len() || plans.view(view).serves_each_row_once()) {
            let plan = plans.view(view);
            let mut totals = lock(&self.totals);
            let count = || Arc::new(cuts::totals(&loader.collection, plan.view(), &loader.threads));
            return (plan.rows(), totals.get_or_insert(plans.view_number(view), count).to_vec());
        }
        let cuts = self.count(file.dealt);
        let reading = Reading::new(loader, file, cuts.get());
        reading.shape()
    }

    /// Whether the position of a row follows from the batch size.
    fn has_full_batches(&self, dealt: DealtEpoch) -> bool {
        dealt.rank.is_none() && self.engine.plan(dealt.view).strategy().has_full_batches()
    }

    /// The counts of an epoch, which may not have been made yet.
    fn counted(&self, dealt: DealtEpoch) -> Arc<OnceLock<Cuts>> {
        lock(&self.cuts).get_or_insert(dealt, Default::default).clone()
    }

    fn count(&self, dealt: DealtEpoch) -> Arc<OnceLock<Cuts>> {
        let counted = self.counted(dealt);
        counted.get_or_init(|| Cuts::count(&self.engine.shared.loader, dealt));
        counted
    }
}

/// The segments with bytes in a range of the file.
fn within<'a>(layout: &'a Segments, range: &Range<u64>) -> impl Iterator<Item = &'a Segment> + use<'a> {
    let first = layout.list.partition_point(|segment| segment.start + segment.len <= range.start);
    let end = range.end;
    layout.list[first..].iter().take_while(move |segment| segment.start < end)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
