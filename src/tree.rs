//! Paths, inode numbers and listings: a pure function of the mount's options and counts.
//!
//! An inode number is the packed path, so there is no inode table, nothing to forget, numbers are equal after a
//! remount, and a directory of a million files is listed from its size alone.

pub mod documents;
mod ino;

use crate::format::Extension;
use crate::plan::rank::Rank;

/// Files of `.shufflefs/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Stats,
    Prometheus,
    Options,
    Log,
}

impl Control {
    /// All, in listing order.
    pub const ALL: [Control; 4] = [Control::Stats, Control::Prometheus, Control::Options, Control::Log];

    pub fn name(self) -> &'static str {
        match self {
            Control::Stats => "stats.json",
            Control::Prometheus => "stats.prom",
            Control::Options => "options.json",
            Control::Log => "log",
        }
    }
}

/// A file or directory of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    RankDir(Rank),
    Epoch {
        rank: Option<Rank>,
        epoch: u64,
    },
    /// `batch` is the number in the file name: of the rank where there is one, else of the epoch.
    Batch {
        rank: Option<Rank>,
        epoch: u64,
        batch: u64,
        extension: Extension,
    },
}

impl Node {
    pub fn is_dir(&self) -> bool {
        matches!(self, Node::Root | Node::Categories | Node::ControlDir | Node::RankDir(_) | Node::Epoch { .. })
    }
}

/// What the tree is built from.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Batches of one epoch.
    pub batches: u64,
    /// Epochs that `ls` shows; any other can be opened.
    pub listed_epochs: u64,
    /// The format that `ls` shows.
    pub listed: Extension,
    /// The formats that can be opened.
    pub extensions: Vec<Extension>,
    /// File names of the categorical columns' labels.
    pub categories: Vec<String>,
}

impl Tree {
    /// The inode number of a node; `None` where it has no room in 64 bits (see `ino`), and so does not exist.
    pub fn ino(&self, node: &Node) -> Option<u64> {
        ino::pack(node)
    }

    /// The node of an inode number.
    pub fn node(&self, ino: u64) -> Option<Node> {
        // Spare bits are zero in the numbers that are given out: one node has one number.
        ino::unpack(ino).filter(|node| self.exists(node) && ino::pack(node) == Some(ino))
    }

    /// The child of a directory. Only the exact names that listings use are found, so that a path is one file.
    pub fn lookup(&self, parent: &Node, name: &str) -> Option<Node> {
        let node = match parent {
            Node::Root => self.root_child(name)?,
            Node::Categories => Node::Category(self.categories.iter().position(|file| file == name)?),
            Node::ControlDir => Node::Control(Control::ALL.into_iter().find(|control| control.name() == name)?),
            Node::RankDir(rank) => Node::Epoch { rank: Some(*rank), epoch: self.epoch_number(name)? },
            Node::Epoch { rank, epoch } => {
                let (stem, extension) = name.split_once('.')?;
                let batch = number(stem.strip_prefix("batch-")?)?;
                let extension = Extension::from_name(extension)?;
                if self.batch_name(batch, extension) != name {
                    return None;
                }
                Node::Batch { rank: *rank, epoch: *epoch, batch, extension }
            }
            _ => return None,
        };
        (self.exists(&node) && ino::pack(&node).is_some()).then_some(node)
    }

    fn root_child(&self, name: &str) -> Option<Node> {
        match name {
            "README.txt" => return Some(Node::Readme),
            "dataset.json" => return Some(Node::Dataset),
            "var.tsv" => return Some(Node::Var),
            "categories" => return Some(Node::Categories),
            ".shufflefs" => return Some(Node::ControlDir),
            _ => {}
        }
        if let Some(rank) = name.strip_prefix("rank-") {
            let (index, of) = rank.split_once("-of-")?;
            let rank = Rank { index: number(index)?, of: number(of)? };
            return (rank_name(rank) == name).then_some(Node::RankDir(rank));
        }
        Some(Node::Epoch { rank: None, epoch: self.epoch_number(name)? })
    }

    fn epoch_number(&self, name: &str) -> Option<u64> {
        let epoch = number(name.strip_prefix("epoch-")?)?;
        (self.epoch_name(epoch) == name).then_some(epoch)
    }

    fn exists(&self, node: &Node) -> bool {
        match node {
            Node::Category(column) => *column < self.categories.len(),
            Node::RankDir(rank) => rank.index < rank.of,
            Node::Epoch { rank, .. } => rank.is_none_or(|rank| rank.index < rank.of),
            Node::Batch { rank, batch, extension, .. } => {
                rank.is_none_or(|rank| rank.index < rank.of)
                    && *batch < self.batches_of(*rank)
                    && self.extensions.contains(extension)
            }
            _ => true,
        }
    }

    /// Batches in an epoch directory.
    pub fn batches_of(&self, rank: Option<Rank>) -> u64 {
        rank.map_or(self.batches, |rank| self.batches / rank.of)
    }

    /// `epoch-0007`.
    pub fn epoch_name(&self, epoch: u64) -> String {
        format!("epoch-{epoch:0width$}", width = digits(self.listed_epochs).max(4))
    }

    /// `batch-001234.npz`.
    pub fn batch_name(&self, batch: u64, extension: Extension) -> String {
        format!("batch-{batch:0width$}.{}", extension.as_str(), width = digits(self.batches).max(6))
    }

    /// The directory that holds a node; the root's is itself.
    pub fn parent(&self, node: &Node) -> Node {
        match node {
            Node::Category(_) => Node::Categories,
            Node::Control(_) => Node::ControlDir,
            Node::Epoch { rank: Some(rank), .. } => Node::RankDir(*rank),
            Node::Batch { rank, epoch, .. } => Node::Epoch { rank: *rank, epoch: *epoch },
            _ => Node::Root,
        }
    }

    /// How many entries `ls` shows in a directory.
    pub fn len(&self, directory: &Node) -> u64 {
        match directory {
            Node::Root => FIXED.len() as u64 + self.listed_epochs,
            Node::RankDir(_) => self.listed_epochs,
            Node::Categories => self.categories.len() as u64,
            Node::ControlDir => Control::ALL.len() as u64,
            Node::Epoch { rank, .. } => self.batches_of(*rank),
            _ => 0,
        }
    }

    /// Directories among them: what a directory's link count tells.
    pub fn subdirectories(&self, directory: &Node) -> u64 {
        match directory {
            Node::Root => 1 + self.listed_epochs,
            Node::RankDir(_) => self.listed_epochs,
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
                None => {
                    let epoch = i - FIXED.len() as u64;
                    (self.epoch_name(epoch), Node::Epoch { rank: None, epoch })
                }
            },
            Node::RankDir(rank) => (self.epoch_name(i), Node::Epoch { rank: Some(*rank), epoch: i }),
            Node::Categories => (self.categories[i as usize].clone(), Node::Category(i as usize)),
            Node::ControlDir => {
                let control = Control::ALL[i as usize];
                (control.name().to_owned(), Node::Control(control))
            }
            Node::Epoch { rank, epoch } => {
                let node = Node::Batch { rank: *rank, epoch: *epoch, batch: i, extension: self.listed };
                (self.batch_name(i, self.listed), node)
            }
            _ => return None,
        })
    }
}

/// What the root holds beside epochs; `.shufflefs` and ranks are there, but not listed.
const FIXED: [(&str, Node); 4] = [
    ("README.txt", Node::Readme),
    ("categories", Node::Categories),
    ("dataset.json", Node::Dataset),
    ("var.tsv", Node::Var),
];

fn rank_name(rank: Rank) -> String {
    format!("rank-{}-of-{}", rank.index, rank.of)
}

/// Digits of the last of `count` numbers from 0.
fn digits(count: u64) -> usize {
    count.saturating_sub(1).max(1).ilog10() as usize + 1
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// File names for the labels of categorical columns: the column's name where it can be one.
pub fn category_files<'a>(columns: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for (i, column) in columns.enumerate() {
        let mut file = format!("{}.txt", column.replace(['/', '\0'], "_"));
        if file.len() > 255 || files.contains(&file) {
            file = format!("column-{i}.txt");
        }
        files.push(file);
    }
    files
}

#[cfg(test)]
mod tests;
