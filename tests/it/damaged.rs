//! Cases of damage: which bytes of which store change, what must then be served, and what is served.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde_json::Value;
use shufflefs::anndata::names::MatrixName;
use shufflefs::engine::ImageKey;
use shufflefs::format::Extension;
use shufflefs::plan::Sampling;
use shufflefs::session::spec::ViewSpec;
use shufflefs::session::{Session, Spec};

use crate::area::patience;

/// The outcome of a case, as one byte of the report.
pub const REFUSED: u8 = b'r';
pub const RIGHT: u8 = b'=';
pub const SOME_FAILED: u8 = b'e';
/// Other values, which nothing could detect.
pub const DIFFERS: u8 = b'd';
pub const CRASH: u8 = b'c';
pub const HANG: u8 = b'h';
/// An outcome that must not occur.
pub const WRONG: u8 = b'W';

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// A run of bytes of an element in a file.
struct Extent {
    element: String,
    start: u64,
    len: u64,
    noticed: bool,
}

/// A store, its files in memory, and the positions of its elements.
pub struct Subject {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Elements in the one file of an h5ad or an archive; other bytes are metadata.
    extents: Vec<Extent>,
    /// The suffix of that file's name; None for a directory.
    file: Option<&'static str>,
    /// Whether damage to X and layers of a zarr is detected.
    noticed: bool,
    references: BTreeMap<(usize, usize), Served>,
}

/// What was damaged.
#[derive(Debug)]
#[allow(dead_code)] // Printed by Debug.
pub struct Damage {
    file: usize,
    at: usize,
    what: String,
    /// Damaged elements, and whether the damage is detected.
    touched: Vec<(String, bool)>,
    /// Metadata were damaged, so any element may be affected.
    metadata: bool,
}

/// The result of each file that was read.
type Served = BTreeMap<(u64, &'static str), Result<Vec<u8>, String>>;

const MATRICES: [&str; 2] = ["X", "layers/dense"];
const COLUMNS: [&str; 7] = ["cell_type", "cluster", "n", "flag", "passage", "barcode", "note"];

fn walk(root: &Path, at: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut names: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            files.push((path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
}

/// Whether Fletcher-32, the checksum of HDF5, is the same: it counts modulo 65535, so a word of ones is a word of zeros.
fn same_to_fletcher(old: &[u8], new: &[u8], extents: &[Extent]) -> bool {
    let words = |bytes: &[u8], extent: &Extent| -> Vec<u16> {
        let stored = &bytes[extent.start as usize..][..extent.len as usize];
        stored.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]) % u16::MAX).collect()
    };
    extents.iter().all(|extent| words(old, extent) == words(new, extent))
}

impl Subject {
    pub fn open(store: &Path, work: &Path) -> Subject {
        let is_archive = store.extension().is_some_and(|extension| extension == "zip");
        let file = store.is_file().then_some(if is_archive { "zarr.zip" } else { "h5ad" });
        let (mut files, mut extents) = (Vec::new(), Vec::new());
        if file.is_some() {
            files.push((PathBuf::new(), fs::read(store).unwrap()));
            let map: Value = serde_json::from_slice(&fs::read(format!("{}.json", store.display())).unwrap()).unwrap();
            for extent in map.as_array().unwrap() {
                extents.push(Extent {
                    element: extent[0].as_str().unwrap().to_owned(),
                    start: extent[1].as_u64().unwrap(),
                    len: extent[2].as_u64().unwrap(),
                    noticed: extent[3].as_bool().unwrap(),
                });
            }
        } else {
            walk(store, store, &mut files);
        }
        let noticed = store.file_name().unwrap().to_str().unwrap().starts_with("tiny");
        let mut subject = Subject { files, extents, file, noticed, references: BTreeMap::new() };
        for x in 0..2 {
            for named in 0..2 {
                let path = subject.write(None, work, 0);
                let served = serve(&path, x, named == 1, &|| {}).unwrap();
                assert!(served.len() == 6 && served.values().all(Result::is_ok), "{served:?}");
                subject.references.insert((x, named), served);
            }
        }
        subject
    }

    /// Case `number`; the same on every run.
    pub fn damage(&self, number: u64) -> (Damage, Vec<u8>) {
        let mut random = Random::new(number);
        let file = random.below(self.files.len() as u64) as usize;
        let mut bytes = self.files[file].1.clone();
        let len = bytes.len();
        // Half of the changes are to data, which are a tenth of the bytes of an h5ad.
        let at = match self.extents.get(random.below(2 * self.extents.len() as u64) as usize) {
            Some(extent) => (extent.start + random.below(extent.len)) as usize,
            None => random.below(len as u64) as usize,
        };
        let span = |want: usize| want.min(len - at);
        let (what, changed) = match random.below(9) {
            0..=2 => {
                bytes[at] ^= 1 << random.below(8);
                ("bit", 1)
            }
            3 => {
                bytes[at] = [0, 0xff, 0x7f, random.below(256) as u8][random.below(4) as usize];
                ("byte", 1)
            }
            4 => {
                bytes[at..at + span(8)].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
                ("noise", span(8))
            }
            5 => {
                bytes[at..at + span(200)].fill(0);
                ("zeros", span(200))
            }
            6 => {
                bytes[at..at + span(16)].fill(0xff);
                ("ones", span(16))
            }
            7 => {
                // Exchanges two parts, each of which stays intact.
                let other = match self.extents.get(random.below(2 * self.extents.len() as u64) as usize) {
                    Some(extent) => extent.start as usize,
                    None => random.below(len as u64) as usize,
                };
                let size = (random.below(300) as usize).min(len - at.max(other)).min(at.abs_diff(other));
                (0..size).for_each(|i| bytes.swap(at + i, other + i));
                let mut damage = self.touched(file, at, size, "swap");
                let there = self.touched(file, other, size, "swap");
                damage.metadata |= there.metadata;
                damage.touched.extend(there.touched);
                damage.touched.iter_mut().for_each(|(_, noticed)| *noticed = false);
                return (damage, bytes);
            }
            _ => {
                bytes.truncate(at);
                ("cut", len - at)
            }
        };
        let mut damage = self.touched(file, at, changed, what);
        if what != "cut" {
            let blind = same_to_fletcher(&self.files[file].1, &bytes, &self.extents);
            damage.touched.iter_mut().for_each(|(_, noticed)| *noticed &= !blind);
        }
        (damage, bytes)
    }

    fn touched(&self, file: usize, at: usize, changed: usize, what: &str) -> Damage {
        let cut = what == "cut";
        let mut damage = Damage { file, at, what: what.to_owned(), touched: Vec::new(), metadata: false };
        if self.file.is_some() {
            let (from, to) = (at as u64, (at + changed) as u64);
            let mut covered = 0;
            for extent in &self.extents {
                let (start, end) = (extent.start.max(from), (extent.start + extent.len).min(to));
                if start < end {
                    covered += end - start;
                    damage.touched.push((extent.element.clone(), extent.noticed || cut));
                }
            }
            if cut {
                // The file's length is in its superblock, an archive's directory at its end: truncation anywhere is detected.
                damage.touched.push((String::new(), true));
            } else {
                damage.metadata = covered < to - from;
            }
            return damage;
        }
        let path = self.files[file].0.to_str().unwrap();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let metadata = name.starts_with('.') || name == "zarr.json";
        let parts: Vec<&str> = folder.split('/').collect();
        let end = parts.iter().position(|part| *part == "c").unwrap_or(parts.len());
        let element = parts[..end].join("/");
        let ours = element.starts_with("X") || element.starts_with("layers/dense");
        damage.touched.push((element, cut || (ours && self.noticed && !metadata)));
        damage
    }

    /// Writes the store to `work`, under a new name each time: libhdf5 identifies files by their inode.
    fn write(&self, change: Option<(usize, &[u8])>, work: &Path, number: u64) -> PathBuf {
        let path = work.join(self.file.map_or("case.zarr".to_owned(), |end| format!("case-{number}.{end}")));
        // A zarr is complete except the first time: `run` restores what it damaged.
        let there = path.exists();
        for (index, (file, bytes)) in self.files.iter().enumerate() {
            let changed = change.filter(|change| change.0 == index).map(|change| change.1);
            if there && changed.is_none() {
                continue;
            }
            let here = if self.file.is_some() { path.clone() } else { path.join(file) };
            fs::create_dir_all(here.parent().unwrap()).unwrap();
            fs::write(here, changed.unwrap_or(bytes)).unwrap();
        }
        path
    }

    /// Runs a case; returns its outcome, and a message if it must not occur.
    ///
    /// Calls `opened` once the store is open: a later crash is not the library's.
    pub fn run(&self, number: u64, work: &Path, opened: &dyn Fn()) -> (u8, String) {
        let (damage, bytes) = self.damage(number);
        let (x, named) = ((number % 2) as usize, (number / 2 % 2) as usize);
        let path = self.write(Some((damage.file, &bytes)), work, number);
        let served = catch_unwind(AssertUnwindSafe(|| serve(&path, x, named == 1, opened)));
        if self.file.is_some() {
            let _ = fs::remove_file(&path);
        } else {
            fs::write(path.join(&self.files[damage.file].0), &self.files[damage.file].1).unwrap();
        }
        let (outcome, why) = match served {
            Err(_) => (WRONG, "panicked".to_owned()),
            Ok(Err(line)) => match self.may_refuse(&damage, x) {
                true if !line.contains('\n') => (REFUSED, String::new()),
                _ => (WRONG, format!("refused: {line}")),
            },
            Ok(Ok(served)) => self.compare(&damage, &served, (x, named)),
        };
        (outcome, if outcome == WRONG { format!("case {number}: {damage:?}: {why}") } else { String::new() })
    }

    /// Whether the damage may prevent the mount; damage to the values of a matrix may not.
    fn may_refuse(&self, damage: &Damage, x: usize) -> bool {
        let values = |element: &str| match x {
            0 => element == "X/data" || element == "X/indices",
            _ => element == "layers/dense",
        };
        let is_metadata_file = self.file.is_none() && {
            let name = self.files[damage.file].0.file_name().and_then(|name| name.to_str()).unwrap_or("");
            name.starts_with('.') || name == "zarr.json"
        };
        damage.metadata || is_metadata_file || damage.touched.iter().any(|(element, _)| !values(element))
    }

    fn compare(&self, damage: &Damage, served: &Served, options: (usize, usize)) -> (u8, String) {
        let mut outcome = RIGHT;
        for (key, reference) in &self.references[&options] {
            let Some(got) = served.get(key) else {
                if damage.metadata || damage.touched.iter().any(|(_, noticed)| !noticed) {
                    outcome = DIFFERS;
                    continue;
                }
                return (WRONG, format!("{key:?} is not there"));
            };
            let parts: &[&str] = match key.1 {
                "npy" => &MATRICES[options.0..=options.0],
                "tsv" => &["obs"],
                _ => &[MATRICES[options.0], "obs"],
            };
            let concerns =
                |element: &str| parts.iter().any(|part| element.starts_with(part) || part.starts_with(element));
            let concerned: Vec<&(String, bool)> =
                damage.touched.iter().filter(|(element, _)| concerns(element)).collect();
            let blind = damage.metadata || concerned.iter().any(|(_, noticed)| !noticed);
            match (got, reference) {
                (Ok(got), Ok(reference)) if got == reference => {}
                (Ok(_), _) if blind => outcome = DIFFERS,
                (Ok(_), _) => return (WRONG, format!("other bytes in {key:?}")),
                (Err(line), _) if line.contains("panicked") || line.contains("internal") || line.contains("hang") => {
                    return (WRONG, format!("{key:?}: {line}"));
                }
                (Err(_), _) if damage.metadata || !concerned.is_empty() => {
                    outcome = if outcome == DIFFERS { outcome } else { SOME_FAILED };
                }
                (Err(line), _) => return (WRONG, format!("{key:?} needs nothing of it: {line}")),
            }
        }
        (outcome, String::new())
    }
}

/// Opens a store as a mount does and reads two batches of it in three formats.
fn serve(path: &Path, x: usize, named: bool, opened: &dyn Fn()) -> Result<Served, String> {
    let obs = named.then(|| COLUMNS.map(str::to_owned).to_vec());
    let sampling = Sampling { batch_size: 24, block_size: 4, fetch_factor: 1, seed: 1, drop_last: false };
    let spec = Spec {
        views: vec![ViewSpec::sampled(sampling)],
        x: MatrixName::at(MATRICES[x]).unwrap(),
        obs,
        memory: Some(64 << 20),
        threads: 1,
        timeout: patience() / 2,
        ..Spec::of(vec![path.to_owned()], path.with_file_name("index"))
    };
    let session = Session::builder(spec).unprobed().metadata_limit(1 << 30).derive();
    let session = session.map_err(|error| error.to_string())?;
    opened();
    let batches = session.views[0].plan.batches().min(2);
    let engine = session.engine().map_err(|error| error.to_string())?;
    let mut served = Served::new();
    for batch in 0..batches {
        for name in ["npy", "tsv", "npz"] {
            let extension = Extension::from_name(name).expect("a format");
            let key = ImageKey::file(0, 0, batch, extension);
            let Some(size) = engine.size(key).filter(|&size| size < 1 << 28) else { continue };
            let (sender, receiver) = mpsc::channel();
            let reply = Box::new(move |bytes: Result<&[u8], &_>| {
                let _ = sender
                    .send(bytes.map(<[u8]>::to_vec).map_err(|error: &shufflefs::engine::ReadError| error.to_string()));
            });
            engine.read(key, None, (0, size as usize), None, reply);
            let got = receiver.recv_timeout(patience()).unwrap_or(Err("hang".to_owned()));
            if let Ok(bytes) = &got {
                assert_eq!(bytes.len() as u64, size, "{name} of batch {batch}");
            }
            served.insert((batch, name), got);
        }
    }
    Ok(served)
}
