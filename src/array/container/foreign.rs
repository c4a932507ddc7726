//! Files and directories that are no stores: describes them, and says how to convert them.
//!
//! Each format is a line in a table, by first bytes or by the content of a directory, so that the user of a wrong file learns which
//! program converts it.

use libdeflater::Decompressor;

use super::Candidate;
use crate::storage::Address;

/// First bytes, and a description with the remedy.
const MAGIC: &[(&[u8], &str)] = &[
    (b"version https://git-lfs.github.com/spec/", "it is a Git LFS pointer: run `git lfs pull`"),
    (b"/annex/objects/", ANNEX),
    (b"CDF\x01", NETCDF),
    (b"CDF\x02", NETCDF),
    (b"CDF\x05", NETCDF),
    (b"PAR1", "it is a Parquet file, a table and no AnnData: build an AnnData from it in Python and write_h5ad it"),
    (b"ARROW1", "it is an Arrow file, a table and no AnnData: build an AnnData from it in Python and write_h5ad it"),
    (b"%%MatrixMarket", MTX),
    (b"RDX2", RDATA),
    (b"RDX3", RDATA),
    (b"RDA3", RDATA),
    (b"X\n\0\0\0", RDS),
    (b"A\n", RDS),
    (b"B\n", RDS),
    (
        b"\x93NUMPY",
        "it is a NumPy array without obs and var: `anndata.AnnData(numpy.load(file)).write_h5ad(...)` makes a store",
    ),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"Rar!", "it is an RAR archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: run `unzstd` first"),
    (b"\xfd7zXZ\0", "it is compressed with xz (an .rds file may be): run `unxz` first, or convert it in R"),
    (b"BZh", "it is compressed with bzip2 (an .rds file may be): run `bunzip2` first, or convert it in R"),
    (b"SQLite format 3\0", "it is an SQLite database, and no AnnData"),
];

const NETCDF: &str = "it is a netCDF-3 file: convert it to .h5ad";
const ANNEX: &str = "it is a git-annex pointer: run `git annex get` on it";
const MTX: &str = "it is a Matrix Market file: `scanpy.read_10x_mtx(directory)` or `anndata.io.read_mtx(file)` reads it, \
                   write_h5ad writes the store";
const RDATA: &str = "it is an R data file (.RData): convert its object in R, as with anndataR's `write_h5ad`";
const RDS: &str =
    "it is an R object (.rds): convert it in R, as with anndataR's `write_h5ad` (Seurat, SingleCellExperiment)";
const PICKLE: &str = "it is a Python pickle: load it in Python and write_h5ad it";

/// Describes a candidate that no kind recognises, with the remedy.
pub fn told(candidate: &Candidate<'_>) -> String {
    match &candidate.object {
        None => directory(candidate.address),
        Some(_) => format!("not an HDF5 file; {}", file(&candidate.start)),
    }
}

fn file(start: &[u8]) -> String {
    if start.is_empty() {
        return "it is empty: copy or download it again".to_owned();
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        return gzip(start);
    }
    plain(start).unwrap_or_else(|| {
        "its start is unknown: it may be damaged, or of another format (.h5ad and .zarr are read)".to_owned()
    })
}

/// Describes uncompressed data by its first bytes.
fn plain(start: &[u8]) -> Option<String> {
    if let Some((_, told)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some((*told).to_owned());
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some("it is a tar archive: unpack it (`tar xf`) and name the store in it".to_owned());
    }
    let text = utf8(start)?;
    let first = text.trim_start();
    if first.starts_with('<') {
        return Some("it is HTML or XML, perhaps the error page of a failed download: download it again".to_owned());
    }
    if text.contains("outs:") && (text.contains("md5:") || text.contains("hash:")) {
        return Some("it is a DVC pointer: run `dvc pull` and name the file that it stands for".to_owned());
    }
    if first.starts_with("../") || first.starts_with(".git/annex/") {
        return Some(if first.contains("annex/objects/") { ANNEX.to_owned() } else { LINK_TEXT.to_owned() });
    }
    let line = text.lines().next().unwrap_or_default();
    if [',', '\t', ';'].iter().any(|&separator| line.contains(separator)) {
        return Some(
            "it is text in columns (CSV or TSV): `anndata.io.read_csv(file).write_h5ad(...)` makes a store of it"
                .to_owned(),
        );
    }
    Some(TEXT.to_owned())
}

const TEXT: &str = "it is text: perhaps a failed download";
const LINK_TEXT: &str = "it is text that names another file, perhaps a link that was copied as text: name that file";

/// The bytes as text, if they are UTF-8; the last character may be incomplete.
fn utf8(start: &[u8]) -> Option<&str> {
    match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(start.get(..error.valid_up_to())?).ok(),
        Err(_) => None,
    }
    .filter(|text| !text.contains('\0'))
}

/// Describes gzip-compressed data by what it decompresses to.
fn gzip(start: &[u8]) -> String {
    match plain(&inflated(start)) {
        Some(told) if told != TEXT => told,
        _ => "it is gzip-compressed: run `gunzip` first".to_owned(),
    }
}

/// The start of a truncated gzip stream, decompressed as far as possible.
fn inflated(start: &[u8]) -> Vec<u8> {
    if let Some(stored) = stored_block(start) {
        return stored.to_vec();
    }
    let mut bytes = vec![0; 4096];
    let _ = Decompressor::new().gzip_decompress(start, &mut bytes);
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

/// The content of an uncompressed first block, which the decoder does not return if it is truncated.
fn stored_block(start: &[u8]) -> Option<&[u8]> {
    let (flags, mut rest) = (*start.get(3)?, start.get(10..)?);
    if flags & 8 != 0 {
        rest = rest.get(rest.iter().position(|&byte| byte == 0)? + 1..)?;
    }
    let is_stored = flags & !8 == 0 && rest.first()? & 6 == 0;
    let len = usize::from(u16::from_le_bytes([*rest.get(1)?, *rest.get(2)?]));
    let content = rest.get(5..).filter(|_| is_stored)?;
    // The block is followed by a checksum, or another block.
    Some(content.get(..len).unwrap_or(content))
}

fn directory(address: &Address) -> String {
    let path = address.local_path().unwrap_or_default();
    let has = |name: &str| path.join(name).exists();
    let names: Vec<String> = std::fs::read_dir(&path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(10_000)
        .collect();
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    if ["__tiledb_group.tdb", "__group"].into_iter().any(has) || (has("__schema") && has("__fragments")) {
        return "a TileDB directory (SOMA): `tiledbsoma.io.to_h5ad(experiment, path, measurement_name=...)` writes an .h5ad"
            .to_owned();
    }
    if has("_versions") && (has("data") || has("_transactions")) {
        return "a Lance dataset, a table and no AnnData: build an AnnData from it in Python and write_h5ad it"
            .to_owned();
    }
    if any(&|name| name.starts_with("matrix.mtx")) {
        return "a 10x directory of Matrix Market files: `scanpy.read_10x_mtx(directory).write_h5ad(...)` makes a store"
            .to_owned();
    }
    if any(&|name| name == "dataset_info.json" || name.ends_with(".parquet")) {
        return "a directory of tables (Parquet, Hugging Face datasets), no AnnData: build one in Python and write_h5ad it"
            .to_owned();
    }
    if any(&|name| name == "se.rds" || name == "assays.h5") {
        return "an R object in HDF5 (saveHDF5SummarizedExperiment): convert it in R, as with anndataR's `write_h5ad`"
            .to_owned();
    }
    "a directory, but no zarr store (it has no zarr.json, .zgroup, .zarray or .zmetadata); name the store itself, or an \
     .h5ad file"
        .to_owned()
}

/// The remedy for a symbolic link whose target does not exist; `None` for other paths.
pub fn dangling(address: &Address) -> Option<String> {
    let path = address.local_path()?;
    let target = std::fs::read_link(&path).ok()?;
    let text = target.to_string_lossy();
    Some(if text.contains("annex/objects/") {
        format!("a git-annex link to content that is not here: run `git annex get {}`", path.display())
    } else if text.contains(".dvc/cache") || text.contains("/files/md5/") {
        "a link into the DVC cache to content that is not here: run `dvc pull`".to_owned()
    } else {
        format!("a link to {}, which does not exist", target.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_files_are_told_by_what_is_in_them() {
        let gzipped = |bytes: &[u8]| {
            let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
            let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
            let len = compressor.gzip_compress(bytes, &mut out).unwrap();
            out.truncate(len.min(4096));
            out
        };
        // Long ones, which are truncated.
        let noise: Vec<u8> = (0..100_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let tar: Vec<u8> = [vec![b'a'; 257], b"ustar\0".to_vec(), vec![0; 300], noise.clone()].concat();
        for (bytes, word) in [
            ([b"X\n\0\0\0\x03".as_slice(), &noise].concat(), "R object"),
            (b"RDX3\nX\n".to_vec(), ".RData"),
            (tar, "tar archive"),
            (b"gene,a,b\n1,2,3\n".to_vec(), "CSV"),
            ([b"%%MatrixMarket matrix coordinate\n".as_slice(), &noise].concat(), "Matrix Market"),
            ([b"\x89HDF\r\n\x1a\n".as_slice(), &noise].concat(), "gunzip"),
            (b"hello".to_vec(), "gunzip"),
        ] {
            let told = file(&gzipped(&bytes));
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(file(&[0x1f, 0x8b, 8]).contains("gunzip"));
    }
}
