//! The parts of batches that files of many batches consist of: images of a matrix's fields without a file format around them.
//!
//! Values and column numbers of a sparse matrix are separate parts, so that a reader that reads one array after the other decodes each
//! chunk
//! once. They are one part if rows must be decoded as a whole for either.

use crate::batch::{Batch, Field, Layout, Repr, Span};
use crate::collection::Collection;
use crate::collection::Table;
use crate::format::{FileShape, MANY_VALUES, Writers};

/// The fields of each part.
pub struct Parts(Vec<Vec<(Field, Repr)>>);

/// Alignment of fields.
const ALIGN: u64 = 64;

impl Parts {
    /// The parts that the files of all formats need.
    pub fn new(collection: &Collection, writers: &Writers) -> Parts {
        let table = &collection.table;
        let mut parts: Vec<Vec<(Field, Repr)>> = Vec::new();
        // For few and for many values, as column numbers may be wider if there are many.
        for fields in fields(table, writers) {
            let mut own: Vec<Vec<(Field, Repr)>> = Vec::new();
            for (field, repr) in fields {
                let same = |other: &Field| match (*other, field) {
                    (Field::Data(a), Field::Indices(b)) | (Field::Indices(a), Field::Data(b)) => a == b,
                    _ => false,
                };
                let (Field::Data(_) | Field::Indices(_) | Field::Dense(_)) = field else { continue };
                match own.iter_mut().find(|part| part.iter().any(|(other, _)| same(other))) {
                    Some(part) => part.push((field, repr)),
                    None => own.push(vec![(field, repr)]),
                }
            }
            let own = own.into_iter().flat_map(|part| {
                if is_together(collection, &part) {
                    vec![part]
                } else {
                    part.into_iter().map(|field| vec![field]).collect()
                }
            });
            for part in own {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        Parts(parts)
    }

    /// The part that has a field in this representation.
    pub fn of(&self, field: Field, repr: Repr) -> Option<u8> {
        let part = self.0.iter().position(|part| part.contains(&(field, repr)))?;
        u8::try_from(part).ok()
    }

    /// The layout of a part of a batch.
    pub fn layout(&self, part: u8, batch: &Batch<'_>) -> Layout {
        let mut size: u64 = 0;
        let fields = self.0.get(usize::from(part)).map(Vec::as_slice).unwrap_or_default();
        let span = |&(field, repr): &(Field, Repr)| {
            let elements = match field {
                Field::Data(element) | Field::Indices(element) => batch.nnz[element],
                Field::Dense(element) => batch.shape(element).iter().product(),
                _ => 0,
            };
            let start = size.next_multiple_of(ALIGN);
            let len = elements * repr.size() as u64;
            size = start + len;
            Span { companion: 0, field, repr, start, len }
        };
        let spans = fields.iter().map(span).collect();
        Layout { size, spans }
    }
}

/// The fields of all files of many batches and directories; for few and for many values, as column numbers may be wider if there are many.
fn fields(table: &Table, writers: &Writers) -> Vec<Vec<(Field, Repr)>> {
    let mut all = Vec::new();
    for values in [1, MANY_VALUES] {
        let nnz = vec![values; table.elements.len()];
        let shape = FileShape { table, rows: 1, nnz: &nnz, batches: 1 };
        let of_file = |extension| Some(writers.get(extension).ok()?.segments(&shape).ok()?.fields().collect());
        let of_directory = |kind| Some(writers.directory(kind).ok()?.directory(&shape).ok()?.fields());
        all.extend(writers.extensions().into_iter().filter_map(of_file));
        all.extend(writers.directories().into_iter().filter_map(of_directory));
    }
    all
}

/// Whether values and column numbers must be in one part.
fn is_together(collection: &Collection, part: &[(Field, Repr)]) -> bool {
    part.iter().any(|&(field, repr)| {
        let (Field::Data(number), Repr::Number(to)) = (field, repr) else { return false };
        let element = &collection.table.elements[number];
        collection.stores.iter().any(|store| store.elements[number].needs_row_pass(element, to, false))
    })
}
