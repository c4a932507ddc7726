//! Files of many batches: a whole epoch of a view, or a part of one, as one file.
//!
//! Such a file is never in memory. Known bytes come from its layout (`format::Segments`), fields of obs and row bounds from the
//! collection, and matrices from images of one batch and one field each (`Parts`), which the engine loads, prefetches and
//! evicts like the images of batch files. The place of a batch in the file follows from the values before each group of
//! `fetch_factor` batches: 8 bytes a group and sparse matrix, counted when values or row bounds are first read. `stat` needs only
//! the totals of the view, unless its rows are drawn, dropped or dealt to ranks: then it counts, too.

mod assembly;
mod cuts;
mod reading;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;

use crate::batch::Field;
use crate::format::{Content, Extension, FileShape, Segment, Segments};
use crate::plan::rank::Rank;

use super::loader::FetchLoader;
use super::{Engine, ReadError, Reply, at_most};
use assembly::Assembly;
use cuts::Cuts;
use reading::Reading;

/// A file of many batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewFile {
    pub dealt: DealtEpoch,
    /// Batches of the epoch, from and to; `None`: all.
    pub batches: Option<(u64, u64)>,
    pub extension: Extension,
}

/// Batches one after the other: what the place of a batch in a file depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DealtEpoch {
    pub view: u16,
    pub rank: Option<Rank>,
    pub epoch: u64,
}

/// Layouts and orders that are remembered.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

type Layouts = LruCache<(Extension, u64, Vec<u64>), Arc<Segments>>;

/// The files of many batches of one mount.
pub struct ViewFiles {
    engine: Arc<Engine>,
    layouts: Mutex<Layouts>,
    cuts: Mutex<LruCache<DealtEpoch, Arc<OnceLock<Cuts>>>>,
    totals: Mutex<LruCache<u16, Arc<Vec<u64>>>>,
}

impl ViewFiles {
    pub fn new(engine: Arc<Engine>) -> Arc<ViewFiles> {
        let views = at_most(engine.shared.loader.plans.views().len());
        Arc::new(ViewFiles {
            engine,
            layouts: Mutex::new(LruCache::new(KEPT)),
            cuts: Mutex::new(LruCache::new(KEPT)),
            totals: Mutex::new(LruCache::new(views)),
        })
    }

    /// An epoch, or a rank's part of it, as one file.
    pub fn of_epoch(&self, dealt: DealtEpoch, extension: Extension) -> ViewFile {
        ViewFile { dealt, batches: None, extension }
    }

    /// A view as it is stored.
    pub fn stored(&self, view: u16, extension: Extension) -> Option<ViewFile> {
        let view = self.engine.shared.loader.plans.stored(view)?;
        Some(self.of_epoch(DealtEpoch { view, rank: None, epoch: 0 }, extension))
    }

    /// A view by the labels of its i-th categorical column, or the rows of one label.
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
        // A label without rows in this view is a file without rows.
        let batches = loader.plan(view).strategy().batches_of_label(label as usize).unwrap_or(0..0);
        Some(ViewFile { batches: Some((batches.start, batches.end)), ..file })
    }

    /// Exact size of a file; `None` where the format has no such file.
    pub fn size(&self, file: ViewFile) -> Option<u64> {
        self.layout(file).ok().map(|layout| layout.size)
    }

    /// Reads `len` bytes at `offset`, fewer at the end of the file. Answers at once if all of it is in memory.
    pub fn read(self: &Arc<Self>, file: ViewFile, (offset, len): (u64, usize), reply: Reply) {
        let layout = match self.layout(file) {
            Ok(layout) => layout,
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
        // Counting takes up to a second for 1e8 rows: not on a session thread. All who come meanwhile wait for one count.
        let this = self.clone();
        let waiting = Arc::new(Mutex::new(Some(reply)));
        let theirs = waiting.clone();
        let count = move || {
            this.count(file.dealt);
            if let Some(reply) = lock(&theirs).take() {
                this.serve(file, &layout, range, reply);
            }
        };
        if std::thread::Builder::new().name("count".to_owned()).spawn(count).is_err()
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
            let from = range.start.max(segment.start) - segment.start;
            let to = range.end.min(segment.start + segment.len) - segment.start;
            let at = (segment.start + from - range.start) as usize;
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
            let arrived = Box::new(move |result: Result<&[u8], &ReadError>| assembly.arrived(piece.at, result));
            self.engine.read(piece.key, file.dealt.rank, (piece.offset, piece.len), None, arrived);
        }
    }

    fn layout(&self, file: ViewFile) -> Result<Arc<Segments>, String> {
        let loader = &self.engine.shared.loader;
        let writer = loader.writers.get(file.extension)?;
        let (rows, nnz) = self.shape(file);
        let key = (file.extension, rows, nnz);
        if let Some(found) = lock(&self.layouts).get(&key) {
            return Ok(found.clone());
        }
        let layout = writer.segments(&FileShape { table: &loader.collection.table, rows, nnz: &key.2 })?;
        let layout = Arc::new(layout);
        lock(&self.layouts).put(key, layout.clone());
        Ok(layout)
    }

    /// Rows of a file, and their values in each element.
    fn shape(&self, file: ViewFile) -> (u64, Vec<u64>) {
        let loader = &self.engine.shared.loader;
        let (view, plans) = (file.dealt.view, &loader.plans);
        let all = file.batches.is_none() && file.dealt.rank.is_none();
        // Only a view itself may leave out or repeat rows; so the others need not be made for this.
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

    /// Whether the place of a row follows from the batch size.
    fn has_full_batches(&self, dealt: DealtEpoch) -> bool {
        dealt.rank.is_none() && self.engine.plan(dealt.view).strategy().has_full_batches()
    }

    /// What is known of an epoch; it may not have been counted yet.
    fn counted(&self, dealt: DealtEpoch) -> Arc<OnceLock<Cuts>> {
        lock(&self.cuts).get_or_insert(dealt, Default::default).clone()
    }

    fn count(&self, dealt: DealtEpoch) -> Arc<OnceLock<Cuts>> {
        let counted = self.counted(dealt);
        counted.get_or_init(|| Cuts::count(&self.engine.shared.loader, dealt));
        counted
    }
}

/// The segments that have bytes in a range of the file.
fn within<'a>(layout: &'a Segments, range: &Range<u64>) -> impl Iterator<Item = &'a Segment> + use<'a> {
    let first = layout.list.partition_point(|segment| segment.start + segment.len <= range.start);
    let end = range.end;
    layout.list[first..].iter().take_while(move |segment| segment.start < end)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
