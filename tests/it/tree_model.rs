//! A model of a mount in the simplest code: the kind of each path, the entries of each directory, the content of each file.
//!
//! Names follow docs/semantics.md, independently of the implementation. The content of files is read sequentially from a second mount
//! of the same store; `exact` compares that with other readers.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::support::{Mount, list};

/// A path: its shortest spelling below the mount, and its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Directory,
    File,
    /// A file of `.shufflefs`, with different content at each read.
    Live,
}

/// A path outside the mount, which the model does not describe.
pub const OUTSIDE: i32 = -1;

/// Entries of a directory, in order: name, type, inode, next offset.
pub type Listing = Vec<(Vec<u8>, u8, u64, i64)>;

pub struct TreeModel {
    /// Name and batches of each view; a single view has no name.
    views: Vec<(Option<String>, u64)>,
    /// Whether it is the tree of one rank, without rank directories.
    is_of_rank: bool,
    epochs: u64,
    extensions: Vec<String>,
    categories: BTreeSet<String>,
    truth: Mount,
    contents: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    listings: Mutex<HashMap<String, Arc<Listing>>>,
}

const FORMATS: [&str; 9] = ["npz", "safetensors", "npy", "h5ad", "tsv", "arrow", "parquet", "tar", "tfrecord"];
const CONTROL: [&str; 5] = ["stats.json", "stats.prom", "options.json", "log", "advice"];

/// The number in a text, if it has the canonical form: at least this many digits, without further leading zeros.
fn number(text: &str, digits: usize) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (format!("{value:0digits$}") == text).then_some(value)
}

impl TreeModel {
    /// The model of a mount of this store with these views (none: one without a name), batches and listed epochs.
    pub fn of(truth: Mount, views: &[(&str, u64)], is_of_rank: bool, epochs: u64) -> TreeModel {
        let named = |&(name, batches): &(&str, u64)| ((!name.is_empty()).then(|| name.to_owned()), batches);
        let readme = fs::read_to_string(truth.join("README.txt")).unwrap();
        let extensions = FORMATS.iter().filter(|format| !readme.contains(&format!("  no .{format}: ")));
        TreeModel {
            views: views.iter().map(named).collect(),
            is_of_rank,
            epochs,
            extensions: extensions.map(|format| (*format).to_owned()).collect(),
            categories: list(&truth.join("categories")).into_iter().collect(),
            truth,
            contents: Mutex::default(),
            listings: Mutex::default(),
        }
    }

    /// The entry of a path below the mount, or the errno.
    pub fn resolve(&self, path: &[u8]) -> Result<Entry, i32> {
        let mut here: Vec<String> = Vec::new();
        let mut kind = Kind::Directory;
        for part in path.split(|&byte| byte == b'/') {
            if kind != Kind::Directory {
                return Err(libc::ENOTDIR);
            }
            match part {
                b"" | b"." => {}
                b".." => {
                    here.pop().ok_or(OUTSIDE)?;
                }
                name => {
                    let name = std::str::from_utf8(name).map_err(|_| libc::ENOENT)?;
                    kind = self.child(&here, name).ok_or(libc::ENOENT)?;
                    here.push(name.to_owned());
                }
            }
        }
        Ok(Entry { path: here.join("/"), kind })
    }

    fn child(&self, parent: &[String], name: &str) -> Option<Kind> {
        let mut parent: Vec<&str> = parent.iter().map(String::as_str).collect();
        match parent[..] {
            [".shufflefs"] => return CONTROL.contains(&name).then_some(Kind::Live),
            ["categories"] => return self.categories.contains(name).then_some(Kind::File),
            [] => match name {
                "README.txt" | "dataset.json" | "var.tsv" => return Some(Kind::File),
                "categories" | ".shufflefs" => return Some(Kind::Directory),
                _ => {}
            },
            _ => {}
        }
        let view = match &self.views[..] {
            [(None, batches)] => *batches,
            views => {
                let view = |name: &str| views.iter().find(|(view, _)| view.as_deref() == Some(name));
                match parent.first() {
                    None => return view(name).map(|_| Kind::Directory),
                    Some(first) => {
                        let batches = view(first)?.1;
                        parent.remove(0);
                        batches
                    }
                }
            }
        };
        self.below_view(view, &parent, name)
    }

    fn below_view(&self, batches: u64, parent: &[&str], name: &str) -> Option<Kind> {
        let epoch = |name: &str| number(name.strip_prefix("epoch-")?, 4);
        match parent {
            [] => {
                if let Some(rank) = name.strip_prefix("rank-") {
                    let (index, of) = rank.split_once("-of-")?;
                    let (index, of) = (number(index, 1)?, number(of, 1)?);
                    return (index < of && !self.is_of_rank).then_some(Kind::Directory);
                }
                if name == "stored.h5ad" && !self.is_of_rank {
                    return Some(Kind::File);
                }
                self.epoch_or_its_file(name)
            }
            [rank] if rank.starts_with("rank-") => self.epoch_or_its_file(name),
            [.., directory] => {
                epoch(directory)?;
                let of = match parent {
                    [rank, _] => rank.rsplit_once('-')?.1.parse().ok()?,
                    _ => 1,
                };
                let (batch, extension) = name.strip_prefix("batch-")?.split_once('.')?;
                let exists = number(batch, 6)? < batches / of && self.extensions.iter().any(|known| known == extension);
                exists.then_some(Kind::File)
            }
        }
    }

    fn epoch_or_its_file(&self, name: &str) -> Option<Kind> {
        let name = name.strip_prefix("epoch-")?;
        match name.strip_suffix(".h5ad") {
            Some(epoch) => number(epoch, 4).map(|_| Kind::File),
            None => number(name, 4).map(|_| Kind::Directory),
        }
    }

    /// The names that a directory lists.
    fn names(&self, directory: &str) -> BTreeSet<String> {
        let parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        let epochs = || (0..self.epochs).map(|epoch| format!("epoch-{epoch:04}"));
        let named = self.views[0].0.is_some();
        let own = |name: &str| name.to_owned();
        match parts[..] {
            [] => {
                let fixed = ["README.txt", "categories", "dataset.json", "var.tsv"].map(own);
                let views = self.views.iter().filter_map(|(name, _)| name.clone());
                fixed.into_iter().chain(views).chain(epochs().filter(|_| !named)).collect()
            }
            ["categories"] => self.categories.clone(),
            [".shufflefs"] => CONTROL.map(own).into(),
            [_] if named => epochs().collect(),
            [.., last] if last.starts_with("rank-") => epochs().collect(),
            [.., _] => {
                let batches = self.views.iter().find(|(name, _)| name.as_deref() == Some(parts[0]));
                let rank = parts.iter().find_map(|part| part.strip_prefix("rank-")?.rsplit_once('-'));
                let of = rank.map_or(1, |(_, of)| of.parse().unwrap());
                let batches = batches.unwrap_or(&self.views[0]).1 / of;
                (0..batches).map(|batch| format!("batch-{batch:06}.npz")).collect()
            }
        }
    }

    /// The content of a file.
    pub fn content(&self, path: &str) -> Arc<Vec<u8>> {
        let mut contents = self.contents.lock().unwrap();
        let read = || Arc::new(fs::read(self.truth.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
        contents.entry(path.to_owned()).or_insert_with(read).clone()
    }

    /// The entries of a directory, `.` and `..` first: the names of the model in the order of the other mount.
    pub fn listing(&self, path: &str) -> Arc<Listing> {
        let mut listings = self.listings.lock().unwrap();
        let read = || {
            let found = entries(&self.truth.join(path));
            let names: BTreeSet<String> =
                found.iter().map(|entry| String::from_utf8(entry.0.clone()).unwrap()).collect();
            let dots = [".", ".."].map(str::to_owned);
            assert_eq!(names, self.names(path).into_iter().chain(dots).collect(), "the names in `{path}`");
            Arc::new(found)
        };
        listings.entry(path.to_owned()).or_insert_with(read).clone()
    }
}

/// All entries of a directory.
fn entries(path: &Path) -> Listing {
    use std::os::fd::AsRawFd;
    let directory = fs::File::open(path).unwrap();
    let mut all = Vec::new();
    loop {
        let more = next_entries(directory.as_raw_fd(), 32 << 10).unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// The result of getdents64(2) with a buffer of this size, or its errno.
pub fn next_entries(directory: i32, size: usize) -> Result<Listing, i32> {
    let mut buffer = vec![0u8; size];
    // SAFETY: the buffer has this length.
    let got = unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer.as_mut_ptr(), size) };
    if got < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
    }
    let mut rest = &buffer[..got as usize];
    let mut all = Vec::new();
    while !rest.is_empty() {
        // struct linux_dirent64: inode, offset, length, type, name.
        let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
        let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
        let name = rest[19..len].split(|&byte| byte == 0).next().unwrap().to_vec();
        all.push((name, rest[18], word(0), word(8) as i64));
        rest = &rest[len..];
    }
    Ok(all)
}
