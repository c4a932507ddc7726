//! Arrays written by libhdf5 and zarrs, read by shufflefs's addressing and decoders and by the libraries.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::pieces::Pieces;
use shufflefs::array::gather::{ElementRange, GatherContext, gather};
use shufflefs::array::{Array, ArrayError, Counters, Dtype, NodeKind, kinds};
use zarrs::array::codec::api::BytesToBytesCodecTraits;
use zarrs::array::codec::{BloscCodec, BloscCompressor, BloscShuffleMode, Crc32cCodec, GzipCodec, ZstdCodec};
use zarrs::array::{ArrayBuilder, data_type};
use zarrs::filesystem::FilesystemStore;

const LIMIT: u64 = 1 << 30;

/// A small deterministic generator, so that the tests are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

pub fn values(n: usize) -> Vec<i32> {
    let mut random = Random(7);
    (0..n).map(|_| random.below(50) as i32 - 5).collect()
}

pub fn bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn read(array: &Array) -> Result<Vec<u8>, ArrayError> {
    array.read_all(LIMIT, &Counters::default())
}

/// Random gathers against slices of the whole array.
fn gathers_agree(array: &Array, whole: &[u8]) {
    let size = array.dtype.size() as u64;
    let rows = array.shape[0];
    let row: u64 = array.shape[1..].iter().product();
    let flat = array.shape.len() == 1;
    let mut random = Random(11);
    for round in 0..12 {
        let pieces: Vec<ElementRange> = (0..1 + random.below(60))
            .map(|_| {
                let start = random.below(rows);
                let len = if flat { random.below((rows - start).min(300) + 1) } else { 1 };
                ElementRange { start, len }
            })
            .collect();
        let buffers = pieces.iter().map(|p| Mutex::new(vec![0xee; (p.len * row * size) as usize])).collect();
        let sink = Pieces { buffers, size: size as usize, places: round % 2 == 0 };
        let counters = Counters::default();
        gather(array, &pieces, &sink, &GatherContext { counters: &counters, progress: &|| {}, cache: None, io: None })
            .unwrap();
        for (piece, buffer) in pieces.iter().zip(&sink.buffers) {
            let start = (piece.start * row * size) as usize;
            let len = (piece.len * row * size) as usize;
            assert!(*buffer.lock().unwrap() == whole[start..start + len], "{} {piece:?}", array.element);
        }
    }
}

#[test]
fn hdf5_layouts_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5ad");
    let data = values(20_011);
    let wide = values(101 * 37);
    {
        let file = hdf5::File::create(&path).unwrap();
        let new = || file.new_dataset_builder();
        new().with_data(&data).create("contiguous").unwrap();
        new().with_data(&data).chunk(777).create("chunked").unwrap();
        new().with_data(&data).chunk(777).deflate(4).create("gzip").unwrap();
        new().with_data(&data).chunk(777).shuffle().deflate(4).create("shuffle_gzip").unwrap();
        new().with_data(&data).chunk(777).shuffle().deflate(4).fletcher32().create("sum").unwrap();
        new().with_data(&data).chunk(777).lzf().create("lzf").unwrap();
        new().with_data(&data).chunk(5000).blosc_zstd(5, true).create("blosc").unwrap();
        new().with_data(&data).chunk(777).scale_offset(hdf5::filters::ScaleOffset::Integer(0)).create("so").unwrap();
        for (name, chunk) in [("w_rows", (10, 37)), ("w_columns", (101, 5)), ("w_both", (16, 8))] {
            let new = || file.new_dataset::<i32>().shape((101, 37)).chunk(chunk);
            new().deflate(1).create(name).unwrap().write_raw(&wide).unwrap();
            new().create(format!("{name}_raw").as_str()).unwrap().write_raw(&wide).unwrap();
        }
        file.new_dataset::<i32>().shape((101, 37)).create("w_contiguous").unwrap().write_raw(&wide).unwrap();
        let cube = file.new_dataset::<i32>().shape((101, 37, 1)).chunk((7, 5, 1)).shuffle().lzf();
        cube.create("w_cube").unwrap().write_raw(&wide).unwrap();
        file.new_dataset::<i32>().shape(300).chunk(50).fill_value(-7).create("unwritten").unwrap();
        file.new_dataset::<i32>().shape(300).fill_value(-7).create("unwritten_contiguous").unwrap();
        let bools: Vec<bool> = data.iter().map(|v| v % 2 == 0).collect();
        new().with_data(&bools).chunk(500).deflate(1).create("bool").unwrap();
    }
    let container = kinds::open(&path).unwrap();
    for name in ["contiguous", "chunked", "gzip", "shuffle_gzip", "sum", "lzf", "blosc", "so"] {
        let array = container.array(name).unwrap();
        let whole = read(&array).unwrap();
        assert!(whole == bytes(&data), "{name}");
        gathers_agree(&array, &whole);
    }
    assert_eq!(container.array("so").unwrap().source.filters(), ["scale-offset", "(library)"]);
    assert_eq!(container.array("shuffle_gzip").unwrap().source.filters(), ["shuffle", "gzip"]);
    for name in container.members("").unwrap().iter().filter(|name| name.starts_with("w_")) {
        let array = container.array(name).unwrap();
        let whole = read(&array).unwrap();
        assert!(whole == bytes(&wide), "{name}");
        gathers_agree(&array, &whole);
    }
    for name in ["unwritten", "unwritten_contiguous"] {
        let array = container.array(name).unwrap();
        assert_eq!(read(&array).unwrap(), bytes(&[-7; 300]));
        gathers_agree(&array, &bytes(&[-7; 300]));
    }
    let bools = container.array("bool").unwrap();
    assert_eq!(bools.dtype, Dtype::Bool);
    assert_eq!(read(&bools).unwrap(), data.iter().map(|v| u8::from(v % 2 == 0)).collect::<Vec<u8>>());
    assert!(container.array("contiguous").unwrap().source.raw(0).unwrap().is_some());
    assert!(container.array("chunked").unwrap().source.raw(3).unwrap().is_some());
    assert!(container.array("gzip").unwrap().source.raw(3).unwrap().is_none());
    let refused = container.array("gzip").unwrap().read_all(100, &Counters::default());
    assert!(matches!(refused, Err(ArrayError::Unsupported { .. })));
    assert_eq!(container.kind("nothing/here").unwrap(), None);
    assert_eq!(container.kind("gzip").unwrap(), Some(NodeKind::Array));
    assert!(matches!(container.array("nothing"), Err(ArrayError::Element { .. })));
}

#[test]
fn hdf5_text_and_attributes() {
    use hdf5::types::{FixedAscii, VarLenAscii, VarLenUnicode};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5ad");
    let texts: Vec<String> = (0..2000).map(|i| format!("gène {i}")).chain([String::new()]).collect();
    {
        let file = hdf5::File::create(&path).unwrap();
        let variable: Vec<VarLenUnicode> = texts.iter().map(|t| t.parse().unwrap()).collect();
        file.new_dataset_builder().with_data(&variable).chunk(100).deflate(3).create("variable").unwrap();
        let fixed: Vec<FixedAscii<8>> =
            ["ab", "", "12345678"].iter().map(|t| FixedAscii::from_ascii(t).unwrap()).collect();
        file.new_dataset_builder().with_data(&fixed).create("fixed").unwrap();
        file.new_dataset::<VarLenAscii>().shape(5).create("unwritten").unwrap();
        file.new_attr::<i8>().create("minus").unwrap().write_scalar(&-3).unwrap();
        file.new_attr::<f64>().shape(0).create("column-order").unwrap();
        file.new_attr::<bool>().create("flag").unwrap().write_scalar(&true).unwrap();
        let word: VarLenUnicode = "anndata".parse().unwrap();
        file.new_attr::<VarLenUnicode>().create("encoding-type").unwrap().write_scalar(&word).unwrap();
        file.create_group("g").unwrap();
    }
    let container = kinds::open(&path).unwrap();
    assert_eq!(container.strings("variable").unwrap(), texts);
    assert_eq!(container.strings("fixed").unwrap(), ["ab", "", "12345678"]);
    assert_eq!(container.strings("unwritten").unwrap(), [""; 5]);
    assert!(container.is_text("fixed").unwrap());
    assert!(matches!(container.array("fixed"), Err(ArrayError::Element { .. })));
    let attributes = serde_json::Value::Object(container.attributes("").unwrap());
    let expected = serde_json::json!({"minus": -3, "column-order": [], "flag": true, "encoding-type": "anndata"});
    assert_eq!(attributes, expected);
    assert_eq!(container.members("").unwrap(), ["fixed", "g", "unwritten", "variable"]);
    container.check_unchanged().unwrap();
    File::options().append(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    assert!(matches!(container.check_unchanged(), Err(ArrayError::Stale { .. })));
}

#[test]
fn hdf5_damage_stays_in_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5ad");
    let data = values(5000);
    {
        let file = hdf5::File::create(&path).unwrap();
        file.new_dataset_builder().with_data(&data).chunk(1000).deflate(4).create("x").unwrap();
    }
    let place = {
        let file = hdf5::File::open(&path).unwrap();
        file.dataset("x").unwrap().chunk_info(2).unwrap()
    };
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 64], place.addr + 20).unwrap();
    drop(file);
    let container = kinds::open(&path).unwrap();
    let array = container.array("x").unwrap();
    assert!(matches!(read(&array), Err(ArrayError::Damaged { chunk: 2, .. })));
    let counters = Counters::default();
    for (start, good) in [(0, true), (1500, true), (2000, false), (3000, true)] {
        let part = array.read_range(start, 500, LIMIT, &counters);
        assert_eq!(part.is_ok(), good, "{start}");
        if let Ok(part) = part {
            assert_eq!(part, bytes(&data[start as usize..][..500]));
        }
    }
    // A truncated file is an error when it is opened, or when the array is.
    let length = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length - 3000).unwrap();
    let message = match kinds::open(&path) {
        Ok(container) => container.array("x").err().unwrap().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(message.contains("truncated"), "{message}");
}

#[test]
fn what_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| kinds::open(path).err().unwrap().to_string();
    let file = dir.path().join("a.h5ad");
    assert!(open(&file).contains("no such file"));
    fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    assert!(open(&file).contains("git lfs pull"));
    fs::write(&file, "").unwrap();
    assert!(open(&file).contains("empty"));
    assert!(open(dir.path()).contains("no zarr store"));
    fs::write(dir.path().join(".zmetadata"), r#"{"hello": "world"}"#).unwrap();
    assert!(open(dir.path()).contains(".zmetadata"));
}

pub type Codecs = Vec<Arc<dyn BytesToBytesCodecTraits>>;

/// Writes one zarr v3 array with zarrs; rows of one column, or of 37.
pub fn write_zarr(
    root: &Path,
    name: &str,
    shape: &[u64],
    shard: &[u64],
    chunk: Option<&[u64]>,
    codecs: Codecs,
    data: &[i32],
) {
    let store = Arc::new(FilesystemStore::new(root).unwrap());
    zarrs::group::GroupBuilder::new().build(Arc::clone(&store), "/").unwrap().store_metadata().unwrap();
    let mut builder = ArrayBuilder::new(shape.to_vec(), shard.to_vec(), data_type::int32(), -7_i32);
    builder.bytes_to_bytes_codecs(codecs);
    if let Some(chunk) = chunk {
        builder.subchunk_shape(chunk.to_vec());
    }
    let array = builder.build(store, &format!("/{name}")).unwrap();
    array.store_metadata().unwrap();
    if !data.is_empty() {
        array.store_array_subset(&array.subset_all(), data).unwrap();
    }
}

#[test]
fn zarr_chunks_and_shards() {
    let dir = tempfile::tempdir().unwrap();
    let data = values(20_011);
    let wide = values(101 * 37);
    let zstd = || -> Codecs { vec![Arc::new(ZstdCodec::new(3, false))] };
    let gzip = || -> Codecs { vec![Arc::new(GzipCodec::new(3).unwrap()), Arc::new(Crc32cCodec::new())] };
    let root = dir.path();
    write_zarr(root, "raw", &[20_011], &[777], None, vec![], &data);
    write_zarr(root, "zstd", &[20_011], &[777], None, zstd(), &data);
    write_zarr(root, "gzip", &[20_011], &[777], None, gzip(), &data);
    write_zarr(root, "shards", &[20_011], &[7000], Some(&[700]), zstd(), &data);
    write_zarr(root, "shards_raw", &[20_011], &[7000], Some(&[700]), vec![], &data);
    write_zarr(root, "wide", &[101, 37], &[16, 8], None, zstd(), &wide);
    write_zarr(root, "wide_raw", &[101, 37], &[16, 8], None, vec![], &wide);
    write_zarr(root, "wide_shards", &[101, 37], &[32, 24], Some(&[8, 8]), gzip(), &wide);
    write_zarr(root, "wide_shards_raw", &[101, 37], &[32, 24], Some(&[8, 8]), vec![], &wide);
    write_zarr(root, "unwritten", &[300], &[50], None, zstd(), &[]);
    write_zarr(root, "unwritten_shards", &[300], &[100], Some(&[50]), zstd(), &[]);
    let container = kinds::open(root).unwrap();
    for name in container.members("").unwrap() {
        let array = container.array(&name).unwrap();
        let whole = read(&array).unwrap();
        let expected = match name.as_str() {
            "unwritten" | "unwritten_shards" => vec![-7; 300],
            wide_name if wide_name.starts_with("wide") => wide.clone(),
            _ => data.clone(),
        };
        assert!(whole == bytes(&expected), "{name}");
        gathers_agree(&array, &whole);
        let store = Arc::new(FilesystemStore::new(root).unwrap());
        let theirs = zarrs::array::Array::open(store, &format!("/{name}")).unwrap();
        let theirs: Vec<i32> = theirs.retrieve_array_subset(&theirs.subset_all()).unwrap();
        assert!(theirs == expected, "{name}");
    }
    container.check_unchanged().unwrap();
    assert_eq!(container.identity().len(), 12);
}

/// Gathers decode parts of chunks that are larger than their codec's blocks.
#[test]
fn parts_of_large_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let (root, path) = (&dir.path().join("a.zarr"), &dir.path().join("a.h5ad"));
    let data = values(900_000);
    let blosc = || -> Codecs {
        let lz4 = BloscCompressor::LZ4;
        let level = 5.try_into().unwrap();
        vec![Arc::new(BloscCodec::new(lz4, level, Some(1 << 16), BloscShuffleMode::Shuffle, Some(4)).unwrap())]
    };
    let zstd = |checked| -> Codecs { vec![Arc::new(ZstdCodec::new(3, checked))] };
    write_zarr(root, "zstd", &[900_000], &[400_000], None, zstd(false), &data);
    write_zarr(root, "zstd_checked", &[900_000], &[400_000], None, zstd(true), &data);
    write_zarr(root, "zstd_shards", &[900_000], &[800_000], Some(&[400_000]), zstd(false), &data);
    write_zarr(root, "blosc", &[900_000], &[400_000], None, blosc(), &data);
    write_zarr(root, "blosc_wide", &[900, 1000], &[500, 600], None, blosc(), &data);
    {
        let file = hdf5::File::create(path).unwrap();
        let new = || file.new_dataset_builder().with_data(&data).chunk(400_000);
        new().blosc_lz4(5, true).create("blosc").unwrap();
        new().blosc_zstd(5, false).fletcher32().create("blosc_checked").unwrap();
    }
    for container in [kinds::open(root).unwrap(), kinds::open(path).unwrap()] {
        for name in container.members("").unwrap() {
            let array = container.array(&name).unwrap();
            assert!(read(&array).unwrap() == bytes(&data), "{name}");
            gathers_agree(&array, &bytes(&data));
        }
    }
}

#[test]
fn zarr_damage_and_staleness() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let data = values(4000);
    write_zarr(root, "s", &[4000], &[2000], Some(&[500]), vec![], &data);
    write_zarr(root, "c", &[4000], &[1000], None, vec![Arc::new(ZstdCodec::new(3, false))], &data);
    // The index of the second shard; the fourth chunk truncated.
    let shard = root.join("s/c/1");
    let length = fs::metadata(&shard).unwrap().len();
    File::options().write(true).open(&shard).unwrap().write_all_at(&[9], length - 30).unwrap();
    let chunk = root.join("c/c/3");
    let length = fs::metadata(&chunk).unwrap().len();
    File::options().write(true).open(&chunk).unwrap().set_len(length / 2).unwrap();

    std::thread::sleep(std::time::Duration::from_millis(20));
    let container = kinds::open(root).unwrap();
    let counters = Counters::default();
    let (shards, chunks) = (container.array("s").unwrap(), container.array("c").unwrap());
    assert_eq!(shards.chunk_shape, [500]);
    assert_eq!(shards.read_range(0, 2000, LIMIT, &counters).unwrap(), bytes(&data[..2000]));
    let error = shards.read_range(2000, 10, LIMIT, &counters).unwrap_err();
    assert!(matches!(&error, ArrayError::Damaged { cause, .. } if cause.contains("index")), "{error}");
    assert_eq!(chunks.read_range(0, 3000, LIMIT, &counters).unwrap(), bytes(&data[..3000]));
    assert!(matches!(chunks.read_range(3500, 1, LIMIT, &counters), Err(ArrayError::Damaged { chunk: 3, .. })));

    // A chunk written after the mount, then the whole array removed: neither is served as zeros.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let first = fs::read(root.join("c/c/0")).unwrap();
    fs::write(root.join("c/c/0"), first).unwrap();
    assert!(matches!(chunks.read_range(0, 1, LIMIT, &counters), Err(ArrayError::Stale { .. })));
    fs::remove_dir_all(root.join("c")).unwrap();
    assert!(matches!(chunks.read_range(1000, 1, LIMIT, &counters), Err(ArrayError::Stale { .. })));
    assert!(matches!(container.check_unchanged(), Err(ArrayError::Stale { .. })));
}

#[test]
fn zarr_v2_from_consolidated_metadata_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let array = serde_json::json!({"zarr_format": 2, "shape": [5], "chunks": [3], "dtype": ">i4", "compressor": null,
        "fill_value": 9, "order": "C", "filters": null});
    let text = serde_json::json!({"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<U3", "compressor": null,
        "fill_value": "", "order": "C", "filters": null});
    let metadata = serde_json::json!({"zarr_consolidated_format": 1, "metadata": {
        ".zgroup": {"zarr_format": 2}, ".zattrs": {"encoding-type": "anndata"},
        "obs/.zgroup": {"zarr_format": 2}, "obs/x/.zarray": array, "obs/x/.zattrs": {"a": 1},
        "obs/__categories/.zgroup": {"zarr_format": 2}, "obs/__categories/t/.zarray": text,
        "odd/.zarray": {"zarr_format": 2, "dtype": [["a", "<i4"]], "shape": [1]}}});
    fs::write(root.join(".zmetadata"), metadata.to_string()).unwrap();
    fs::create_dir_all(root.join("obs/x")).unwrap();
    fs::create_dir_all(root.join("obs/__categories/t")).unwrap();
    let stored: Vec<u8> = [1_i32, -2, 3].iter().flat_map(|v| v.to_be_bytes()).collect();
    fs::write(root.join("obs/x/0"), stored).unwrap();
    let points: Vec<u8> = "aé\0bcd".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    fs::write(root.join("obs/__categories/t/0"), points).unwrap();
    // Added after consolidating: zarr-python does not find these.
    fs::create_dir_all(root.join("obs/late")).unwrap();
    fs::write(root.join("obs/late/.zarray"), array.to_string()).unwrap();

    std::thread::sleep(std::time::Duration::from_millis(20));
    let container = kinds::open(root).unwrap();
    assert_eq!(container.members("").unwrap(), ["obs", "odd"]);
    assert_eq!(container.members("obs").unwrap(), ["__categories", "x"]);
    assert_eq!(container.attributes("obs/x").unwrap()["a"], 1);
    assert_eq!(container.strings("obs/__categories/t").unwrap(), ["aé", "bcd"]);
    let x = container.array("obs/x").unwrap();
    assert_eq!(read(&x).unwrap(), bytes(&[1, -2, 3, 9, 9]));
    assert_eq!(container.dtype_name("odd").unwrap(), "compound");
    assert!(matches!(container.array("odd"), Err(ArrayError::Unsupported { .. })));
    assert_eq!(container.kind("../escape").unwrap(), None);
    assert_eq!(container.kind("obs/late").unwrap(), None);
}
