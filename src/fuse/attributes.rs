//! How the files look: attributes, the content of those that are no batches, the entries of directories.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};

use crate::tree::{Control, Node};

use super::{ShuffleFs, view_file};

/// Names and sizes never change while mounted.
pub(super) const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
const NEVER: Duration = Duration::ZERO;
/// Size of `stats.json` and `stats.prom`: their text is padded, so that it is exact although the numbers grow.
const STATS_SIZE: usize = 4096;

/// How the files look to `stat`.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    pub uid: u32,
    pub gid: u32,
    /// The newest store's.
    pub mtime: SystemTime,
}

pub(super) fn ttl(node: &Node) -> Duration {
    if matches!(node, Node::Control(_)) { NEVER } else { FOREVER }
}

impl ShuffleFs {
    /// The bytes of a file that is always in memory.
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
        let mut text = match control {
            Control::Stats => format!("{:#}", self.engine.stats()).into_bytes(),
            Control::Prometheus => self.engine.prometheus().into_bytes(),
            Control::Advice => self.engine.advice().into_bytes(),
            Control::Options => return self.options.clone().into_bytes(),
            Control::Log => return (self.log)(),
        };
        text.resize(STATS_SIZE - 1, b' ');
        text.push(b'\n');
        text
    }

    pub(super) fn attr(&self, node: &Node) -> Option<FileAttr> {
        let size = match node {
            Node::Control(Control::Log) => (self.log)().len() as u64,
            Node::Control(Control::Options) => self.options.len() as u64,
            Node::Control(_) => STATS_SIZE as u64,
            Node::Whole { .. } => self.files.size(view_file(&self.files, &self.tree, node)?)?,
            Node::Batch { .. } => self.engine.size(self.key(node)?.0)?,
            _ => self.document(node).map_or(0, |text| text.len() as u64),
        };
        let directory = node.is_dir();
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
            nlink: if directory {
                2 + u32::try_from(self.tree.subdirectories(node)).unwrap_or(u32::MAX - 2)
            } else {
                1
            },
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Entries of a directory from an offset on: `.`, `..`, then what the tree lists.
    pub(super) fn entries(&self, directory: Node, offset: u64) -> impl Iterator<Item = (u64, String, Node)> + '_ {
        let dots = [(".", directory), ("..", self.tree.parent(&directory))];
        (offset..self.tree.len(&directory) + 2).filter_map(move |i| {
            let (name, node) = match dots.get(i as usize) {
                Some((name, node)) => ((*name).to_owned(), *node),
                None => self.tree.entry(&directory, i - 2)?,
            };
            Some((i + 1, name, node))
        })
    }
}
