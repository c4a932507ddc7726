//! Opens an element in every store, aligns its columns, and fills in for stores that lack it.

use std::sync::Arc;

use super::retained_bounds;
use super::{Arithmetic, Element, MatrixKind, Stored};
use crate::anndata::column::Values;
use crate::anndata::dataframe::DataFrame;
use crate::anndata::matrix::Matrix;
use crate::anndata::names::{Frame, MatrixName};
use crate::anndata::row_index::RowIndex;
use crate::anndata::table;
use crate::array::cast::to_i64;
use crate::array::{ArrayError, Container, Counters, Dtype};
use crate::collection::genes::matching::{self, Matching};
use crate::collection::genes::{self, ColumnMap, DROPPED, Genes, Join, vocabulary};
use crate::collection::tokens::{self, TokenSpec};
use crate::collection::{CollectionError, Selection, Store, each, mismatch, var};

/// A store's matrix and row index; `None` where the store lacks the element.
type Opened = Option<(Matrix, RowIndex)>;

/// Opens an element in every store, and adds each store's part to it. `is_x`: the options for X apply to this element.
pub fn open(
    stores: &mut [Store],
    name: &MatrixName,
    is_x: bool,
    selection: &Selection,
    counters: &Counters,
) -> Result<Element, CollectionError> {
    let path = &name.path();
    let there = if is_x { vec![true; stores.len()] } else { presence(stores, name, selection)? };
    let mut opened: Vec<Opened> = Vec::with_capacity(stores.len());
    let mut names: Vec<genes::Named> = Vec::with_capacity(stores.len());
    // raw has genes of its own, which no other element shares; columns of obsm are not genes.
    let has_genes = match name.frame() {
        Some(Frame::RawVar) => is_x,
        frame => frame.is_some(),
    };
    let column = selection.genes_column.as_deref().filter(|_| has_genes);
    // The row index of X also holds obs columns.
    let obs = if is_x { selection.obs_wanted() } else { Some(Vec::new()) };
    let there: Vec<(&Store, bool)> = stores.iter().zip(there).collect();
    let found = each(&there, |&(store, there)| {
        let (store, rows) = (&*store.container, store.rows);
        if !there {
            // Layers have the genes of X, even where a store lacks the layer.
            let here = if has_genes { column_names(store, name, column, None, counters)? } else { Vec::new() };
            return Ok::<_, CollectionError>((None, here));
        }
        let (matrix, row_index) = matrix(store, path, obs.as_deref(), selection, counters)?;
        if !is_x && matrix.rows() != rows {
            return Err(mismatch(store, format!("{name} has {} rows, but obs has {rows}", matrix.rows())));
        }
        let here = column_names(store, name, column, Some(&matrix.row_shape()), counters)?;
        Ok((Some((matrix, row_index)), here))
    })?;
    for (store, (found, here)) in stores.iter().zip(found) {
        if let (Some((first, _)), Some((matrix, _))) = (opened.iter().flatten().next(), &found) {
            same_kind(&*store.container, name, stores[0].container.name(), first, matrix, selection.dense)?;
        }
        opened.push(found);
        let known = names.iter().find(|(_, known)| **known == here).map(|(_, known)| known.clone());
        names.push((store.container.name().to_owned(), known.unwrap_or_else(|| Arc::new(here))));
    }
    if name.is_obsm() {
        fill_in(&mut names, &opened);
    }
    let (mut genes, mut columns) = aligned(stores, names, (name, has_genes, is_x), selection, counters)?;
    let mut tokens = None;
    if let Some(spec) = selection.tokens.as_ref().filter(|_| is_x && !selection.looks) {
        let (chosen, of_genes) = tokens::of_genes(spec, &genes, columns)?;
        (genes, columns) = chosen;
        tokens = Some(Arc::new(of_genes));
    }
    let var = match (stores.first(), columns.first()) {
        (Some(first), Some(map)) if is_x && has_genes => {
            var::columns(&*first.container, var_of(name), map, genes.len(), counters)
        }
        _ => Vec::new(),
    };
    let absent_is_zero = has_genes && selection.absent_zero.is_some();
    let absent = match (&selection.genes, absent_is_zero) {
        (Some(Genes::Names(_)), true) => vocabulary::absent(&genes, &columns),
        _ => Vec::new(),
    };
    let mut row = opened.iter().flatten().next().map(|(first, _)| first.row_shape()).unwrap_or_default();
    let is_sparse = !selection.dense && opened.iter().flatten().all(|(matrix, _)| matrix.is_sparse());
    if let Some(first) = row.first_mut() {
        *first = genes.len() as u64;
    }
    if tokens.is_some() && !is_sparse {
        return Err(CollectionError::Option(format!(
            "--tokens: {name} is dense, so it is not known before it is read how many genes a row has; store it as a CSR matrix"
        )));
    }
    let spec = tokens.as_ref().map(|tokens| &*tokens.spec);
    let stored = parts(stores, opened, columns, &row, (path, is_sparse, absent_is_zero), (spec, selection), counters)?;
    let (arithmetic, asked) =
        if is_x { (selection.arithmetic, selection.dtype) } else { (Arithmetic::default(), None) };
    let computed = if arithmetic.is_none() { asked.unwrap_or(stored) } else { Arithmetic::dtype(stored, asked) };
    let dtype = asked.unwrap_or(computed);
    let kind = if is_sparse {
        let columns = tokens.as_ref().map_or(genes.len() as u64, |tokens| tokens.vocabulary());
        fits_index(path, columns, selection.index_dtype)?;
        MatrixKind::Sparse { dtype: if tokens.is_some() { Dtype::F32 } else { dtype } }
    } else {
        MatrixKind::Dense { dtype, row }
    };
    let var = Arc::new(var);
    Ok(Element { name: name.clone(), kind, genes, var, arithmetic, tokens, computed, absent_is_zero, absent })
}

/// Which stores have an element. With an outer join, missing ones are served as missing values; otherwise they are an error.
fn presence(stores: &[Store], name: &MatrixName, selection: &Selection) -> Result<Vec<bool>, CollectionError> {
    let there = |store: &Store| Matrix::is_there(&*store.container, &name.path());
    let there = stores.iter().map(there).collect::<Result<Vec<bool>, _>>()?;
    let with = |wanted: bool| {
        let of =
            stores.iter().zip(&there).filter(|&(_, &there)| there == wanted).map(|(store, _)| store.container.name());
        list(&of.collect::<Vec<_>>())
    };
    if selection.looks {
        return Ok(there);
    }
    // An element that no store has gives its error when it is opened, which lists what exists.
    if !there.contains(&true) {
        return Ok(vec![true; stores.len()]);
    }
    if there.contains(&false) && selection.join != Join::Outer {
        return Err(CollectionError::Option(format!(
            "--with: {name} is not in {}, but in {}; leave it out, or serve it with --join outer, where nothing is stored for \
             the rows of stores without it (NaN in dense rows)",
            with(false),
            with(true)
        )));
    }
    Ok(there)
}

/// Some of the names, and how many more.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [all @ .., last] if names.len() <= 4 => format!("{} and {last}", all.join(", ")),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

/// Gives stores that lack an element of obsm the column names of the others.
fn fill_in(names: &mut [genes::Named], opened: &[Opened]) {
    let Some(known) =
        names.iter().zip(opened).find(|(_, opened)| opened.is_some()).map(|((_, known), _)| known.clone())
    else {
        return;
    };
    for ((_, names), opened) in names.iter_mut().zip(opened) {
        if opened.is_none() {
            *names = known.clone();
        }
    }
}

/// The element's columns over all stores, and the column map of each store.
fn aligned(
    stores: &[Store],
    mut names: Vec<genes::Named>,
    (name, has_genes, is_x): (&MatrixName, bool, bool),
    selection: &Selection,
    counters: &Counters,
) -> Result<genes::Aligned, CollectionError> {
    let failed = |(store, cause)| CollectionError::Mismatch { store, cause };
    let asked = selection.genes.as_ref().filter(|_| has_genes);
    if selection.looks {
        if let (Some(Genes::Var(column)), Some(first)) = (asked, stores.first()) {
            // The mount reads it from its first store, which need not be the probed one, so errors are ignored here.
            let _ = genes::flagged(&*first.container, var_of(name), column, counters);
        }
        let genes = names.first().map(|(_, first)| first.clone()).unwrap_or_default();
        return Ok((genes, vec![ColumnMap::default(); names.len()]));
    }
    if selection.genes.is_some() && is_x && !has_genes {
        return Err(CollectionError::Option(format!("--genes: the columns of {name} are no genes")));
    }
    if has_genes && selection.matching != Matching::Exact {
        // Requested names determine the spelling.
        let spelling = match (asked, &selection.tokens) {
            (Some(Genes::Names(names)), _) => vec![("--genes".to_owned(), Arc::new(names.clone()))],
            (_, Some(spec)) if is_x => {
                let names = spec.genes.iter().map(|gene| gene.name.clone()).collect();
                vec![("--tokens".to_owned(), Arc::new(names))]
            }
            _ => Vec::new(),
        };
        let lists: Vec<genes::Named> = spelling.iter().cloned().chain(names).collect();
        names = matching::respelt(&lists, selection.matching).map_err(failed)?.split_off(spelling.len());
    }
    if let (Some(Genes::Names(wanted)), Some(least)) = (asked, selection.absent_zero) {
        return vocabulary::align(wanted, &names, least).map_err(failed);
    }
    let (genes, columns) = genes::align(&names, selection.join).map_err(failed)?;
    if selection.join == Join::Inner && genes.is_empty() && names.first().is_some_and(|(_, first)| !first.is_empty()) {
        let first = names.first().map(|(_, names)| names.as_slice()).unwrap_or_default();
        let other = names.iter().find(|(_, names)| names.as_slice() != first).map(|(_, names)| names.as_slice());
        let hint = matching::hint(first, other.unwrap_or_default());
        return Err(CollectionError::Option(format!("--join inner: no gene is in all stores{hint}")));
    }
    let Some(chosen) = asked else { return Ok((genes, columns)) };
    let first = stores.first().map(|store| &*store.container);
    genes::choose(chosen, first, var_of(name), &genes, columns, counters)
}

/// Adds each store's part; returns the dtype that holds all values.
fn parts(
    stores: &mut [Store],
    opened: Vec<Opened>,
    columns: Vec<ColumnMap>,
    row: &[u64],
    (name, is_sparse, absent_is_zero): (&str, bool, bool),
    (tokens, selection): (Option<&TokenSpec>, &Selection),
    counters: &Counters,
) -> Result<Dtype, CollectionError> {
    let inner = usize::try_from(row.iter().skip(1).product::<u64>()).unwrap_or(usize::MAX);
    let mut added: Vec<Option<Stored>> = Vec::with_capacity(stores.len());
    for ((store, opened), mut columns) in stores.iter().zip(opened).zip(columns) {
        let Some((matrix, row_index)) = opened else {
            added.push(None);
            continue;
        };
        // In rows with further axes, a gene has several elements.
        if inner != 1 {
            let each = |&to: &u32| (0..inner).map(move |at| of_gene(to, inner, at));
            columns.map = columns.map.map(|map| map.iter().flat_map(each).collect());
        }
        let mut part = Stored { matrix, columns, retained_bounds: None, row_index };
        if is_sparse && (part.columns.extra > 0 || tokens.is_some()) && !selection.looks {
            part.retained_bounds =
                Some(retained_bounds::count(&*store.container, &part, (name, tokens), &selection.index, counters)?);
        }
        added.push(Some(part));
    }
    let dtypes = added.iter().flatten().map(|part| part.dtype(absent_is_zero));
    let mut dtype = dtypes.reduce(Dtype::promote).unwrap_or(Dtype::F32);
    if !is_sparse && !dtype.is_float() && added.iter().any(Option::is_none) {
        dtype = Dtype::F64;
    }
    let absent: Vec<Option<Stored>> = stores
        .iter()
        .zip(&added)
        .map(|(store, part)| {
            if part.is_some() {
                return None;
            }
            let matrix = Matrix::absent(&*store.container, name, is_sparse, dtype, store.rows, row);
            Some(Stored {
                matrix,
                columns: ColumnMap::default(),
                retained_bounds: None,
                row_index: RowIndex::default(),
            })
        })
        .collect();
    for ((store, part), absent) in stores.iter_mut().zip(added).zip(absent) {
        store.elements.extend(part.or(absent));
    }
    Ok(dtype)
}

/// The position of one of a gene's `inner` elements.
fn of_gene(to: u32, inner: usize, at: usize) -> u32 {
    if to == DROPPED {
        return DROPPED;
    }
    u32::try_from(inner)
        .ok()
        .zip(u32::try_from(at).ok())
        .and_then(|(n, at)| to.checked_mul(n)?.checked_add(at))
        .unwrap_or(DROPPED)
}

/// Opens the matrix of one store, and its row index. The probe derives no transpose and reads no row bounds of a large matrix, as the
/// mount does both without libhdf5.
fn matrix(
    store: &dyn Container,
    name: &str,
    obs: Option<&[String]>,
    selection: &Selection,
    counters: &Counters,
) -> Result<(Matrix, RowIndex), ArrayError> {
    if selection.looks {
        let matrix = match Matrix::open_by_column(store, name, counters)? {
            // The mount makes the transpose of a CSC matrix, whose shape this is.
            Some(Matrix::Sparse { data, indices, indptr, rows, columns }) => {
                Matrix::Sparse { data, indices, indptr, rows: columns, columns: rows }
            }
            Some(dense) => dense,
            None => Matrix::look(store, name, &RowIndex::trying(), counters)?,
        };
        return Ok((matrix, RowIndex::trying()));
    }
    let row_index = RowIndex::open(store, name, obs, &selection.index, counters);
    let matrix = Matrix::open_by_row(store, name, &selection.index, &row_index, counters)?;
    Ok((matrix, row_index))
}

/// Fails if the requested dtype does not hold all column numbers below `columns`.
fn fits_index(name: &str, columns: u64, asked: Option<Dtype>) -> Result<(), CollectionError> {
    let most = match asked {
        Some(Dtype::U16) => 1 << 16,
        Some(Dtype::I32) => 1 << 31,
        _ => return Ok(()),
    };
    if columns <= most {
        return Ok(());
    }
    let dtype = asked.map_or("", Dtype::name);
    Err(CollectionError::Option(format!(
        "--index-dtype: {name} has {columns} columns, and {dtype} does not hold column number {}; {most} are the most",
        columns - 1
    )))
}

/// The dataframe with the names of the matrix's columns.
fn var_of(name: &MatrixName) -> Frame {
    name.frame().unwrap_or(Frame::Var)
}

/// Columns of an obsm matrix, at most: they are named by number.
const MOST_NUMBERED: u64 = 1 << 26;

/// Names of the matrix's columns: for X and layers, the index or a column of var; for raw/X, raw's genes; for an obsm dataframe, its
/// columns; for other elements of obsm, numbers. `row` is the shape of its rows, if the store has it.
fn column_names(
    store: &dyn Container,
    name: &MatrixName,
    column: Option<&str>,
    row: Option<&[u64]>,
    counters: &Counters,
) -> Result<Vec<String>, CollectionError> {
    let Some(var) = name.frame() else {
        let path = name.path();
        if table::is_table(store, &path)? {
            return Ok(table::columns(store, &path)?);
        }
        // A wrong shape must not fill the memory with names.
        let count = row.and_then(|row| row.first()).copied().unwrap_or(0);
        if count > MOST_NUMBERED {
            return Err(mismatch(store, format!("{name} has {count} columns; at most {MOST_NUMBERED} are served")));
        }
        return Ok((0..count).map(|column| column.to_string()).collect());
    };
    let frame = DataFrame::open(store, var)?;
    let mut names = frame.names(counters)?;
    if let Some(count) = row.and_then(|row| row.first()).filter(|&&count| count != names.len() as u64) {
        return Err(mismatch(store, format!("{name} has {count} columns, but {} names {}", var.path(), names.len())));
    }
    if let Some(column) = column {
        by_column(&mut names, store, &frame, column, counters)?;
    }
    Ok(names)
}

/// Replaces gene names by a column of text or labels; a gene without a value keeps its name.
fn by_column(
    names: &mut [String],
    store: &dyn Container,
    frame: &DataFrame<'_>,
    column: &str,
    counters: &Counters,
) -> Result<(), CollectionError> {
    if !frame.columns.iter().any(|name| name == column) {
        let cause = format!("--genes-column: {}: var has no column {column}", store.name());
        let known = Arc::new(frame.columns.clone());
        return Err(CollectionError::Unknown { cause, wanted: column.to_owned(), known });
    }
    let values = frame.column(column, counters)?.values;
    for (row, name) in names.iter_mut().enumerate() {
        let here = match &values {
            Values::Text { texts, mask, .. } if mask.as_ref().is_none_or(|mask| mask[row] == 0) => Some(texts.at(row)),
            Values::Categorical { codes, categories, .. } => usize::try_from(to_i64(codes.dtype, codes.at(row)))
                .ok()
                .and_then(|code| categories.labels.get(code).map(String::as_str)),
            Values::Text { .. } => None,
            Values::Numbers { .. } => {
                let cause = format!("--genes-column: {}: {column} of var holds numbers, not names", store.name());
                return Err(CollectionError::Option(cause));
            }
        };
        if let Some(here) = here.filter(|here| !here.is_empty()) {
            here.clone_into(name);
        }
    }
    Ok(())
}

/// Fails unless both matrices are sparse, or both dense with images or embeddings of the same shape. The number of genes is checked by
/// the alignment.
fn same_kind(
    store: &dyn Container,
    name: &MatrixName,
    first_store: &str,
    first: &Matrix,
    matrix: &Matrix,
    dense: bool,
) -> Result<(), CollectionError> {
    let without = if *name == MatrixName::X { "mount them apart" } else { "mount them apart, or leave it out" };
    if first.is_sparse() != matrix.is_sparse() && !dense {
        let kind = |matrix: &Matrix| if matrix.is_sparse() { "sparse" } else { "dense" };
        let cause = format!("its {name} is {}, but that of {first_store} is {}", kind(matrix), kind(first));
        return Err(mismatch(store, format!("{cause}; serve both as dense rows with --dense, or {without}")));
    }
    let (a, b) = (first.row_shape(), matrix.row_shape());
    if a.get(1..) != b.get(1..) || (a != b && name.is_obsm()) {
        let cause = format!("rows of its {name} have shape {b:?}, but those of {first_store} {a:?}");
        return Err(mismatch(store, format!("{cause}; {without}")));
    }
    Ok(())
}
