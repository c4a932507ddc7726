//! The filesystem that a mount serves, built from the options. TEMPORARY: one text file and the options, until the
//! rooms below are there.

use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

use super::options::Options;

/// Opens the stores and builds what is served.
pub fn filesystem(options: &Options) -> anyhow::Result<impl Filesystem + use<>> {
    for store in &options.stores {
        std::fs::metadata(store).with_context(|| store.display().to_string())?;
    }
    let pid = std::process::id();
    // SAFETY: these calls always succeed and touch no memory.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Ok(Placeholder {
        readme: format!(
            "shufflefs: {} with seed {}\n",
            options.source(),
            options.seed
        ),
        options: format!("{{\"pid\": {pid}}}\n"),
        uid: options.uid.unwrap_or(uid),
        gid: options.gid.unwrap_or(gid),
    })
}

struct Placeholder {
    readme: String,
    options: String,
    uid: u32,
    gid: u32,
}

const TTL: Duration = Duration::from_secs(86_400);
const README: u64 = 2;
const HIDDEN: u64 = 3;
const OPTIONS: u64 = 4;

impl Placeholder {
    fn content(&self, ino: u64) -> &[u8] {
        match ino {
            README => self.readme.as_bytes(),
            OPTIONS => self.options.as_bytes(),
            _ => &[],
        }
    }

    fn attr(&self, ino: u64) -> FileAttr {
        let is_file = matches!(ino, README | OPTIONS);
        FileAttr {
            ino: INodeNo(ino),
            size: self.content(ino).len() as u64,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_file { 0o444 } else { 0o555 },
            nlink: if is_file { 1 } else { 2 },
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Placeholder {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ino = match (parent.0, name.to_str()) {
            (1, Some("README.txt")) => README,
            (1, Some(".shufflefs")) => HIDDEN,
            (HIDDEN, Some("options.json")) => OPTIONS,
            _ => return reply.error(Errno::ENOENT),
        };
        reply.entry(&TTL, &self.attr(ino), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let content = self.content(ino.0);
        let start = content.len().min(offset as usize);
        let end = content.len().min(start + size as usize);
        reply.data(&content[start..end]);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = [
            (ino.0, FileType::Directory, "."),
            (1, FileType::Directory, ".."),
            (README, FileType::RegularFile, "README.txt"),
        ];
        let count = if ino.0 == 1 { 3 } else { 2 };
        for (index, (ino, kind, name)) in entries
            .into_iter()
            .take(count)
            .enumerate()
            .skip(offset as usize)
        {
            if reply.add(INodeNo(ino), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
