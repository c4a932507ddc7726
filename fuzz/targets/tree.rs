//! Paths and inode numbers of the mount.

use shufflefs::format::{DirectoryKind, Extension};
use shufflefs::plan::RemainderPolicy;
use shufflefs::plan::rank::Rank;
use shufflefs::tree::{Node, Tree, View};

/// One input.
pub fn run(data: &[u8]) {
    let Some((number, path)) = data.split_first_chunk::<8>() else { return };
    let number = u64::from_le_bytes(*number);
    for batches in [0, 1, 40_000, number] {
        let view = |name: &str, batches| View {
            name: name.to_owned(),
            batches,
            uneven: if number % 2 == 0 { RemainderPolicy::Pad } else { RemainderPolicy::Drop },
        };
        let mut views = vec![view("train", batches), view("val", batches / 2), view("t", number % 7)];
        views.truncate(1 + (number % 3) as usize);
        let tree = Tree {
            views,
            rank: (number % 5 == 0).then_some(Rank { index: 1, of: 3 }),
            listed_epochs: 1 + number % 10_000_000,
            listed: Extension::ALL[0],
            extensions: Extension::ALL.to_vec(),
            whole: vec![Extension::ALL[3]],
            directories: DirectoryKind::ALL.to_vec(),
            numbers: 1 + number % 5000,
            categories: vec!["a.txt".to_owned(), "b.txt".to_owned()],
            labels: vec![vec!["x".to_owned(), "y".to_owned()], Vec::new()],
        };
        let mut node = Node::Root;
        for name in String::from_utf8_lossy(path).split('/') {
            let Some(child) = tree.lookup(&node, name) else { break };
            assert_eq!(tree.node(tree.ino(&child).expect("what is found has a number")), Some(child));
            assert_eq!(tree.parent(&child), node);
            node = child;
        }
        for ino in [number, number.swap_bytes()] {
            if let Some(node) = tree.node(ino) {
                assert_eq!(tree.ino(&node), Some(ino));
                let _ = (tree.parent(&node), tree.subdirectories(&node));
                for i in [0, 1, tree.len(&node).saturating_sub(1), number] {
                    if let Some((name, child)) = tree.entry(&node, i) {
                        let found = tree.lookup(&node, &name);
                        assert!(found.is_none_or(|found| found == child), "{name}");
                    }
                }
            }
        }
    }
}
