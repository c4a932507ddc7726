use super::*;

fn tree(batches: u64) -> Tree {
    Tree { views: vec![view("all", batches)], ..no_views() }
}

fn view(name: &str, batches: u64) -> View {
    View { name: name.to_owned(), batches, uneven: RemainderPolicy::Drop }
}

fn no_views() -> Tree {
    Tree {
        views: Vec::new(),
        rank: None,
        listed_epochs: 100,
        listed: Extension::ALL[0],
        extensions: Extension::ALL.to_vec(),
        whole: vec![Extension::ALL[3]],
        directories: DirectoryKind::ALL.to_vec(),
        numbers: 1 << 22,
        categories: ["cell type.txt", "a%2Fb.txt", "a_b.txt"].map(str::to_owned).into(),
        labels: vec![file_names(["T", "B/x", "B_x", "", "a.h5ad"].into_iter(), "label"), Vec::new(), Vec::new()],
    }
}

#[test]
fn inode_numbers_are_paths() {
    let tree = tree(u64::from(u32::MAX));
    let mut nodes = vec![Node::Root, Node::Readme, Node::Dataset, Node::Var, Node::Categories, Node::ControlDir];
    nodes.extend(Control::ALL.map(Node::Control));
    nodes.extend((0..3).map(Node::Category));
    for (index, of) in [(0, 1), (0, 2), (1, 2), (3, 4), (0, 4), (2047, 2048), (4094, 4095)] {
        let rank = Rank { index, of };
        nodes.push(Node::RankDir { view: 0, rank });
        for epoch in [0, 99, u64::from(u32::MAX)] {
            let sequence = Sequence::Epoch(epoch);
            nodes.push(Node::Whole { view: 0, rank: Some(rank), sequence, extension: Extension::ALL[3] });
        }
        for epoch in [0, 1, 99, 8191] {
            nodes.push(Node::Epoch { view: 0, rank: Some(rank), epoch });
            nodes.push(Node::Batch { view: 0, rank: Some(rank), epoch, batch: 77, extension: Extension::ALL[4] });
        }
    }
    for sequence in [
        Sequence::Epoch(0),
        Sequence::Epoch(u64::from(u32::MAX)),
        Sequence::Stored,
        Sequence::By(0),
        Sequence::By(2),
        Sequence::Label(0, 0),
        Sequence::Label(0, 4),
    ] {
        nodes.push(Node::Whole { view: 0, rank: None, sequence, extension: Extension::ALL[3] });
    }
    let kind = DirectoryKind::ALL[0];
    for number in [0, 1, 77, (1 << 22) - 1] {
        for epoch in [0, 9, u64::from(u32::MAX)] {
            nodes.push(Node::Inside { view: 0, rank: None, epoch, kind, number });
        }
        for (index, of) in [(0, 1), (3, 4), (4094, 4095)] {
            let rank = Some(Rank { index, of });
            nodes.extend([0, 9, 1023].map(|epoch| Node::Inside { view: 0, rank, epoch, kind, number }));
        }
    }
    for epoch in [0, 1, 12_345, (1 << 26) - 1] {
        nodes.push(Node::Epoch { view: 0, rank: None, epoch });
        for &extension in Extension::ALL {
            nodes.push(Node::Batch { view: 0, rank: None, epoch, batch: u64::from(u32::MAX) - 1, extension });
        }
    }
    let mut numbers = std::collections::HashSet::new();
    for node in nodes {
        let ino = tree.ino(&node).unwrap_or_else(|| panic!("{node:?} has no room"));
        assert!(numbers.insert(ino), "{node:?}: {ino} twice");
        assert_eq!(tree.node(ino), Some(node));
    }
    assert_eq!(tree.ino(&Node::Epoch { view: 0, rank: None, epoch: 1 << 26 }), None);
    let rank = Some(Rank { index: 0, of: 4 });
    assert_eq!(tree.ino(&Node::Inside { view: 0, rank, epoch: 1024, kind, number: 0 }), None);
    for ino in [0, 7, 15, 21, 1 << 61, (1 << 61) | (9 << 56) | 7, FIRST_UNUSED_CATEGORY, u64::MAX] {
        assert_eq!(tree.node(ino), None, "{ino:x}");
    }
    // Files of a format that the mount does not have.
    let tree = Tree { extensions: Extension::ALL[..13].to_vec(), ..tree };
    assert_eq!(tree.node((1 << 62) | (14 << 58)), None);
}

const FIRST_UNUSED_CATEGORY: u64 = (1 << 32) + 3;

#[test]
fn every_listed_name_is_found_and_no_other_spelling() {
    let tree = tree(5);
    let epoch = Node::Epoch { view: 0, rank: None, epoch: 3 };
    for directory in [
        Node::Root,
        Node::Categories,
        Node::ControlDir,
        epoch,
        Node::RankDir { view: 0, rank: Rank { index: 1, of: 2 } },
        Node::Labels { view: 0, column: 0 },
    ] {
        for i in 0..tree.len(&directory) {
            let (name, node) = tree.entry(&directory, i).unwrap_or_else(|| panic!("{directory:?}: {i} is not listed"));
            assert_eq!(tree.lookup(&directory, &name), Some(node), "{name}");
            assert_eq!(tree.parent(&node), directory);
        }
        assert_eq!(tree.entry(&directory, tree.len(&directory)), None);
    }
    for name in [
        "epoch-0",
        "epoch-00001",
        "Epoch-0000",
        "epoch-+001",
        "rank-0-of-0",
        "rank-2-of-2",
        "rank-00-of-2",
        "x",
        "epoch-0000.npz",
        "epoch-0.h5ad",
    ] {
        assert_eq!(tree.lookup(&Node::Root, name), None, "{name}");
    }
    for name in ["batch-1.npz", "batch-000005.npz", "batch-000000.xyz", "batch-000000", "batch-000000.npz.npz"] {
        assert_eq!(tree.lookup(&epoch, name), None, "{name}");
    }
    assert!(tree.lookup(&Node::Root, "epoch-12345").is_some());
    assert!(tree.lookup(&Node::Root, "rank-3-of-7").is_some());
}

#[test]
fn names_sort_in_reading_order() {
    let tree = tree(1_500_000);
    assert_eq!(tree.batch_name(0, 7, Extension::ALL[0]), "batch-0000007.npz");
    assert_eq!(tree.batch_name(0, 1_499_999, Extension::ALL[0]), "batch-1499999.npz");
    assert_eq!(tree.epoch_name(7), "epoch-0007");
}

#[test]
fn views_are_directories_and_one_alone_is_not() {
    let rank = Rank { index: 2, of: 3 };
    let tree = Tree { views: vec![view("train", 1000), view("val", 7), view("tiny", 0)], ..no_views() };
    assert_eq!(tree.lookup(&Node::Root, "epoch-0000"), None);
    assert_eq!(tree.lookup(&Node::Root, "rank-0-of-2"), None);
    assert_eq!(tree.lookup(&Node::Root, "test"), None);
    assert_eq!(tree.lookup(&Node::Root, "val"), Some(Node::View(1)));
    let listed: Vec<String> = (0..tree.len(&Node::Root)).filter_map(|i| Some(tree.entry(&Node::Root, i)?.0)).collect();
    assert_eq!(listed, ["README.txt", "categories", "dataset.json", "var.tsv", "train", "val", "tiny"]);
    assert_eq!(tree.subdirectories(&Node::Root), 4);
    let mut numbers = std::collections::HashSet::new();
    for number in 0..3 {
        let directory = Node::View(number);
        assert_eq!(tree.parent(&directory), Node::Root);
        for name in [
            "epoch-0000",
            "epoch-0123",
            "rank-2-of-3",
            "rank-0-of-1",
            "epoch-0000.h5ad",
            "epoch-9999.h5ad",
            "epoch-0000.zarr",
            "epoch-0123.zarr",
            "stored.h5ad",
            "by-a_b.h5ad",
            "by-a_b",
            "by-cell type",
        ] {
            let child = tree.lookup(&directory, name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(tree.parent(&child), directory);
            assert!(numbers.insert(tree.ino(&child)), "{child:?}");
            assert_eq!(tree.ino(&child).and_then(|ino| tree.node(ino)), Some(child));
        }
        for rank in [None, Some(rank), Some(Rank { index: 0, of: 3 }), Some(Rank { index: 6, of: 7 })] {
            let batches = tree.batches_of(number, rank);
            for batch in 0..batches {
                let node = Node::Batch { view: number, rank, epoch: 5, batch, extension: Extension::ALL[0] };
                assert!(numbers.insert(tree.ino(&node)), "{node:?}");
                assert_eq!(tree.ino(&node).and_then(|ino| tree.node(ino)), Some(node));
            }
            let epoch = Node::Epoch { view: number, rank, epoch: 5 };
            assert_eq!(tree.len(&epoch), batches);
            assert_eq!(tree.lookup(&epoch, &tree.batch_name(number, batches, Extension::ALL[0])), None);
        }
    }
}

#[test]
fn a_tree_of_one_rank_has_its_batches_and_no_ranks() {
    let tree = Tree { rank: Some(Rank { index: 1, of: 4 }), ..tree(11) };
    let epoch = tree.lookup(&Node::Root, "epoch-0000").unwrap_or(Node::Root);
    assert_eq!((tree.len(&epoch), tree.lookup(&Node::Root, "rank-0-of-2")), (2, None));
    let padded = Tree { views: vec![View { uneven: RemainderPolicy::Pad, ..view("", 11) }], ..tree };
    assert_eq!(padded.len(&epoch), 3);
}
