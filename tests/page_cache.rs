//! Files that are read in small pieces: what is put into the kernel's page cache for their readers, and taken out again.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use support::{Mount, list, store};

const EPOCHS: u64 = 24;
/// What stays, and what one file has at most.
const ROOM: u64 = 128 << 20;
const FILE: u64 = 2 << 20;

fn mount(more: &[&str]) -> Mount {
    let epochs = EPOCHS.to_string();
    let options = ["--batch-size", "16", "--block-size", "8", "--fetch-factor", "4", "--format", "npy", "--epochs"];
    Mount::new(&[store("wide-dense.zarr")], &[&options[..], &[&epochs, "--memory", "256MiB"], more].concat())
}

fn files() -> Vec<PathBuf> {
    let mount = mount(&[]);
    let epochs = (0..EPOCHS).map(|epoch| PathBuf::from(format!("epoch-{epoch:04}")));
    let files = epochs.flat_map(|epoch| list(&mount.join(&epoch)).into_iter().map(move |name| epoch.join(name)));
    files.collect()
}

/// Reads a file in pieces; the file, still open, and what it held.
fn pieces(path: PathBuf) -> (File, [u8; 32]) {
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
    let files = files();
    // In one piece each, past the page cache.
    let whole = mount(&[]);
    let want: Vec<[u8; 32]> =
        files.iter().map(|path| Sha256::digest(fs::read(whole.join(path)).unwrap()).into()).collect();
    whole.unmount();
    for (more, keeps) in [(&[][..], false), (&["--cache"][..], true)] {
        let mount = mount(more);
        let mut open = Vec::new();
        let mut total = 0;
        for (path, want) in files.iter().zip(&want) {
            let (file, hash) = pieces(mount.join(path));
            assert!(hash == *want, "{}", path.display());
            total += file.metadata().unwrap().len();
            open.push(file);
        }
        assert!(total > 3 * ROOM && total / files.len() as u64 <= FILE, "{total} bytes in {} files", files.len());
        let stored = mount.json(".shufflefs/stats.json")["served"]["page_cached"].as_u64().unwrap();
        assert!(stored > files.len() as u64 / 2, "{stored} of {} files were put there", files.len());
        let Some(bytes) = open.iter().map(cached).sum::<Option<u64>>() else {
            eprintln!("no cachestat(2) here: only content is tested");
            continue;
        };
        if keeps {
            assert!(bytes > total / 2, "{bytes} bytes of {total} are kept");
        } else {
            assert!(bytes <= ROOM + FILE && bytes > ROOM / 4, "{bytes} bytes of {total} are kept");
        }
        drop(open);
        // What was taken out is read again.
        for (path, want) in files.iter().zip(&want).take(30) {
            assert!(pieces(mount.join(path)).1 == *want, "{}", path.display());
        }
        mount.unmount();
    }
}
