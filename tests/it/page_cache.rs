//! Files read in small pieces: pages that are pushed into the kernel's page cache for their readers, and removed again.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::support::{Mount, list, store};
use sha2::{Digest, Sha256};

/// The room for pushed pages, and the largest and smallest size of a file.
const ROOM: u64 = 128 << 20;
const FILE: std::ops::Range<u64> = 900 << 10..2 << 20;

fn mount(more: &[&str]) -> Mount {
    let options = ["--batch-size", "16", "--block-size", "8", "--fetch-factor", "4", "--format", "npy"];
    Mount::new(&[store("wide-dense.zarr")], &[&options[..], &["--memory", "256MiB"], more].concat())
}

/// Reads a file in pieces; returns the open file, and the hash of its content.
fn pieces(path: &Path) -> (File, [u8; 32]) {
    let (mut file, mut hash, mut piece) = (File::open(path).unwrap(), Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return (file, hash.finalize().into()),
            n => hash.update(&piece[..n]),
        }
    }
}

/// Bytes of a file in the page cache: cachestat(2) of Linux 6.5, which libc does not have.
fn cached(file: &File) -> Option<u64> {
    let (range, mut counts) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: both structures consist of as many u64.
    let done = unsafe { libc::syscall(451, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    (done == 0).then(|| counts[0] * rustix::param::page_size() as u64)
}

#[test]
fn what_was_read_does_not_fill_the_page_cache() {
    // Each in one read, without the page cache.
    let whole = mount(&[]);
    let want = |path: &Path| -> [u8; 32] { Sha256::digest(fs::read(whole.join(path)).unwrap()).into() };
    for (more, keeps) in [(&[][..], false), (&["--cache"][..], true)] {
        let mount = mount(more);
        let mut read: Vec<(PathBuf, File)> = Vec::new();
        let mut stored = 0;
        // How many files are pushed before their reader comes depends on the machine, so this repeats until they are enough.
        for epoch in 0..60 {
            let epoch = PathBuf::from(format!("epoch-{epoch:04}"));
            for path in list(&mount.join(&epoch)).into_iter().map(|name| epoch.join(name)) {
                let (file, hash) = pieces(&mount.join(&path));
                assert!(hash == want(&path), "{}", path.display());
                assert!(FILE.contains(&file.metadata().unwrap().len()));
                read.push((path, file));
            }
            stored = mount.json(".shufflefs/stats.json")["served"]["page_cached"].as_u64().unwrap();
            if stored * FILE.start > ROOM * 3 / 2 {
                break;
            }
        }
        assert!(stored * FILE.start > ROOM * 3 / 2, "{stored} files were put there");
        match read.iter().map(|(_, file)| cached(file)).sum::<Option<u64>>() {
            None => eprintln!("no cachestat(2) here: only content is tested"),
            Some(bytes) if keeps => assert!(bytes > ROOM + FILE.end, "{bytes} bytes are kept"),
            Some(bytes) => assert!(bytes <= ROOM + FILE.end && bytes > ROOM / 2, "{bytes} bytes are kept"),
        }
        // Files whose pages were removed are read again.
        for (path, _) in read.iter().take(30) {
            assert!(pieces(&mount.join(path)).1 == want(path), "{}", path.display());
        }
        drop(read);
        mount.unmount();
    }
}
