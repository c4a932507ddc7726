//! An epoch as a directory of files (`epoch-0000.zarr/`), laid out from its row and value counts alone.
//!
//! Each folder and file has a number, which is part of its inode number: 0 is the directory itself, then its folders and files in the order
//! of addition, then the files of each run. A run is many similar files, so that a directory of a million chunks costs as little as one of
//! a
//! few.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Field, Repr};
use crate::number::as_usize;

use super::{Content, Extension, FileShape, Segment, Segments};

/// A format whose epochs are directories.
pub trait DirectoryFormat: Send + Sync {
    /// The directory of an epoch with this shape.
    ///
    /// # Errors
    /// Why the format cannot have it.
    fn directory(&self, shape: &FileShape<'_>) -> Result<Directory, String>;
}

/// A directory format's writer, or why it cannot hold the table.
pub type OpenedDirectory = Result<Box<dyn DirectoryFormat>, String>;

/// The content of a file in a directory.
#[derive(Clone)]
pub enum FileContent {
    /// A layout in segments.
    Segments(Arc<Segments>),
    /// Made from items of a field in memory, on which its size depends.
    Made(Made),
    /// A batch of the epoch, by position, as a file of this format.
    Batch(Extension, u64),
    /// An index with an entry for each batch.
    Index(Arc<BatchIndex>),
}

/// A document with an entry for each batch of an epoch, in order, separated by commas. An entry contains the size of its batch, and all are
/// padded with blanks to the same length. So the size of the document is known before any batch is laid out, and reading a part of it lays
/// out
/// the batches of that part only.
pub struct BatchIndex {
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    pub batches: u64,
    /// The format of the files that it lists.
    pub format: Extension,
    /// Makes the entry of a batch from `columns`, its position, rows and bytes.
    pub entry: fn(&str, u64, u64, u64) -> String,
    /// What all entries share: the first argument of `entry`.
    pub columns: String,
}

impl BatchIndex {
    /// Bytes of an entry and its separator.
    pub fn entry_len(&self) -> u64 {
        (self.entry)(&self.columns, u64::MAX, u64::MAX, u64::MAX).len() as u64 + 1
    }

    pub fn size(&self) -> u64 {
        (self.head.len() + self.tail.len()) as u64 + self.batches * self.entry_len()
    }

    /// Some bytes of it. `shape` gives the rows and bytes of a batch; if that fails, so does this.
    pub fn read(&self, range: Range<u64>, shape: impl Fn(u64) -> Option<(u64, u64)>) -> Option<Vec<u8>> {
        let (head, len) = (self.head.len() as u64, self.entry_len());
        let entries = head..head + self.batches * len;
        let part = |bytes: &[u8], start: u64| {
            let clipped = |at: u64| as_usize(at.saturating_sub(start).min(bytes.len() as u64));
            bytes[clipped(range.start)..clipped(range.end)].to_vec()
        };
        let mut out = part(&self.head, 0);
        let first = range.start.max(entries.start) - head;
        let end = range.end.min(entries.end).saturating_sub(head);
        for batch in first / len..end.div_ceil(len) {
            let (rows, bytes) = shape(batch)?;
            let mut entry = (self.entry)(&self.columns, batch, rows, bytes).into_bytes();
            entry.resize(as_usize(len) - 1, b' ');
            entry.push(if batch + 1 < self.batches { b',' } else { b' ' });
            out.extend(part(&entry, head + batch * len));
        }
        out.extend(part(&self.tail, entries.end));
        Some(out)
    }
}

/// A file made from items of a field.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub field: Field,
    pub repr: Repr,
    /// The range of items.
    pub items: (u64, u64),
    /// Number of items in the file: those beyond the field are empty.
    pub padded: u64,
    /// Makes the file from consecutive items in the representation `repr`.
    pub make: fn(repr: Repr, items: &[u8], padded: u64) -> Vec<u8>,
}

impl FileContent {
    /// Known content.
    pub fn bytes(bytes: Vec<u8>) -> FileContent {
        let len = bytes.len() as u64;
        let segment = Segment { start: 0, len, from: 0, content: Content::Bytes(bytes) };
        FileContent::Segments(Arc::new(Segments::new(len, vec![segment])))
    }

    /// The fields in it, and their representation.
    fn fields(&self) -> Vec<(Field, Repr)> {
        match self {
            FileContent::Made(made) => vec![(made.field, made.repr)],
            FileContent::Segments(segments) => segments.fields().collect(),
            // Batches are images of their own.
            FileContent::Batch(..) | FileContent::Index(_) => Vec::new(),
        }
    }
}

/// Numbered files in one folder: `PREFIX`, a number from 0, `SUFFIX`.
pub struct Run {
    pub prefix: String,
    /// Minimum digits of the number.
    pub digits: usize,
    pub suffix: String,
    pub count: u64,
    /// The content of the i-th file.
    pub file: Box<dyn Fn(u64) -> FileContent + Send + Sync>,
}

impl Run {
    fn name(&self, i: u64) -> String {
        format!("{}{i:0width$}{}", self.prefix, self.suffix, width = self.digits)
    }

    fn find(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        let i = number.parse().ok().filter(|&i| i < self.count)?;
        (self.name(i) == name).then_some(i)
    }
}

/// A node of a directory.
pub enum Inside<'a> {
    Folder,
    File(&'a FileContent),
    /// A file of a run.
    Numbered(FileContent),
}

/// The virtual directory of one epoch.
pub struct Directory {
    items: Vec<Item>,
    /// For each run, the number of its first file, and its folder.
    runs: Vec<(u64, usize)>,
    numbers: u64,
}

struct Item {
    name: String,
    parent: usize,
    kind: ItemKind,
}

enum ItemKind {
    Folder(Folder),
    File(FileContent),
}

#[derive(Default)]
struct Folder {
    items: Vec<usize>,
    run: Option<(u64, Run)>,
}

/// The number of the directory itself.
pub const TOP: usize = 0;

impl Default for Directory {
    fn default() -> Directory {
        let top = Item { name: String::new(), parent: TOP, kind: ItemKind::Folder(Folder::default()) };
        Directory { items: vec![top], runs: Vec::new(), numbers: 1 }
    }
}

impl Directory {
    /// Adds a folder; returns its number.
    pub fn add_folder(&mut self, parent: usize, name: &str) -> usize {
        self.add(parent, name, ItemKind::Folder(Folder::default()))
    }

    /// Adds a file.
    pub fn add_file(&mut self, parent: usize, name: &str, content: FileContent) {
        self.add(parent, name, ItemKind::File(content));
    }

    /// Adds a run of numbered files; a folder can have one.
    pub fn add_run(&mut self, parent: usize, run: Run) {
        if let Some(Item { kind: ItemKind::Folder(folder), .. }) = self.items.get_mut(parent) {
            folder.run = Some((0, run));
        }
    }

    fn add(&mut self, parent: usize, name: &str, kind: ItemKind) -> usize {
        let number = self.items.len();
        self.items.push(Item { name: name.to_owned(), parent, kind });
        if let Some(Item { kind: ItemKind::Folder(folder), .. }) = self.items.get_mut(parent) {
            folder.items.push(number);
        }
        number
    }

    /// Numbers the files of runs; nothing can be added afterwards.
    pub fn sealed(mut self) -> Directory {
        self.numbers = self.items.len() as u64;
        for (number, item) in self.items.iter_mut().enumerate() {
            let ItemKind::Folder(Folder { run: Some((first, run)), .. }) = &mut item.kind else { continue };
            *first = self.numbers;
            self.runs.push((*first, number));
            self.numbers += run.count;
        }
        self
    }

    /// Upper bound of the numbers in use.
    pub fn numbers(&self) -> u64 {
        self.numbers
    }

    /// The node with a number.
    pub fn get(&self, number: u64) -> Option<Inside<'_>> {
        if let Some(item) = usize::try_from(number).ok().and_then(|number| self.items.get(number)) {
            return Some(match &item.kind {
                ItemKind::Folder(_) => Inside::Folder,
                ItemKind::File(content) => Inside::File(content),
            });
        }
        let (first, run) = self.run_of(number)?;
        Some(Inside::Numbered((run.file)(number - first)))
    }

    /// The folder of a node; the directory itself is its own.
    pub fn parent(&self, number: u64) -> u64 {
        match usize::try_from(number).ok().and_then(|number| self.items.get(number)) {
            Some(item) => item.parent as u64,
            None => self.folder_of(number).unwrap_or(TOP) as u64,
        }
    }

    /// Number of entries in a folder.
    pub fn len(&self, folder: u64) -> u64 {
        let Some(folder) = self.folder(folder) else { return 0 };
        folder.items.len() as u64 + folder.run.as_ref().map_or(0, |(_, run)| run.count)
    }

    /// Number of folders in a folder.
    pub fn folders(&self, folder: u64) -> u64 {
        let is_folder = |&&item: &&usize| matches!(self.items[item].kind, ItemKind::Folder(_));
        self.folder(folder).map_or(0, |folder| folder.items.iter().filter(is_folder).count() as u64)
    }

    /// The i-th entry of a folder.
    pub fn entry(&self, folder: u64, i: u64) -> Option<(String, u64)> {
        let folder = self.folder(folder)?;
        if let Some(&item) = usize::try_from(i).ok().and_then(|i| folder.items.get(i)) {
            return Some((self.items[item].name.clone(), item as u64));
        }
        let (first, run) = folder.run.as_ref()?;
        let i = i - folder.items.len() as u64;
        (i < run.count).then(|| (run.name(i), first + i))
    }

    /// The number of the entry with a name.
    pub fn lookup(&self, folder: u64, name: &str) -> Option<u64> {
        let folder = self.folder(folder)?;
        if let Some(item) = folder.items.iter().find(|&&item| self.items[item].name == name) {
            return Some(*item as u64);
        }
        let (first, run) = folder.run.as_ref()?;
        Some(first + run.find(name)?)
    }

    /// The fields in its files, and their representations.
    pub fn fields(&self) -> Vec<(Field, Repr)> {
        let mut all = Vec::new();
        for item in &self.items {
            match &item.kind {
                ItemKind::File(content) => all.extend(content.fields()),
                ItemKind::Folder(Folder { run: Some((_, run)), .. }) if run.count > 0 => {
                    all.extend((run.file)(0).fields());
                }
                ItemKind::Folder(_) => {}
            }
        }
        all
    }

    fn folder(&self, number: u64) -> Option<&Folder> {
        match &self.items.get(usize::try_from(number).ok()?)?.kind {
            ItemKind::Folder(folder) => Some(folder),
            ItemKind::File(_) => None,
        }
    }

    /// The folder of a file of a run.
    fn folder_of(&self, number: u64) -> Option<usize> {
        let run = self.runs.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
        (number < self.numbers).then(|| self.runs[run].1)
    }

    fn run_of(&self, number: u64) -> Option<(u64, &Run)> {
        let folder = self.folder(self.folder_of(number)? as u64)?;
        folder.run.as_ref().map(|(first, run)| (*first, run))
    }
}

/// A part of a field as a file of `size` bytes, padded with zeros.
pub fn part_of_field((field, repr): (Field, Repr), bytes: Range<u64>, size: u64) -> FileContent {
    let segment = Segment {
        start: 0,
        len: bytes.end.saturating_sub(bytes.start),
        from: bytes.start,
        content: Content::Field(field, repr),
    };
    FileContent::Segments(Arc::new(Segments::new(size, vec![segment])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        let mut directory = Directory::default();
        let a = directory.add_folder(TOP, "a");
        directory.add_file(TOP, "index.json", FileContent::bytes(b"{}".to_vec()));
        let run = |prefix: &str, digits, count| Run {
            prefix: prefix.to_owned(),
            digits,
            suffix: ".bin".to_owned(),
            count,
            file: Box::new(|i| FileContent::bytes(i.to_string().into_bytes())),
        };
        directory.add_run(a, run("c.", 1, 12));
        directory.add_run(TOP, run("shard.", 5, 3));
        let directory = directory.sealed();
        let mut seen = std::collections::HashSet::from([0]);
        let mut todo = vec![0];
        while let Some(folder) = todo.pop() {
            for i in 0..directory.len(folder) {
                let (name, number) = directory.entry(folder, i).unwrap();
                assert!(seen.insert(number), "{name}: {number} twice");
                assert_eq!(directory.lookup(folder, &name), Some(number));
                assert_eq!(directory.parent(number), folder, "{name}");
                match directory.get(number) {
                    Some(Inside::Folder) => todo.push(number),
                    Some(Inside::Numbered(FileContent::Segments(file))) => {
                        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
                        let i: u64 = digits.trim_end_matches(".bin").parse().unwrap();
                        assert_eq!(file.list[0].content, Content::Bytes(i.to_string().into_bytes()));
                    }
                    other => assert!(matches!(other, Some(Inside::File(_))), "{name}"),
                }
            }
            assert_eq!(directory.entry(folder, directory.len(folder)), None);
        }
        assert_eq!(seen.len() as u64, directory.numbers());
        assert!(directory.get(directory.numbers()).is_none());
        assert_eq!((directory.folders(0), directory.folders(a as u64)), (1, 0));
        for name in ["shard.0.bin", "shard.00003.bin", "shard.00000", "b", "", "shard.+0001.bin"] {
            assert_eq!(directory.lookup(0, name), None, "{name}");
        }
    }
}
