//! Attributes of nodes, contents of documents and control files, entries of directories.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};

use crate::tree::{Control, Node};

use super::{ShuffleFs, inside, view_file};

/// Names and sizes do not change while mounted, so the kernel may cache them for a day.
pub(super) const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
const NEVER: Duration = Duration::ZERO;
/// `stats.json` and `stats.prom` are padded to a multiple of this, so that their size stays what `stat` said while counters grow.
const STATS_STEP: usize = 4096;

/// Owner and time of all files.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    pub uid: u32,
    pub gid: u32,
    /// Modification time of the newest store.
    pub mtime: SystemTime,
}

pub(super) fn ttl(node: &Node) -> Duration {
    if matches!(node, Node::Control(_)) { NEVER } else { FOREVER }
}

/// Pads a text with blanks and a newline to a multiple of [`STATS_STEP`].
fn padded(text: String) -> Vec<u8> {
    let mut text = text.into_bytes();
    text.resize((text.len() + 1).next_multiple_of(STATS_STEP) - 1, b' ');
    text.push(b'\n');
    text
}

impl ShuffleFs {
    /// The content of a document; these are rendered when the mount starts.
    pub(super) fn document(&self, node: &Node) -> Option<&[u8]> {
        match node {
            Node::Readme => Some(self.documents.readme.as_bytes()),
            Node::Dataset => Some(self.documents.dataset.as_bytes()),
            Node::Var => Some(self.documents.var.as_bytes()),
            Node::Category(column) => self.documents.categories.get(*column).map(|text| text.as_bytes()),
            _ => None,
        }
    }

    pub(super) fn control(&self, control: Control) -> Vec<u8> {
        match control {
            Control::Stats => padded(format!("{:#}", self.engine.stats())),
            Control::Prometheus => padded(self.engine.prometheus()),
            Control::Advice => padded(self.engine.advice()),
            Control::Options => self.options.clone().into_bytes(),
            Control::Log => (self.log)(),
        }
    }

    pub(super) fn attr(&self, node: &Node) -> Option<FileAttr> {
        let size = match node {
            Node::Control(Control::Log) => (self.log)().len() as u64,
            Node::Control(Control::Options) => self.options.len() as u64,
            Node::Control(control) => self.control(*control).len() as u64,
            Node::Inside { .. } if self.is_dir(node) => 0,
            Node::Whole { .. } | Node::Inside { .. } => self.files.size(view_file(&self.files, &self.tree, node)?)?,
            Node::Batch { .. } => self.engine.size(self.key(node)?.0)?,
            _ => self.document(node).map_or(0, |text| text.len() as u64),
        };
        let directory = self.is_dir(node);
        let Ownership { uid, gid, mtime } = self.ownership;
        Some(FileAttr {
            ino: INodeNo(self.tree.ino(node)?),
            size,
            blocks: size.div_ceil(512),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o555 } else { 0o444 },
            nlink: if directory { 2 + u32::try_from(self.subdirectories(node)).unwrap_or(u32::MAX - 2) } else { 1 },
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn subdirectories(&self, node: &Node) -> u64 {
        match self.directory(node) {
            Some((directory, folder)) => directory.folders(folder),
            None => self.tree.subdirectories(node),
        }
    }

    /// Entries of a directory from an offset on: `.`, `..`, then those that the tree lists.
    pub(super) fn entries(&self, directory: Node, offset: u64) -> impl Iterator<Item = (u64, String, Node)> + '_ {
        let epoch = self.directory(&directory);
        let (parent, len) = match &epoch {
            Some((epoch, folder)) if *folder > 0 => (inside(&directory, epoch.parent(*folder)), epoch.len(*folder)),
            Some((epoch, folder)) => (self.tree.parent(&directory), epoch.len(*folder)),
            None => (self.tree.parent(&directory), self.tree.len(&directory)),
        };
        let dots = [(".", directory), ("..", parent)];
        (offset..len + 2).filter_map(move |i| {
            let (name, node) = match (dots.get(i as usize), &epoch) {
                (Some((name, node)), _) => ((*name).to_owned(), *node),
                (None, Some((epoch, folder))) => {
                    let (name, number) = epoch.entry(*folder, i - 2)?;
                    (name, inside(&directory, number))
                }
                (None, None) => self.tree.entry(&directory, i - 2)?,
            };
            Some((i + 1, name, node))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_padded_and_never_cut() {
        for len in [0, 1, 4094, 4095, 4096, 5000, 9000] {
            let text = padded("x".repeat(len));
            assert!(text.len().is_multiple_of(STATS_STEP) && text.len() > len && text.len() <= len + STATS_STEP);
            assert!(text.starts_with("x".repeat(len).as_bytes()) && text.ends_with(b"\n"));
        }
    }
}
