//! `.h5ad` images are files that anndata, h5py and libhdf5 can read, with the values that their spans were filled with.
//!
//! [`fill`] takes the place of the engine, which fills the spans. The images and their expected values (`cases.json`) are written to
//! a directory, where `tests/python/h5ad_format.py` reads them with warnings turned into errors. Python is `SHUFFLEFS_PYTHON`, or
//! `target/venv/bin/python`, with anndata and h5py.

use std::path::{Path, PathBuf};
use std::process::Command;

use half::f16;
use serde_json::{Value, json};
use shufflefs::anndata::bytes::Bytes;
use shufflefs::anndata::column::{Categories, Column, Numbers, Texts, Values};
use shufflefs::anndata::names::MatrixName;
use shufflefs::array::Dtype;
use shufflefs::batch::{Batch, Field, Layout, Repr, Span};
use shufflefs::collection::Table;
use shufflefs::collection::element::{Element, MatrixKind};
use shufflefs::format::Format;
use shufflefs::format::h5ad::{H5ad, H5adError};

const ROWS: u64 = 1_003;

struct Case {
    name: String,
    table: Table,
    rows: Vec<u64>,
    /// Stored values of row `r`: columns `r % 3, + 3, ...`; 0 for none.
    per_row: u64,
}

fn case(name: impl Into<String>, matrix: MatrixKind, genes: usize, columns: Vec<Column>) -> Case {
    let genes: Vec<String> = (0..genes).map(|i| format!("Gène-{i}")).collect();
    let elements = vec![Element::plain(MatrixName::X, matrix, genes.into())];
    let table = Table {
        n_rows: ROWS,
        elements,
        columns: columns.into(),
        index_dtype: None,
        companions: Vec::new(),
        modality: None,
    };
    Case { name: name.into(), table, rows: vec![1_002, 0, 17, 4, 999], per_row: 3 }
}

/// The bytes of a small number as `dtype`.
fn element(dtype: Dtype, value: u64) -> Vec<u8> {
    match dtype {
        Dtype::Bool => vec![u8::from(value != 0)],
        Dtype::F16 => f16::from_f64(value as f64).to_le_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
        Dtype::F64 => (value as f64).to_le_bytes().to_vec(),
        _ => value.to_le_bytes()[..dtype.size()].to_vec(),
    }
}

fn shown(dtype: Dtype, value: u64) -> Value {
    if dtype == Dtype::Bool { json!(value != 0) } else { json!(value) }
}

fn numbers(dtype: Dtype, value: impl Fn(u64) -> u64) -> Numbers {
    Numbers { dtype, bytes: (0..ROWS).flat_map(|row| element(dtype, value(row))).collect() }
}

fn column(name: &str, values: Values) -> Column {
    Column { name: name.into(), values }
}

fn categorical(dtype: Dtype, labels: &[&str], numbers_of: Option<Numbers>, ordered: bool) -> Values {
    let n = labels.len() as i64;
    let bytes = (0..ROWS as i64).flat_map(|row| (row % (n + 1) - 1).to_le_bytes()[..dtype.size()].to_vec()).collect();
    let labels = labels.iter().map(|&label| label.into()).collect();
    Values::Categorical {
        codes: Numbers { dtype, bytes },
        categories: Categories { labels, numbers: numbers_of },
        ordered,
    }
}

fn text(of: impl Fn(u64) -> String, mask: bool) -> Values {
    let mut texts = Texts::default();
    let (mut chars, mut bytes) = (0, 0);
    for row in 0..ROWS {
        let text = of(row);
        (chars, bytes) = (chars.max(text.chars().count()), bytes.max(text.len()));
        texts.push(&text);
    }
    Values::Text { texts, mask: mask.then(missing), chars, bytes }
}

fn missing() -> Bytes {
    (0..ROWS).map(|row| u8::from(row % 4 == 1)).collect()
}

fn every_kind() -> Vec<Column> {
    let mut columns: Vec<Column> = Dtype::ALL
        .iter()
        .map(|&d| column(d.name(), Values::Numbers { numbers: numbers(d, |r| r % 3), mask: None, time: None }))
        .collect();
    for dtype in Dtype::ALL {
        let values = Values::Numbers { numbers: numbers(dtype, |r| r % 2), mask: Some(missing()), time: None };
        columns.push(column(&format!("nullable {dtype}"), values));
    }
    for (dtype, ordered) in [(Dtype::I8, false), (Dtype::I16, true), (Dtype::I32, false)] {
        let values = categorical(dtype, &["T cell", "", "β-Zelle", "日本"], None, ordered);
        columns.push(column(&format!("codes {dtype}"), values));
    }
    let ints = Numbers { dtype: Dtype::I64, bytes: [7_i64, 9].iter().flat_map(|v| v.to_le_bytes()).collect() };
    columns.push(column("numeric", categorical(Dtype::I8, &["7", "9"], Some(ints), true)));
    let bools = Numbers { dtype: Dtype::Bool, bytes: vec![0, 1].into() };
    columns.push(column("boolean", categorical(Dtype::I8, &["False", "True"], Some(bools), false)));
    columns.push(column("no categories", categorical(Dtype::I8, &[], None, false)));
    columns.push(column("text", text(|r| ["", "é", "plain", "日本語 text"][r as usize % 4].into(), false)));
    columns.push(column("empty text", text(|_| String::new(), false)));
    columns.push(column("nullable text", text(|r| format!("x{r}"), true)));
    columns
}

fn cases() -> Vec<Case> {
    let sparse = MatrixKind::Sparse { dtype: Dtype::F32 };
    let dense = |row: &[u64]| MatrixKind::Dense { dtype: Dtype::F32, row: row.to_vec() };
    let mut cases = Vec::new();
    for dtype in Dtype::ALL {
        // anndata takes some milliseconds a column, so all kinds are tested once for each kind of X.
        let columns = || if dtype == Dtype::F32 { every_kind() } else { every_kind()[..2].to_vec() };
        cases.push(case(format!("sparse-{dtype}"), MatrixKind::Sparse { dtype }, 10, columns()));
        cases.push(case(format!("dense-{dtype}"), MatrixKind::Dense { dtype, row: vec![10] }, 10, columns()));
    }
    for genes in [0, 1] {
        let mut few = case(format!("genes-{genes}"), sparse.clone(), genes, Vec::new());
        few.per_row = 0;
        cases.push(few);
        cases.push(case(format!("dense-genes-{genes}"), dense(&[genes as u64]), genes, Vec::new()));
    }
    let mut one = case("one-row", sparse.clone(), 10, every_kind());
    one.rows = vec![5];
    cases.push(one);
    let mut empty = case("nnz-0", sparse.clone(), 10, every_kind());
    empty.per_row = 0;
    cases.push(empty);
    let mut single = case("store-of-one-row", sparse.clone(), 3, Vec::new());
    single.table.n_rows = 1;
    single.rows = vec![0];
    single.per_row = 1;
    cases.push(single);
    cases.push(case("image", dense(&[3, 4, 2]), 0, every_kind()[..2].to_vec()));
    cases.push(case("scalar-rows", dense(&[]), 0, Vec::new()));
    cases.push(case("unnamed-genes", dense(&[12]), 0, Vec::new()));
    let names = ["a/b", "a_b", "", ".", "_index", "é/ü", "a/b", "nul\0", "_", "..", &"long".repeat(3_000)];
    let odd = names.iter().map(|name| column(name, text(|r| format!("{name}{r}").replace('\0', ""), false))).collect();
    cases.push(case("odd-names", sparse.clone(), 10, odd));
    for n in [2_000, 4_092] {
        let value = |i: u64| Values::Numbers { numbers: numbers(Dtype::U16, move |r| r + i), mask: None, time: None };
        let many = (0..n).map(|i| column(&format!("a column with a rather long name {i}"), value(i))).collect();
        cases.push(case(format!("columns-{n}"), sparse.clone(), 60_000, many));
    }
    cases
}

/// Fills every span, in place of the engine. Returns what a reader must find in X.
fn fill(case: &Case, layout: &Layout, image: &mut [u8]) -> Value {
    let dtype = match &case.table.x().kind {
        MatrixKind::Sparse { dtype } | MatrixKind::Dense { dtype, .. } => *dtype,
    };
    let (mut data, mut indices, mut indptr) = (Vec::new(), Vec::new(), vec![0]);
    for &row in &case.rows {
        for k in 0..case.per_row {
            data.push((row + k) % 5 + 1);
            indices.push(row % 3 * u64::from(case.table.x().n_vars() > 8) + 3 * k);
        }
        indptr.push(data.len() as u64);
    }
    let per_row = case.table.x().n_vars() as usize;
    let dense: Vec<u64> = (0..case.rows.len() * per_row).map(|i| i as u64 % 100).collect();
    for &Span { field, repr, start, len, .. } in &layout.spans {
        let items: Vec<Vec<u8>> = match (field, repr) {
            (Field::RowName, Repr::Utf8(_)) => case.rows.iter().map(|row| row.to_string().into_bytes()).collect(),
            (Field::Data(0), Repr::Number(d)) => data.iter().map(|&v| element(d, v)).collect(),
            (Field::Indices(0), Repr::Number(d)) => indices.iter().map(|&v| element(d, v)).collect(),
            (Field::Indptr(0), Repr::Number(d)) => indptr.iter().map(|&v| element(d, v)).collect(),
            (Field::Dense(0), Repr::Number(d)) => dense.iter().map(|&v| element(d, v)).collect(),
            (Field::Column(i), _) => case.rows.iter().map(|&r| value(&case.table.columns[i].values, r)).collect(),
            (Field::Mask(_), Repr::Number(Dtype::Bool)) => {
                case.rows.iter().map(|&r| vec![missing()[r as usize]]).collect()
            }
            other => panic!("{other:?} has no place in a .h5ad"),
        };
        let span = &mut image[start as usize..(start + len) as usize];
        assert_eq!(span.len(), items.len() * repr.size(), "{field:?}");
        span.fill(0);
        for (place, item) in span.chunks_exact_mut(repr.size()).zip(items) {
            place[..item.len()].copy_from_slice(&item);
        }
    }
    let show = |values: &[u64]| Value::from_iter(values.iter().map(|&v| shown(dtype, v)));
    match &case.table.x().kind {
        // scipy does not support sparse float16.
        MatrixKind::Sparse { .. } => json!({
            "dtype": if dtype == Dtype::F16 { "float32" } else { dtype.name() }, "data": show(&data), "indices": indices, "indptr": indptr,
            "shape": [case.rows.len(), per_row],
        }),
        MatrixKind::Dense { row, .. } => {
            let row: &[u64] = if row.is_empty() { &[1] } else { row };
            let shape: Vec<u64> = std::iter::once(case.rows.len() as u64).chain(row.iter().copied()).collect();
            json!({ "dtype": dtype.name(), "dense": show(&dense), "shape": shape })
        }
    }
}

fn value(values: &Values, row: u64) -> Vec<u8> {
    match values {
        Values::Categorical { codes: numbers, .. } | Values::Numbers { numbers, .. } => {
            numbers.at(row as usize).to_vec()
        }
        Values::Text { texts, .. } => texts.at(row as usize).as_bytes().to_vec(),
    }
}

/// The expected values of a column: one JSON value a row.
fn expected(column: &Column, rows: &[u64]) -> Value {
    let number = |numbers: &Numbers, i: usize| {
        let mut bytes = [0; 8];
        bytes[..numbers.dtype.size()].copy_from_slice(numbers.at(i));
        let int = u64::from_le_bytes(bytes);
        match numbers.dtype {
            Dtype::F16 => json!(f16::from_bits(int as u16).to_f64()),
            Dtype::F32 => json!(f32::from_bits(int as u32)),
            Dtype::F64 => json!(f64::from_bits(int)),
            dtype => shown(dtype, int),
        }
    };
    let (kind, dtype, values): (_, _, Vec<Value>) = match &column.values {
        Values::Categorical { codes, categories, ordered } => {
            let label = |code: usize| match &categories.numbers {
                Some(numbers) => number(numbers, code),
                None => json!(categories.labels[code]),
            };
            let code = |row: u64| row as usize % (categories.labels.len() + 1);
            let kind = if *ordered { "ordered" } else { "unordered" };
            let all: Vec<Value> = (0..categories.labels.len()).map(label).collect();
            let values = rows.iter().map(|&row| code(row).checked_sub(1).map_or(Value::Null, label)).collect();
            return json!({"kind": kind, "dtype": codes.dtype.name(), "values": Value::Array(values), "categories": all});
        }
        Values::Numbers { numbers, mask, .. } => {
            let nullable = mask.as_ref().filter(|_| !numbers.dtype.is_float());
            let value = |&row: &u64| match nullable {
                Some(mask) if mask[row as usize] == 1 => Value::Null,
                _ => number(numbers, row as usize),
            };
            let kind = if nullable.is_some() { "nullable" } else { "numbers" };
            (kind, numbers.dtype.name(), rows.iter().map(value).collect())
        }
        Values::Text { texts, mask, .. } => {
            let value = |&row: &u64| match mask {
                Some(mask) if mask[row as usize] == 1 => Value::Null,
                _ => json!(texts.at(row as usize)),
            };
            (if mask.is_some() { "nullable text" } else { "text" }, "", rows.iter().map(value).collect())
        }
    };
    json!({ "kind": kind, "dtype": dtype, "values": values })
}

/// One image over a buffer of garbage, and its expected values.
fn image(case: &Case, garbage: u8) -> (Vec<u8>, Value) {
    let format = H5ad::new(&case.table).unwrap();
    let nnz = case.per_row * case.rows.len() as u64;
    let batch = Batch { rows: &case.rows, nnz: &[nnz], ..Batch::new(&case.table) };
    let layout = format.layout(&batch);
    let others: Vec<u64> = case.rows.iter().map(|row| row + 1).collect();
    assert_eq!(layout, format.layout(&Batch { rows: &others, epoch: 3, index: 9, ..batch }), "the shape decides alone");
    let mut end = 0;
    for span in &layout.spans {
        assert!(span.start >= end && span.start + span.len <= layout.size, "{}: {span:?}", case.name);
        assert!(span.len == 0 || span.start % 64 == 0, "{}: {span:?}", case.name);
        end = span.start + span.len;
    }
    let mut image = vec![garbage; layout.size as usize];
    let x = fill(case, &layout, &mut image);
    format.finish(&batch, &layout, &mut image);
    (image, x)
}

fn python() -> PathBuf {
    let path = std::env::var_os("SHUFFLEFS_PYTHON")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python"), PathBuf::from);
    assert!(path.exists(), "{} is absent: set SHUFFLEFS_PYTHON to a Python with anndata and h5py", path.display());
    path
}

#[test]
fn anndata_reads_every_shape() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for case in cases() {
        let (bytes, x) = image(&case, 0xAA);
        assert!(bytes == image(&case, 0x55).0, "{}: a byte is left as it was", case.name);
        let file = dir.path().join(format!("{}.h5ad", case.name));
        std::fs::write(&file, &bytes).unwrap();
        let rows: Vec<String> = case.rows.iter().map(u64::to_string).collect();
        let columns: Vec<Value> = case.table.columns.iter().map(|column| expected(column, &case.rows)).collect();
        let names = if case.name == "odd-names" {
            let long = format!("{}%~12d9a6ffbfa76969", "long".repeat(50));
            json!(["a%2Fb", "a_b", "%", "%2E", "%5Findex", "é%2Fü", "a%2Fb%", "nul%00", "_", "%2E.", long])
        } else {
            Value::from_iter(case.table.columns.iter().map(|column| column.name.clone()))
        };
        let genes = match &case.table.x().kind {
            MatrixKind::Dense { row, .. } if row.len() < 2 && case.table.x().genes.is_empty() => {
                (0..case.table.x().n_vars()).map(|i| i.to_string()).collect()
            }
            _ => case.table.x().genes.to_vec(),
        };
        all.push(json!({
            "file": file, "x": x, "obs_names": rows, "var_names": genes, "names": names, "columns": columns,
        }));
        // A lookup in a group of compact links is linear, so visiting all is quadratic: only up to 2,000 columns.
        if case.table.columns.len() <= 2_000 {
            visit(&file, &case);
        }
    }
    std::fs::write(dir.path().join("cases.json"), Value::Array(all).to_string()).unwrap();
    if let Some(keep) = std::env::var_os("SHUFFLEFS_KEEP_IMAGES") {
        std::fs::create_dir_all(&keep).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, Path::new(&keep).join(path.file_name().unwrap())).unwrap();
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/h5ad_format.py");
    let output = Command::new(python()).arg(script).arg(dir.path().join("cases.json")).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// By libhdf5 through the crate: every object opens, every dataset has its bytes.
fn visit(file: &Path, case: &Case) {
    fn walk(group: &hdf5::Group) -> usize {
        let datasets = group.datasets().unwrap();
        for dataset in &datasets {
            assert!(!dataset.is_chunked());
            let bytes = dataset.size() * dataset.dtype().unwrap().size();
            assert_eq!(dataset.storage_size(), bytes as u64, "{}", dataset.name());
            assert_eq!(dataset.offset().is_some(), bytes > 0, "{}", dataset.name());
            for name in dataset.attr_names().unwrap() {
                dataset.attr(&name).unwrap();
            }
        }
        datasets.len() + group.groups().unwrap().iter().map(walk).sum::<usize>()
    }
    let file = hdf5::File::open(file).unwrap();
    let n = walk(&file);
    let x = if matches!(case.table.x().kind, MatrixKind::Sparse { .. }) { 3 } else { 1 };
    assert!(n >= 2 + x + case.table.columns.len(), "{}: {n} datasets", case.name);
    let kind: hdf5::types::VarLenUnicode = file.attr("encoding-type").unwrap().read_scalar().unwrap();
    assert_eq!(kind.as_str(), "anndata");
    if x == 3 {
        let indptr: Vec<i64> = file.dataset("X/indptr").unwrap().read_raw().unwrap();
        let bounds: Vec<i64> = (0..=case.rows.len() as i64).map(|i| i * case.per_row as i64).collect();
        assert_eq!(indptr, bounds, "{}", case.name);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let with = |names: Vec<String>| {
        let values =
            Values::Numbers { numbers: Numbers { dtype: Dtype::U8, bytes: Vec::new().into() }, mask: None, time: None };
        let columns = names.iter().map(|name| column(name, values.clone())).collect();
        H5ad::new(&case("", MatrixKind::Sparse { dtype: Dtype::F32 }, 1, columns).table).err()
    };
    assert_eq!(
        with((0..4_093).map(|i| i.to_string()).collect()),
        Some(H5adError::TooManyColumns { columns: 4_093, most: 4_092 })
    );
    assert_eq!(with(vec!["x".repeat(1 << 20)]), None, "its served name is shorter");
    let huge = MatrixKind::Dense { dtype: Dtype::F32, row: vec![1 << 40, 1 << 40] };
    assert!(matches!(H5ad::new(&case("", huge, 1, Vec::new()).table), Err(H5adError::RowTooLarge { .. })));
}

/// Not a test: prints the time of a batch of 256 rows x 20,000 genes.
#[test]
#[ignore = "a measurement"]
fn cost() {
    for columns in [0, 12, 2_000] {
        let columns = every_kind()[..12].iter().cycle().take(columns).cloned().collect();
        let table = case("", MatrixKind::Sparse { dtype: Dtype::F32 }, 20_000, columns).table;
        let rows: Vec<u64> = (0..256).collect();
        let batch = Batch { rows: &rows, nnz: &[256 * 1_500], ..Batch::new(&table) };
        let start = std::time::Instant::now();
        let format = H5ad::new(&table).unwrap();
        let new = start.elapsed();
        let layout = format.layout(&batch);
        let mut image = vec![0; layout.size as usize];
        let n = 2_000;
        let start = std::time::Instant::now();
        for _ in 0..n {
            std::hint::black_box(format.layout(std::hint::black_box(&batch)));
        }
        let layouts = start.elapsed() / n;
        let start = std::time::Instant::now();
        for _ in 0..n {
            format.finish(&batch, &layout, std::hint::black_box(&mut image));
        }
        let finish = start.elapsed() / n;
        println!(
            "{} columns: {} bytes, new {new:?}, layout {layouts:?}, finish {finish:?}",
            table.columns.len(),
            layout.size
        );
    }
}
