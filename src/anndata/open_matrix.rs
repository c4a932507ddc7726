//! Opens a matrix: determines its kind, and checks its parts.

use crate::array::cast::to_u64s;
use crate::array::meaning::Meaning;
use crate::array::{Array, ArrayError, Container, Counters, Dtype, NodeKind, RecordFieldKind};

use super::matrix::Matrix;
use crate::anndata::index::IndexDir;
use crate::anndata::names::{MatrixName, OBSM};
use crate::anndata::row_index::RowIndex;
use crate::anndata::{METADATA_LIMIT, element_error, layout, matrices, sparse, table, transpose, unsupported};

impl Matrix {
    /// Opens `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    ///
    /// # Errors
    /// The element is missing (the message lists existing ones), is of an unsupported kind (CSC, dataframe, awkward array), or its parts
    /// contradict each other.
    pub fn open(store: &dyn Container, element: &str, counters: &Counters) -> Result<Matrix, ArrayError> {
        Matrix::open_with(store, element, None, &RowIndex::default(), counters)
    }

    /// As [`Matrix::open`], to find out shape and kind; row bounds are read only as far as `row_index` says.
    ///
    /// # Errors
    /// Those of `open`, as far as they are noticed.
    pub fn look(
        store: &dyn Container,
        element: &str,
        row_index: &RowIndex,
        counters: &Counters,
    ) -> Result<Matrix, ArrayError> {
        Matrix::open_with(store, element, None, row_index, counters)
    }

    /// As [`Matrix::open`], with row bounds from the row index where that has them. A matrix stored by column (CSC) is read from the
    /// index directory, after transposing it there if needed.
    ///
    /// # Errors
    /// Those of `open`; the index directory is not writable.
    pub fn open_by_row(
        store: &dyn Container,
        element: &str,
        index: &IndexDir,
        row_index: &RowIndex,
        counters: &Counters,
    ) -> Result<Matrix, ArrayError> {
        Matrix::open_with(store, element, Some(index), row_index, counters)
    }

    /// The transpose of a matrix stored by column, as CSR; `None` for other matrices.
    ///
    /// # Errors
    /// Its parts contradict each other.
    pub fn open_by_column(
        store: &dyn Container,
        element: &str,
        counters: &Counters,
    ) -> Result<Option<Matrix>, ArrayError> {
        let element = &layout::located(store, element)?;
        if store.kind(element)? != Some(NodeKind::Group) || sparse::encoding(store, element)? != "csc_matrix" {
            return Ok(None);
        }
        csr(store, element, true, &RowIndex::default(), counters).map(Some)
    }

    fn open_with(
        store: &dyn Container,
        element: &str,
        index: Option<&IndexDir>,
        row_index: &RowIndex,
        counters: &Counters,
    ) -> Result<Matrix, ArrayError> {
        let element = &layout::located(store, element)?;
        let there = if layout::is_there(store, element)? { store.kind(element)? } else { None };
        match there {
            Some(NodeKind::Array) => dense(store, element),
            Some(NodeKind::Group) => group(store, element, index, row_index, counters),
            None => match field(store, element)? {
                Some(array) => Ok(Matrix::Dense { array }),
                None => Err(element_error(store, element, absent(store)?)),
            },
        }
    }
}

/// A matrix of `obsm` before anndata 0.7, where `obsm` was a record array with a field for each.
fn field(store: &dyn Container, element: &str) -> Result<Option<Array>, ArrayError> {
    let Some(MatrixName::Obsm(name)) = MatrixName::at(element) else { return Ok(None) };
    if store.kind(OBSM)? != Some(NodeKind::Array) {
        return Ok(None);
    }
    let fields = store.fields(OBSM)?;
    let Some(field) = fields.iter().find(|field| field.name == name) else { return Ok(None) };
    match (&field.kind, field.shape.is_empty()) {
        (RecordFieldKind::Number(_), false) => store.field_numbers(OBSM, &name).map(Some),
        _ => Err(unsupported(store, element, "not a matrix of numbers")),
    }
}

/// A message that a matrix is missing, with what can be named instead.
fn absent(store: &dyn Container) -> Result<String, ArrayError> {
    if let Some(told) = layout::foreign(store) {
        return Ok(format!("there is none: {told}"));
    }
    let inside = layout::inside(store);
    if !inside.is_empty() {
        let named: Vec<String> = inside.iter().map(|group| format!("{}::{group}", store.name())).collect();
        return Ok(format!("there is none at the top of this store, but AnnData inside; name {}", named.join(" or ")));
    }
    let there = matrices(store)?.into_iter().map(|name| name.path());
    let there: Vec<String> = there.filter(|name| looks_served(store, name)).collect();
    Ok(match there.as_slice() {
        [] => "there is none in this store, and it holds no other matrix to serve".to_owned(),
        there => format!("there is none in this store; choose one of these with --x or --with: {}", there.join(", ")),
    })
}

/// Whether an element may be a supported matrix, judged by its attributes only.
fn looks_served(store: &dyn Container, element: &str) -> bool {
    let Ok(element) = layout::located(store, element) else { return false };
    match store.kind(&element) {
        Ok(Some(NodeKind::Group)) => {
            sparse::encoding(store, &element).is_ok_and(|encoding| encoding.ends_with("_matrix"))
        }
        Ok(Some(NodeKind::Array)) => {
            store.shape(&element).is_ok_and(|shape| shape.len() > 1)
                && store.dtype_name(&element).is_ok_and(|name| Dtype::from_name(&name).is_some())
        }
        _ => field(store, &element).is_ok_and(|array| array.is_some()),
    }
}

fn dense(store: &dyn Container, element: &str) -> Result<Matrix, ArrayError> {
    if store.attributes(element)?.contains_key("h5sparse_format") || store.is_text(element)? {
        return Err(unsupported(store, element, "not a matrix of numbers"));
    }
    if let Meaning::Time(time) = store.meaning(element)? {
        return Err(unsupported(store, element, format!("holds {time}, not numbers")));
    }
    let array = store.array(element)?;
    match array.shape.len() {
        0 => Err(element_error(store, element, "a single number, not a matrix")),
        1 => Err(element_error(store, element, "has one dimension; a matrix has rows and columns")),
        _ => Ok(Matrix::Dense { array }),
    }
}

fn group(
    store: &dyn Container,
    element: &str,
    index: Option<&IndexDir>,
    row_index: &RowIndex,
    counters: &Counters,
) -> Result<Matrix, ArrayError> {
    match sparse::encoding(store, element)?.as_str() {
        "csr_matrix" => csr(store, element, false, row_index, counters),
        "csc_matrix" => {
            let by_column = csr(store, element, true, &RowIndex::default(), counters)?;
            let Some(index) = index else {
                return Err(unsupported(store, element, "stored by column (CSC): a mount transposes it once"));
            };
            transpose::by_row(store, element, &by_column, transpose::MEMORY, index, counters)
        }
        "" => Err(unsupported(
            store,
            element,
            "a group without encoding-type, and not data, indices and indptr of a sparse matrix with its shape",
        )),
        "dataframe" if MatrixName::at(element).is_some_and(|name| name.is_obsm()) => {
            table::open(store, element, counters).map(|array| Matrix::Dense { array })
        }
        other => {
            Err(unsupported(store, element, format!("its encoding is {other}; CSR and dense matrices are served")))
        }
    }
}

/// Opens CSR; of a matrix stored by column, its transpose, whose rows are the columns.
fn csr(
    store: &dyn Container,
    element: &str,
    by_column: bool,
    row_index: &RowIndex,
    counters: &Counters,
) -> Result<Matrix, ArrayError> {
    let error = |cause: String| element_error(store, element, cause);
    let Some([rows, columns]) = sparse::shape(store, element)? else {
        return Err(error("its shape attribute is not two numbers".to_owned()));
    };
    let (rows, columns) = if by_column { (columns, rows) } else { (rows, columns) };
    let part = |name: &str| store.array(&format!("{element}/{name}"));
    let (data, indices, bounds) = (part("data")?, part("indices")?, part("indptr")?);
    for (name, array) in [("data", &data), ("indices", &indices), ("indptr", &bounds)] {
        if array.shape.len() != 1 {
            return Err(error(format!("{name} has {} dimensions, not one", array.shape.len())));
        }
        if name != "data" && (array.dtype.is_float() || array.dtype == Dtype::Bool) {
            return Err(error(format!("{name} is {}, not integers", array.dtype)));
        }
    }
    if data.shape != indices.shape {
        return Err(error(format!("data has {} values, but indices {}", data.shape[0], indices.shape[0])));
    }
    if rows.checked_add(1) != Some(bounds.shape[0]) {
        return Err(error(format!(
            "indptr has {} numbers, but {rows} {} need {}",
            bounds.shape[0],
            if by_column { "columns" } else { "rows" },
            rows.saturating_add(1)
        )));
    }
    if let Some(indptr) = row_index.bounds(&bounds, counters)? {
        return Ok(Matrix::Sparse { data, indices, indptr, rows, columns });
    }
    let indptr = to_u64s(bounds.dtype, &bounds.read_all(METADATA_LIMIT, counters)?);
    if indptr.first() != Some(&0) || indptr.last() != Some(&data.shape[0]) {
        return Err(error(format!(
            "indptr runs from {} to {}, but there are {} values",
            indptr.first().copied().unwrap_or_default().cast_signed(),
            indptr.last().copied().unwrap_or_default().cast_signed(),
            data.shape[0]
        )));
    }
    if let Some(row) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(error(format!("indptr falls after {} {row}", if by_column { "column" } else { "row" })));
    }
    Ok(Matrix::Sparse { data, indices, indptr: indptr.into(), rows, columns })
}
