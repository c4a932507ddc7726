//! Finds the bytes of a field of a file: in images of batches, or in memory.

use std::ops::Range;
use std::sync::Arc;

use crate::array::Dtype;
use crate::array::cast::cast;
use crate::batch::{Batch, Field, Repr, Span, fill::fill};
use crate::engine::fetch::Fetch;
use crate::engine::loader::FetchLoader;
use crate::engine::store_loader::StoreLoader;
use crate::engine::{ImageKey, ImageKind};
use crate::plan::Plan;

use super::ViewFile;
use super::cuts::Cuts;

/// One read of a file.
pub struct Reading<'a> {
    stores: &'a StoreLoader,
    plan: &'a Plan,
    file: ViewFile,
    /// `None` if only rows are requested and all batches are full.
    cuts: Option<&'a Cuts>,
}

/// A part of an image, and its position in the answer.
pub struct Piece {
    pub at: usize,
    pub key: ImageKey,
    pub offset: u64,
    pub len: usize,
}

/// What is counted to find a batch.
#[derive(Clone, Copy)]
enum Unit {
    Rows,
    /// Values of a sparse element.
    Values(usize),
}

/// A batch of the file, with its range of units (rows or values).
struct Found {
    /// The number in the epoch.
    number: u64,
    key: ImageKey,
    fetch: Arc<Fetch>,
    place: usize,
    /// Number of units of the epoch before it, and in it.
    first: u64,
    count: u64,
}

impl<'a> Reading<'a> {
    pub fn new(stores: &'a StoreLoader, file: ViewFile, cuts: Option<&'a Cuts>) -> Reading<'a> {
        Reading { stores, plan: stores.plan(file.dealt.view), file, cuts }
    }

    /// Number of rows of the file, and of their values in each element.
    pub fn shape(&self) -> (u64, Vec<u64>) {
        let (from, to) = self.batches();
        let count = |unit| self.before(unit, to) - self.before(unit, from);
        let elements = self.stores.collection.table.elements.iter().enumerate();
        let values = |(i, element): (usize, &crate::collection::element::Element)| {
            if element.is_sparse() { count(Unit::Values(i)) } else { 0 }
        };
        (count(Unit::Rows), elements.map(values).collect())
    }

    /// The parts of images for a byte range of a matrix field, which goes to `at` in the answer. `None`: the range is invalid.
    pub fn pieces(&self, (field, repr): (Field, Repr), bytes: Range<u64>, at: usize) -> Option<Vec<Piece>> {
        let (unit, elements) = match field {
            Field::Dense(element) => (Unit::Rows, self.stores.collection.table.elements[element].n_vars()),
            Field::Data(element) | Field::Indices(element) => (Unit::Values(element), 1),
            _ => return None,
        };
        let part = self.stores.parts.of(field, repr)?;
        let size = elements * repr.size() as u64;
        let base = self.base(unit);
        let (mut pieces, mut next) = (Vec::new(), bytes.start);
        while next < bytes.end {
            let found = self.find(unit, base + next / size)?;
            let key = ImageKey { kind: ImageKind::Part(part), ..found.key };
            let start = self.stores.layout(&found.fetch, key).ok()?.span(0, field)?.start;
            let first = (found.first - base) * size;
            let end = bytes.end.min(first + found.count * size);
            let at = at + (next - bytes.start) as usize;
            pieces.push(Piece { at, key, offset: start + next - first, len: (end - next) as usize });
            next = end;
        }
        Some(pieces)
    }

    /// Fills a byte range of a field with one item for each row, or of row bounds, from memory. `None`: the range is invalid.
    pub fn fill(&self, (field, repr): (Field, Repr), bytes: Range<u64>, out: &mut [u8]) -> Option<()> {
        let size = repr.size() as u64;
        let (mut at, end) = (bytes.start / size, bytes.end.div_ceil(size));
        let skip = (bytes.start - at * size) as usize;
        // Row bounds start with one that belongs to no row.
        let before = u64::from(matches!(field, Field::Indptr(_)));
        let mut items = Vec::with_capacity(((end - at) * size) as usize);
        if before > at {
            items.resize(size as usize, 0);
            at = before;
        }
        let base = self.base(Unit::Rows);
        while at < end {
            let found = self.find(Unit::Rows, base + at - before)?;
            let batch = found.fetch.batch(&self.stores.collection.table, found.key, found.place);
            let low = base + at - before - found.first;
            let high = (base + end - before - found.first).min(found.count);
            let rows = low as usize..high as usize;
            match field {
                Field::Indptr(element) => self.bounds(element, repr, &found, &batch, rows, &mut items),
                _ => {
                    let mut all = vec![0; batch.rows.len() * size as usize];
                    fill(&batch, &Span { companion: 0, field, repr, start: 0, len: all.len() as u64 }, &mut all);
                    items.extend_from_slice(&all[rows.start * size as usize..rows.end * size as usize]);
                }
            }
            at += high - low;
        }
        out.copy_from_slice(items.get(skip..skip + out.len())?);
        Some(())
    }

    /// The end of each row of a batch, counted in values from the start of the file.
    fn bounds(
        &self,
        element: usize,
        repr: Repr,
        found: &Found,
        batch: &Batch<'_>,
        rows: Range<usize>,
        items: &mut Vec<u8>,
    ) {
        let Repr::Number(dtype) = repr else { return };
        let unit = Unit::Values(element);
        let mut end = self.before(unit, found.number) - self.base(unit);
        for (row, length) in batch.lengths(element).iter().enumerate().take(rows.end) {
            end += length;
            if row >= rows.start {
                let start = items.len();
                items.resize(start + dtype.size(), 0);
                cast(Dtype::U64, dtype, &end.to_le_bytes(), &mut items[start..]);
            }
        }
    }

    /// The file's range of batches of the epoch.
    fn batches(&self) -> (u64, u64) {
        self.file.batches.unwrap_or_else(|| (0, self.file.dealt.batches(self.plan)))
    }

    /// Number of units of the epoch before the file.
    fn base(&self, unit: Unit) -> u64 {
        match self.file.batches {
            Some((from, _)) => self.before(unit, from),
            None => 0,
        }
    }

    /// Number of units of the epoch before a batch.
    fn before(&self, unit: Unit, batch: u64) -> u64 {
        let factor = self.plan.sampling().fetch_factor;
        match self.sums(unit) {
            Some(sums) => {
                let group = batch / factor;
                let first = sums.get(group as usize).copied().unwrap_or_default();
                let rest = (group * factor..batch).filter_map(|i| self.batch(i));
                first + rest.map(|batch| count(&self.of(&batch), unit)).sum::<u64>()
            }
            None => (batch * self.plan.sampling().batch_size).min(self.plan.served_rows()),
        }
    }

    fn sums(&self, unit: Unit) -> Option<&'a [u64]> {
        match unit {
            Unit::Rows => self.cuts.map(|cuts| cuts.rows.as_slice()).filter(|rows| !rows.is_empty()),
            Unit::Values(element) => self.cuts.map(|cuts| cuts.values[element].as_slice()),
        }
    }

    /// The batch that contains a unit of the epoch.
    fn find(&self, unit: Unit, wanted: u64) -> Option<Found> {
        let sampling = self.plan.sampling();
        let (mut number, mut first) = match self.sums(unit) {
            Some(sums) => {
                let group = sums.partition_point(|&before| before <= wanted).checked_sub(1)?;
                (group as u64 * sampling.fetch_factor, sums[group])
            }
            None => {
                let number = wanted / sampling.batch_size;
                (number, number * sampling.batch_size)
            }
        };
        loop {
            let (key, fetch, place) = self.batch(number)?;
            let count = count(&fetch.batch(&self.stores.collection.table, key, place), unit);
            if wanted < first + count {
                return Some(Found { number, key, fetch, place, first, count });
            }
            (number, first) = (number + 1, first + count);
        }
    }

    fn batch(&self, number: u64) -> Option<(ImageKey, Arc<Fetch>, usize)> {
        let dealt = self.file.dealt;
        let batch = dealt.batch(self.plan, number)?;
        let (fetch, place) = self.plan.fetch_of(batch);
        Some((ImageKey::part(dealt.view, dealt.epoch, batch), self.stores.fetch(dealt.view, dealt.epoch, fetch), place))
    }

    fn of<'f>(&'f self, (key, fetch, place): &'f (ImageKey, Arc<Fetch>, usize)) -> Batch<'f> {
        fetch.batch(&self.stores.collection.table, *key, *place)
    }
}

fn count(batch: &Batch<'_>, unit: Unit) -> u64 {
    match unit {
        Unit::Rows => batch.rows.len() as u64,
        Unit::Values(element) => batch.nnz[element],
    }
}
