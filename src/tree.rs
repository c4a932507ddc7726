//! Paths, inode numbers and listings: a pure function of the mount's options and counts.
//!
//! An inode number is a packed path. So there is no inode table and no forget bookkeeping, numbers are the same after a remount, and
//! the listing of a directory of a million files follows from its length.

pub mod documents;
mod ino;

use std::collections::HashSet;
use std::path::PathBuf;

use crate::format::{DirectoryKind, Extension};
use crate::plan::RemainderPolicy;
use crate::plan::partition::share;
use crate::plan::rank::Rank;

/// Files of `.shufflefs/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    Stats,
    Prometheus,
    Options,
    Log,
    Advice,
}

impl Control {
    /// All, in listing order.
    pub const ALL: [Control; 5] =
        [Control::Stats, Control::Prometheus, Control::Options, Control::Log, Control::Advice];

    pub fn name(self) -> &'static str {
        match self {
            Control::Stats => "stats.json",
            Control::Prometheus => "stats.prom",
            Control::Options => "options.json",
            Control::Log => "log",
            Control::Advice => "advice",
        }
    }
}

/// A file or directory of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    Root,
    Readme,
    Dataset,
    Var,
    Categories,
    /// Labels of the i-th categorical column.
    Category(usize),
    ControlDir,
    Control(Control),
    /// Directory of a named view.
    View(u16),
    RankDir {
        view: u16,
        rank: Rank,
    },
    Epoch {
        view: u16,
        rank: Option<Rank>,
        epoch: u64,
    },
    /// A batch file. `batch` is the number in its name: that within the rank if there is one, else within the epoch.
    Batch {
        view: u16,
        rank: Option<Rank>,
        epoch: u64,
        batch: u64,
        extension: Extension,
    },
    /// A directory with a file for each label of the i-th categorical column.
    Labels {
        view: u16,
        column: u16,
    },
    /// A file of many batches.
    Whole {
        view: u16,
        rank: Option<Rank>,
        sequence: Sequence,
        extension: Extension,
    },
    /// The directory of an epoch in a directory format, or an entry in it, by its number there (`format::directory`).
    Inside {
        view: u16,
        rank: Option<Rank>,
        epoch: u64,
        kind: DirectoryKind,
        number: u64,
    },
}

/// The rows of a file of many batches, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sequence {
    /// An epoch of the view, in the order of its batches.
    Epoch(u64),
    /// The rows of the view in stored order.
    Stored,
    /// The rows of the view, sorted by the labels of the i-th categorical column.
    By(u16),
    /// The rows with one label of that column.
    Label(u16, u32),
}

impl Node {
    pub fn is_dir(&self) -> bool {
        matches!(
            self,
            Node::Root
                | Node::Categories
                | Node::ControlDir
                | Node::View(_)
                | Node::RankDir { .. }
                | Node::Labels { .. }
                | Node::Epoch { .. }
                | Node::Inside { number: 0, .. }
        )
    }
}

/// The counts and names of one view.
#[derive(Clone, Debug)]
pub struct View {
    /// The name of its directory, which exists only if there are several views.
    pub name: String,
    /// Batches of one epoch.
    pub batches: u64,
    /// What happens to batches that ranks cannot share evenly.
    pub uneven: RemainderPolicy,
}

/// All that the tree depends on.
#[derive(Clone, Debug)]
pub struct Tree {
    /// At least one. A single view has its epochs at the root; each of several has a directory.
    pub views: Vec<View>,
    /// Set for the mount of one rank: its part of each epoch is at the path of the whole epoch.
    pub rank: Option<Rank>,
    /// Epochs that `ls` shows; any other can be opened.
    pub listed_epochs: u64,
    /// The format that `ls` shows.
    pub listed: Extension,
    /// The formats that can be opened.
    pub extensions: Vec<Extension>,
    /// Those of `extensions` that exist as files of many batches.
    pub whole: Vec<Extension>,
    /// The formats whose epochs are directories.
    pub directories: Vec<DirectoryKind>,
    /// An upper bound of the numbers in such a directory.
    pub numbers: u64,
    /// File names of the categorical columns' labels.
    pub categories: Vec<String>,
    /// File names of the labels of each categorical column, without extension.
    pub labels: Vec<Vec<String>>,
}

impl Tree {
    /// The inode number of a node; `None` where it does not fit 64 bits (see `ino`): the node does not exist then.
    pub fn ino(&self, node: &Node) -> Option<u64> {
        ino::pack(self, node)
    }

    /// The node of an inode number.
    pub fn node(&self, ino: u64) -> Option<Node> {
        // A node has one number: its spare bits are zero.
        ino::unpack(self, ino).filter(|node| self.exists(node) && ino::pack(self, node) == Some(ino))
    }

    /// The child of a directory. Names must be spelt exactly as in listings, so that each file has one path.
    pub fn lookup(&self, parent: &Node, name: &str) -> Option<Node> {
        let node = match parent {
            Node::Root => self.root_child(name)?,
            Node::Categories => Node::Category(self.categories.iter().position(|file| file == name)?),
            Node::ControlDir => Node::Control(Control::ALL.into_iter().find(|control| control.name() == name)?),
            Node::View(view) => self.view_child(*view, name)?,
            Node::RankDir { view, rank } => self.epoch_child(*view, Some(*rank), name)?,
            Node::Labels { view, column } => {
                let (stem, extension) = name.rsplit_once('.')?;
                let label = self.labels.get(usize::from(*column))?.iter().position(|label| label == stem)?;
                let sequence = Sequence::Label(*column, u32::try_from(label).ok()?);
                Node::Whole { view: *view, rank: None, sequence, extension: self.whole(extension)? }
            }
            Node::Epoch { view, rank, epoch } => {
                let (stem, extension) = name.split_once('.')?;
                let batch = number(stem.strip_prefix("batch-")?)?;
                let extension = *self.extensions.iter().find(|known| known.as_str() == extension)?;
                if self.batch_name(*view, batch, extension) != name {
                    return None;
                }
                Node::Batch { view: *view, rank: *rank, epoch: *epoch, batch, extension }
            }
            _ => return None,
        };
        (self.exists(&node) && ino::pack(self, &node).is_some()).then_some(node)
    }

    fn root_child(&self, name: &str) -> Option<Node> {
        if let Some((_, node)) = FIXED.iter().chain([&CONTROL]).find(|(fixed, _)| *fixed == name) {
            return Some(*node);
        }
        if self.is_flat() {
            return self.view_child(0, name);
        }
        let view = self.views.iter().position(|view| view.name == name)?;
        u16::try_from(view).ok().map(Node::View)
    }

    /// A child of the directory that holds the epochs of a view.
    fn view_child(&self, view: u16, name: &str) -> Option<Node> {
        if let Some(rank) = name.strip_prefix(RANK) {
            let (index, of) = rank.split_once("-of-")?;
            let rank = Rank { index: number(index)?, of: number(of)? };
            return (rank_name(rank) == name).then_some(Node::RankDir { view, rank });
        }
        // A rank has its part of each epoch, but not the files that are in stored order or by label.
        let is_whole = self.rank.is_none();
        if let Some(extension) = name.strip_prefix("stored.").filter(|_| is_whole) {
            return Some(Node::Whole {
                view,
                rank: None,
                sequence: Sequence::Stored,
                extension: self.whole(extension)?,
            });
        }
        if let Some(by) = name.strip_prefix("by-").filter(|_| is_whole) {
            return self.by(view, by);
        }
        self.epoch_child(view, None, name)
    }

    /// `by-COLUMN.EXTENSION` or the directory `by-COLUMN`.
    fn by(&self, view: u16, name: &str) -> Option<Node> {
        let column = |stem: &str| {
            let found = self.categories.iter().position(|file| file.strip_suffix(".txt") == Some(stem))?;
            u16::try_from(found).ok()
        };
        let file = name.rsplit_once('.').and_then(|(stem, extension)| {
            let (sequence, extension) = (Sequence::By(column(stem)?), self.whole(extension)?);
            Some(Node::Whole { view, rank: None, sequence, extension })
        });
        file.or_else(|| Some(Node::Labels { view, column: column(name)? }))
    }

    /// An epoch as a directory of batches, as one file, or in a directory format.
    fn epoch_child(&self, view: u16, rank: Option<Rank>, name: &str) -> Option<Node> {
        match name.split_once('.') {
            None => Some(Node::Epoch { view, rank, epoch: self.epoch_number(name)? }),
            Some((stem, extension)) => {
                let epoch = self.epoch_number(stem)?;
                if let Some(&kind) = self.directories.iter().find(|kind| kind.as_str() == extension) {
                    return Some(Node::Inside { view, rank, epoch, kind, number: 0 });
                }
                Some(Node::Whole { view, rank, sequence: Sequence::Epoch(epoch), extension: self.whole(extension)? })
            }
        }
    }

    fn whole(&self, name: &str) -> Option<Extension> {
        self.whole.iter().copied().find(|extension| extension.as_str() == name)
    }

    fn epoch_number(&self, name: &str) -> Option<u64> {
        let epoch = number(name.strip_prefix(EPOCH)?)?;
        (self.epoch_name(epoch) == name).then_some(epoch)
    }

    fn exists(&self, node: &Node) -> bool {
        match node {
            Node::Category(column) => *column < self.categories.len(),
            Node::View(view) => !self.is_flat() && usize::from(*view) < self.views.len(),
            Node::RankDir { view, rank } => self.has(*view, Some(*rank)),
            Node::Epoch { view, rank, .. } => self.has(*view, *rank),
            Node::Inside { view, rank, kind, number, .. } => {
                self.has(*view, *rank) && self.directories.contains(kind) && *number < self.numbers
            }
            Node::Labels { view, column } => {
                self.has(*view, None) && usize::from(*column) < self.labels.len() && !self.whole.is_empty()
            }
            Node::Whole { view, rank, sequence, extension } => {
                let named = match sequence {
                    Sequence::Epoch(_) | Sequence::Stored => true,
                    Sequence::By(column) => usize::from(*column) < self.labels.len(),
                    Sequence::Label(column, label) => {
                        self.labels.get(usize::from(*column)).is_some_and(|labels| (*label as usize) < labels.len())
                    }
                };
                named && self.has(*view, *rank) && self.whole.contains(extension)
            }
            Node::Batch { view, rank, batch, extension, .. } => {
                self.has(*view, *rank) && *batch < self.batches_of(*view, *rank) && self.extensions.contains(extension)
            }
            _ => true,
        }
    }

    /// Whether the epochs are at the root.
    fn is_flat(&self) -> bool {
        self.views.len() == 1
    }

    /// Whether a view and rank exist. The mount of one rank has no further ranks.
    fn has(&self, view: u16, rank: Option<Rank>) -> bool {
        usize::from(view) < self.views.len() && rank.is_none_or(|rank| self.rank.is_none() && rank.index < rank.of)
    }

    /// Batches of the longest view.
    pub fn batches(&self) -> u64 {
        self.views.iter().map(|view| view.batches).max().unwrap_or(0)
    }

    /// Batches in an epoch directory.
    pub fn batches_of(&self, view: u16, rank: Option<Rank>) -> u64 {
        let Some(view) = self.views.get(usize::from(view)) else { return 0 };
        match rank.or(self.rank) {
            None => view.batches,
            Some(rank) => share(view.batches, rank.of, view.uneven),
        }
    }

    /// `epoch-0007`.
    pub fn epoch_name(&self, epoch: u64) -> String {
        format!("{EPOCH}{epoch:0width$}", width = digits(self.listed_epochs).max(4))
    }

    /// `batch-001234.npz`.
    pub fn batch_name(&self, view: u16, batch: u64, extension: Extension) -> String {
        let batches = self.views.get(usize::from(view)).map_or(0, |view| view.batches);
        // A listing makes millions of names, and `format!` would take half of our time.
        let (width, extension) = (digits(batches).max(6).max(digits(batch.saturating_add(1))), extension.as_str());
        let (mut text, mut rest) = ([b'0'; MOST_DIGITS], batch);
        for digit in text.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut name = String::with_capacity("batch-.".len() + width + extension.len());
        name.push_str("batch-");
        name.push_str(str::from_utf8(&text[MOST_DIGITS - width..]).unwrap_or_default());
        name.push('.');
        name.push_str(extension);
        name
    }

    /// The parent directory; the root is its own. For entries within the directory of an epoch, `format::directory` knows it.
    pub fn parent(&self, node: &Node) -> Node {
        match node {
            Node::Category(_) => Node::Categories,
            Node::Control(_) => Node::ControlDir,
            Node::Epoch { view, rank: Some(rank), .. }
            | Node::Whole { view, rank: Some(rank), .. }
            | Node::Inside { view, rank: Some(rank), number: 0, .. } => Node::RankDir { view: *view, rank: *rank },
            Node::Whole { view, sequence: Sequence::Label(column, _), .. } => {
                Node::Labels { view: *view, column: *column }
            }
            Node::Labels { view, .. }
            | Node::Epoch { view, .. }
            | Node::Whole { view, .. }
            | Node::Inside { view, number: 0, .. }
            | Node::RankDir { view, .. }
                if !self.is_flat() =>
            {
                Node::View(*view)
            }
            Node::Batch { view, rank, epoch, .. } => Node::Epoch { view: *view, rank: *rank, epoch: *epoch },
            _ => Node::Root,
        }
    }

    /// The path of a batch below the mount's root; empty for other nodes.
    pub fn path(&self, node: &Node) -> PathBuf {
        let Node::Batch { view, rank, epoch, batch, extension } = *node else { return PathBuf::new() };
        let mut path = PathBuf::new();
        if !self.is_flat() {
            path.push(&self.views[usize::from(view)].name);
        }
        path.extend(rank.map(rank_name));
        path.push(self.epoch_name(epoch));
        path.push(self.batch_name(view, batch, extension));
        path
    }

    /// How many entries `ls` shows in a directory.
    pub fn len(&self, directory: &Node) -> u64 {
        match directory {
            Node::Root if self.is_flat() => FIXED.len() as u64 + self.listed_epochs,
            Node::Root => (FIXED.len() + self.views.len()) as u64,
            Node::View(_) | Node::RankDir { .. } => self.listed_epochs,
            Node::Categories => self.categories.len() as u64,
            Node::ControlDir => Control::ALL.len() as u64,
            Node::Epoch { view, rank, .. } => self.batches_of(*view, *rank),
            Node::Labels { column, .. } => {
                self.labels.get(usize::from(*column)).map_or(0, |labels| labels.len() as u64)
            }
            _ => 0,
        }
    }

    /// The number of directories among the entries, for the link count.
    pub fn subdirectories(&self, directory: &Node) -> u64 {
        match directory {
            Node::Root if self.is_flat() => 1 + self.listed_epochs,
            Node::Root => 1 + self.views.len() as u64,
            Node::View(_) | Node::RankDir { .. } => self.listed_epochs,
            _ => 0,
        }
    }

    /// The i-th entry of a directory.
    pub fn entry(&self, directory: &Node, i: u64) -> Option<(String, Node)> {
        if i >= self.len(directory) {
            return None;
        }
        Some(match directory {
            Node::Root => match FIXED.get(i as usize) {
                Some((name, node)) => ((*name).to_owned(), *node),
                None if self.is_flat() => {
                    let epoch = i - FIXED.len() as u64;
                    (self.epoch_name(epoch), Node::Epoch { view: 0, rank: None, epoch })
                }
                None => {
                    let view = i as usize - FIXED.len();
                    (self.views[view].name.clone(), Node::View(u16::try_from(view).ok()?))
                }
            },
            Node::View(view) => (self.epoch_name(i), Node::Epoch { view: *view, rank: None, epoch: i }),
            Node::RankDir { view, rank } => {
                (self.epoch_name(i), Node::Epoch { view: *view, rank: Some(*rank), epoch: i })
            }
            Node::Categories => (self.categories[i as usize].clone(), Node::Category(i as usize)),
            Node::ControlDir => {
                let control = Control::ALL[i as usize];
                (control.name().to_owned(), Node::Control(control))
            }
            Node::Labels { view, column } => {
                let (extension, label) = (*self.whole.first()?, u32::try_from(i).ok()?);
                let sequence = Sequence::Label(*column, label);
                let name = format!("{}.{}", self.labels[usize::from(*column)][i as usize], extension.as_str());
                (name, Node::Whole { view: *view, rank: None, sequence, extension })
            }
            Node::Epoch { view, rank, epoch } => {
                let node = Node::Batch { view: *view, rank: *rank, epoch: *epoch, batch: i, extension: self.listed };
                (self.batch_name(*view, i, self.listed), node)
            }
            _ => return None,
        })
    }
}

/// Digits of the largest batch number.
const MOST_DIGITS: usize = u64::MAX.ilog10() as usize + 1;

/// Entries of the root beside epochs or views, in listing order.
const FIXED: [(&str, Node); 4] = [
    ("README.txt", Node::Readme),
    ("categories", Node::Categories),
    ("dataset.json", Node::Dataset),
    ("var.tsv", Node::Var),
];
/// Exists, but is not listed, like the directories of ranks.
const CONTROL: (&str, Node) = (".shufflefs", Node::ControlDir);

/// Prefixes of the names of epochs and ranks.
const EPOCH: &str = "epoch-";
const RANK: &str = "rank-";

/// Whether the mount itself uses a name at the root, so that no view can have it.
pub fn is_reserved(name: &str) -> bool {
    FIXED.iter().chain([&CONTROL]).any(|(fixed, _)| *fixed == name) || name.starts_with(EPOCH) || name.starts_with(RANK)
}

fn rank_name(rank: Rank) -> String {
    format!("{RANK}{}-of-{}", rank.index, rank.of)
}

/// Digits of the largest of the numbers 0..count.
fn digits(count: u64) -> usize {
    count.saturating_sub(1).max(1).ilog10() as usize + 1
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Unique file names without extension: the given names where they are valid, else `word-NUMBER`.
pub fn file_names<'a>(names: impl Iterator<Item = &'a str>, word: &str) -> Vec<String> {
    // Leaves room for any extension of ours within NAME_MAX (255 bytes).
    const LONGEST: usize = 240;
    let mut taken = HashSet::new();
    let name = |(i, name): (usize, &str)| {
        let file = name.replace(['/', '\0'], "_");
        let fits = !file.is_empty() && file != "." && file.len() <= LONGEST && taken.insert(file.clone());
        if fits { file } else { format!("{word}-{i}") }
    };
    names.enumerate().map(name).collect()
}

#[cfg(test)]
mod tests;
