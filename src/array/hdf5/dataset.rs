//! Describes a dataset: layout, filters and chunk map. The library is called once.

use std::ffi::c_void;

use ::hdf5::Dataset;
use ::hdf5::plist::dataset_create::Layout;
use ::hdf5::sync::sync;
use hdf5_sys::h5p::{H5Pget_chunk_opts, H5Pget_external_count, H5Pget_fill_value, H5Pget_filter2, H5Pget_nfilters};
use hdf5_sys::h5z::H5Zfilter_avail;

use super::native::TypedObject;
use super::source::{ChunkMap, StoredChunk, stage};
use super::structure::{Description, Place, Shared, parts};
use super::types::{self, TypeClass};
use super::{Hdf5, native, words};
use crate::array::codec;
use crate::array::meaning::{Booleans, Names};
use crate::array::{ArrayError, Dtype, grid, is_chunk};

/// H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS.
const PARTIAL_UNFILTERED: u32 = 2;

struct DatasetOpener<'a> {
    file: &'a Hdf5,
    element: &'a str,
    dataset: &'a Dataset,
    /// The creation property list.
    plist: ::hdf5::plist::DatasetCreate,
    shape: Vec<u64>,
    dtype: Dtype,
    big: bool,
    /// Set for an enum that is read as booleans.
    booleans: Option<Booleans>,
    /// For times: units a tick.
    multiple: i64,
    /// Whether the type is opaque to the library, so that it does not convert the byte order.
    opaque: bool,
}

/// Describes an array of numbers or booleans. Other enums are described as their integers, times as their counts.
pub fn describe(file: &Hdf5, element: &str, dataset: &Dataset) -> Result<Description, ArrayError> {
    let fail = |cause: String| file.error(element, cause);
    let (mut multiple, mut opaque) = (1, false);
    let (dtype, big, booleans) = match types::class_of(dataset).map_err(fail)? {
        TypeClass::Number { dtype, big } => (dtype, big, None),
        TypeClass::Time { multiple: units, big, .. } => {
            (multiple, opaque) = (units, true);
            (Dtype::I64, big, None)
        }
        TypeClass::Enum { dtype, big } => (dtype, big, names(dataset).map_err(fail)?.two_valued()),
        TypeClass::VariableText | TypeClass::FixedText { .. } => {
            return Err(fail("holds strings, not numbers".to_owned()));
        }
        TypeClass::Other(what) => {
            return Err(ArrayError::Unsupported {
                store: file.name.to_string(),
                element: element.to_owned(),
                cause: format!("elements of type {what} are not read; numbers and booleans are"),
            });
        }
    };
    let shape = native::shape(dataset).map_err(fail)?;
    let plist = dataset.create_plist().map_err(|e| file.library_error(element, &e))?;
    DatasetOpener { file, element, dataset, plist, shape, dtype, big, booleans, multiple, opaque }.description()
}

/// The names in a dataset's enum type.
pub fn names(dataset: &Dataset) -> Result<Names, String> {
    types::names(TypedObject::of(dataset).datatype()?.id())
}

impl DatasetOpener<'_> {
    fn error(&self, cause: impl Into<String>) -> ArrayError {
        self.file.error(self.element, cause)
    }

    fn unsupported(&self, cause: impl Into<String>) -> ArrayError {
        ArrayError::Unsupported {
            store: self.file.name.to_string(),
            element: self.element.to_owned(),
            cause: cause.into(),
        }
    }

    fn description(self) -> Result<Description, ArrayError> {
        let bytes = self.bytes(&self.shape)?;
        // SAFETY: the property list is live.
        let external = sync(|| unsafe { H5Pget_external_count(self.plist.id()) }) > 0;
        match self.plist.layout() {
            Layout::Chunked => self.chunked(),
            Layout::Compact if bytes > 64 << 10 => {
                Err(self.error("the shape is too large for its layout: it is damaged"))
            }
            Layout::Compact => {
                let mut buffer = vec![0; usize::try_from(bytes).map_err(|_| self.error("the shape is too large"))?];
                let values = TypedObject::of(self.dataset);
                values
                    .datatype()
                    .and_then(|t| types::little_endian(&t))
                    .and_then(|memory| values.read_bytes(&memory, &vec![0; self.shape.len()], &self.shape, &mut buffer))
                    .map_err(|cause| self.error(cause))?;
                self.reverse(&mut buffer);
                let chunk_shape = self.shape.clone();
                Ok(self.finish(chunk_shape, Place::Memory { bytes: buffer }))
            }
            Layout::Contiguous if !external => self.contiguous(bytes),
            _ => {
                let parts = parts(&self.shape, self.dtype);
                self.library(parts, Vec::new())
            }
        }
    }

    fn bytes(&self, shape: &[u64]) -> Result<u64, ArrayError> {
        shape
            .iter()
            .try_fold(self.dtype.size() as u64, |n, &c| n.checked_mul(c))
            .ok_or_else(|| self.error("the shape is too large: the file is damaged"))
    }

    fn finish(self, chunk_shape: Vec<u64>, place: Place) -> Description {
        let DatasetOpener { dtype, big, booleans, multiple, shape, .. } = self;
        Description { dtype, big, booleans, multiple, shape, chunk_shape, place }
    }

    /// The fill value, little-endian; zeros if none is set.
    fn fill(&self) -> Vec<u8> {
        let mut fill = vec![0; self.dtype.size()];
        if let Ok(memory) = TypedObject::of(self.dataset).datatype().and_then(|t| types::little_endian(&t)) {
            // SAFETY: `fill` has room for one element of `memory`, whose size is that of the dtype.
            let status =
                sync(|| unsafe { H5Pget_fill_value(self.plist.id(), memory.id(), fill.as_mut_ptr().cast::<c_void>()) });
            if status < 0 {
                fill.fill(0);
            }
        }
        self.reverse(&mut fill);
        fill
    }

    /// Converts elements that the library has not converted to little-endian.
    fn reverse(&self, elements: &mut [u8]) {
        if self.opaque && self.big {
            codec::swap(elements, self.dtype.size());
        }
    }

    fn within(&self, offset: u64, len: u64) -> Result<(), ArrayError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.file.object.len() => Ok(()),
            _ => Err(self.error(format!(
                "lies at {len} bytes from {offset}, beyond the end of the file ({} bytes): the file is truncated; copy \
                 or download it again",
                self.file.object.len()
            ))),
        }
    }

    fn library(self, chunk_shape: Vec<u64>, filters: Vec<String>) -> Result<Description, ArrayError> {
        if self.opaque && self.big {
            return Err(
                self.unsupported("times in big-endian order are not read in this layout; rewrite it with anndata")
            );
        }
        Ok(self.finish(chunk_shape, Place::Library { filters }))
    }

    fn contiguous(self, bytes: u64) -> Result<Description, ArrayError> {
        // The storage size is checked, not the offset: the library adds the user block to an undefined address as well.
        let offset = self.dataset.offset().filter(|_| self.dataset.storage_size() > 0);
        let parts = parts(&self.shape, self.dtype);
        let Some(offset) = offset else {
            let fill = self.fill();
            return Ok(self.finish(parts, Place::Unwritten { fill }));
        };
        self.within(offset, bytes)?;
        let in_parts = self.big || self.booleans.is_some() || self.multiple != 1;
        let chunk_shape = if in_parts { parts } else { self.shape.clone() };
        Ok(self.finish(chunk_shape, Place::Contiguous { offset, len: bytes }))
    }

    fn chunked(self) -> Result<Description, ArrayError> {
        let chunk_shape: Vec<u64> = self.plist.chunk().unwrap_or_default().iter().map(|&c| c as u64).collect();
        if chunk_shape.len() != self.shape.len() || chunk_shape.contains(&0) {
            return Err(self.error("the chunk shape does not fit the shape: the file is damaged"));
        }
        let chunk_bytes = self.bytes(&chunk_shape)?;
        if !is_chunk(chunk_bytes, self.bytes(&self.shape)?) {
            return Err(
                self.unsupported(format!("chunks of {chunk_bytes} bytes are too large; rewrite it in smaller ones"))
            );
        }
        let filters = self.pipeline()?;
        if filters.iter().any(|filter| stage(filter.id, filter.size).is_none()) {
            for filter in &filters {
                // SAFETY: the call takes any number.
                if sync(|| unsafe { H5Zfilter_avail(filter.id) }) <= 0 {
                    return Err(self.unsupported(format!(
                        "the HDF5 filter {} ({}) is not known here; rewrite the file with gzip, lzf, zstd or blosc",
                        filter.name, filter.id
                    )));
                }
            }
            let filters = filters.into_iter().map(|f| f.name).collect();
            return self.library(chunk_shape, filters);
        }
        let map = Shared::new(self.map(&chunk_shape)?);
        let filters = filters.into_iter().map(|filter| (filter.id, filter.size)).collect();
        let fill = self.fill();
        Ok(self.finish(chunk_shape, Place::Chunked { map, filters, chunk_bytes, fill }))
    }

    /// The chunk map, by one iteration over all chunks: single `chunk_info` calls cost 0.2 ms each.
    fn map(&self, chunk_shape: &[u64]) -> Result<ChunkMap, ArrayError> {
        let grid = grid(&self.shape, chunk_shape);
        let total =
            grid.iter().try_fold(1_u64, |n, &g| n.checked_mul(g)).ok_or_else(|| self.error("too many chunks"))?;
        if total == 0 {
            return Ok(ChunkMap::default());
        }
        let mut options = 0;
        // SAFETY: the property list is live, the out-pointer that of a local.
        sync(|| unsafe { H5Pget_chunk_opts(self.plist.id(), &raw mut options) });
        let partial_unfiltered = options & PARTIAL_UNFILTERED != 0;
        let mut chunks = Vec::new();
        let mut failure = None;
        let visit = self.dataset.chunks_visit(|info| {
            let mut number = 0;
            let mut partial = false;
            for (((&at, &c), &g), &n) in info.offset.iter().zip(chunk_shape).zip(&grid).zip(&self.shape) {
                let index = at / c;
                if index >= g {
                    // The chunk is left over from before the dataset was shrunk.
                    return 0;
                }
                partial |= at.saturating_add(c) > n;
                number = number * g + index;
            }
            let Ok(size) = u32::try_from(info.size) else {
                failure = Some(self.unsupported(format!("chunk {number} has {} bytes, too many", info.size)));
                return 1;
            };
            if let Err(error) = self.within(info.addr, info.size) {
                failure = Some(error);
                return 1;
            }
            let mask = if partial && partial_unfiltered { u32::MAX } else { info.filter_mask };
            chunks.push((number, StoredChunk { offset: info.addr, size, mask }));
            0
        });
        match (failure, visit) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(self.error(format!("the chunk index cannot be read: {}", words(&error)))),
            (None, Ok(())) => Ok(ChunkMap::new(chunks, total)),
        }
    }

    fn pipeline(&self) -> Result<Vec<FilterSpec>, ArrayError> {
        // SAFETY: the property list is live; the out-pointers are to locals of the sizes that are given.
        sync(|| unsafe {
            let count = u32::try_from(H5Pget_nfilters(self.plist.id())).unwrap_or(0);
            (0..count)
                .map(|index| {
                    let (mut flags, mut config, mut values, mut name) = (0, 0, [0_u32; 16], [0_u8; 128]);
                    let mut used = values.len();
                    let id = H5Pget_filter2(
                        self.plist.id(),
                        index,
                        &raw mut flags,
                        &raw mut used,
                        values.as_mut_ptr(),
                        name.len(),
                        name.as_mut_ptr().cast(),
                        &raw mut config,
                    );
                    if id < 0 {
                        return Err(self.error("the filter list cannot be read: the file is damaged"));
                    }
                    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
                    let named = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned();
                    let size = if used == 0 { 0 } else { values[0] as usize };
                    let name = known_name(id).map_or(named, str::to_owned);
                    Ok(FilterSpec { id, name, size })
                })
                .collect()
        })
    }
}

/// One filter of a pipeline.
struct FilterSpec {
    id: i32,
    name: String,
    /// The first parameter: for shuffle the element size.
    size: usize,
}

/// Names of common filters, as a file need not have them.
fn known_name(id: i32) -> Option<&'static str> {
    Some(match id {
        1 => "gzip",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scale-offset",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32026 => "blosc2",
        _ => return None,
    })
}
