//! The cache of a node (`--cache-dir`) and the data kept for a remount: fewer requests, and never a wrong byte, whatever
//! happens to the directory or the daemon.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::remote::{SMALL, Server};
use crate::support::{Mount, ROOT, list, succeed};

/// The number of requests so far.
fn count(server: &Server) -> u64 {
    ask(server, "count")
}

/// A counter of the server.
pub fn ask(server: &Server, what: &str) -> u64 {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", server.said)).expect("connects");
    let request = format!("GET /{what} HTTP/1.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("writes");
    let mut answer = String::new();
    let mut byte = [0];
    while !answer.ends_with("\r\n\r\n") && stream.read(&mut byte).expect("reads") == 1 {
        answer.push(char::from(byte[0]));
    }
    let length = answer.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.trim().parse().expect("a number")];
    stream.read_exact(&mut body).expect("reads");
    String::from_utf8(body).expect("text").parse().expect("a number")
}

fn epoch(mount: &Mount, number: u64) -> Vec<Vec<u8>> {
    let place = mount.join(format!("epoch-{number:04}"));
    list(&place).into_iter().map(|name| fs::read(place.join(name)).expect("reads")).collect()
}

fn mounted(store: &Path, cache: &Path, index: &Path) -> Mount {
    let options = ["--cache-dir", cache.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
    Mount::new(&[store.to_owned()], &[&SMALL[..], &options].concat())
}

/// Stores larger than the first answer for an object, so that opening them needs further requests.
pub fn large() -> Vec<(String, PathBuf)> {
    let data = Path::new(ROOT).join("../shared/data");
    let names = ["infercnvpy_oligodendroglioma.h5ad", "scvi_pbmc5k_protein.h5ad", "scanpy_pbmc68k_reduced_v3.zarr.zip"];
    let stores = names.map(|name| (name.to_owned(), data.join(name)));
    stores.into_iter().filter(|(_, path)| path.exists()).collect()
}

#[test]
fn a_second_epoch_and_a_remount_ask_for_little() {
    let stores = large();
    let Some((_, first)) = stores.first() else { return };
    let server = Server::objects(first.parent().expect("a directory"));
    for (name, path) in &stores {
        let (cache, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = epoch(&Mount::new(std::slice::from_ref(path), &SMALL), 0);
        let url = server.url("none-0", name);
        let before = count(&server);
        let mount = mounted(&url, cache.path(), index.path());
        let opened = count(&server) - before;
        assert!(epoch(&mount, 0) == expected, "{name}");
        drop(epoch(&mount, 1));
        let before = count(&server);
        drop(epoch(&mount, 2));
        assert_eq!(count(&server), before, "{name}: all chunks were read before");
        let stats = mount.json(".shufflefs/stats.json")["storage"].clone();
        assert!(stats["cache_misses"].as_u64() > Some(0), "{stats}");
        mount.unmount();
        let before = count(&server);
        let mount = mounted(&url, cache.path(), index.path());
        let again = count(&server) - before;
        println!("{name}: {opened} requests to open, {again} to open again");
        if name.ends_with(".h5ad") {
            assert!(opened <= 8 && again <= 1, "{name}: {opened} requests to open, {again} to open again");
        }
        assert!(epoch(&mount, 0) == expected, "{name}");
        // Data that the first mount read are read from the disk.
        assert!(count(&server) - before <= again + 2, "{name}: {} requests", count(&server) - before);
        let stats = mount.json(".shufflefs/stats.json")["storage"].clone();
        assert!(stats["cache_hits"].as_u64() > Some(0), "{stats}");
    }
}

/// The disk of the cache is full, from the start or soon.
#[test]
fn a_full_disk_only_stops_the_writing() {
    let stores = large();
    let Some((name, path)) = stores.first() else { return };
    let server = Server::objects(path.parent().expect("a directory"));
    let expected = epoch(&Mount::new(std::slice::from_ref(path), &SMALL), 0);
    for size in ["64k", "2m"] {
        let (disk, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(disk.path())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("no rights to mount a tmpfs: not tested");
            return;
        }
        let mount = mounted(&server.url("none-0", name), disk.path(), index.path());
        let got = [epoch(&mount, 0), epoch(&mount, 0)];
        mount.unmount();
        succeed(Command::new("umount").arg(disk.path()));
        assert!(got.iter().all(|got| *got == expected), "{size}");
    }
}

/// A daemon that is killed while it writes leaves blocks that a later daemon reads correctly.
#[test]
fn a_killed_daemon_leaves_no_wrong_byte() {
    let stores = large();
    let Some((name, path)) = stores.first() else { return };
    let server = Server::objects(path.parent().expect("a directory"));
    let (cache, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = server.url("none-0", name);
    let expected = epoch(&Mount::new(std::slice::from_ref(path), &SMALL), 0);
    for files in 0..4 {
        let mount = mounted(&url, cache.path(), index.path());
        let place = mount.join("epoch-0000");
        let names: Vec<PathBuf> = list(&place).into_iter().map(|name| place.join(name)).take(files).collect();
        names.iter().for_each(|name| drop(fs::read(name).expect("reads")));
        let pid = mount.json(".shufflefs/options.json")["pid"].as_i64().unwrap();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        succeed(Command::new("umount").arg("-l").arg(mount.path()));
    }
    assert!(epoch(&mounted(&url, cache.path(), index.path()), 0) == expected);
}
