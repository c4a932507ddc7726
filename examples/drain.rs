//! Reads every file of an epoch in name order into one reused buffer: the maximum rate of the mount, without the costs of a client.
//! Prints files, bytes and seconds as JSON.
//!
//! Usage: drain DIRECTORY [EXTENSION [FIRST [STEP]]]   (a worker of several reads every STEP-th file from FIRST)

use std::fs::{File, read_dir};
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).and_then(|text| text.parse().ok()).unwrap_or(default);
    let directory = arguments.first().map(String::as_str).unwrap_or(".");
    let mut paths: Vec<PathBuf> =
        read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    // In huge pages, because the kernel looks up every page of a buffer that it reads into.
    let mut memory = vec![0; 6 << 20];
    let start = memory.as_ptr().align_offset(2 << 20);
    let buffer = &mut memory[start..][..4 << 20];
    // SAFETY: advice about owned memory; it may be refused.
    unsafe { libc::madvise(buffer.as_mut_ptr().cast(), buffer.len(), libc::MADV_HUGEPAGE) };
    let (mut files, mut bytes) = (0u64, 0u64);
    let start = Instant::now();
    for path in paths.iter().skip(number(2, 0)).step_by(number(3, 1)) {
        let path = arguments.get(1).map_or(path.clone(), |extension| path.with_extension(extension));
        let mut file = File::open(&path)?;
        // Reads as much as the file has, like std and Python for whole files: without a last read that returns 0.
        let mut left = file.metadata()?.len() as usize;
        while left > 0 {
            let end = left.min(buffer.len());
            let n = file.read(&mut buffer[..end])?;
            if n == 0 {
                return Err(std::io::Error::other(format!("{} ended early", path.display())));
            }
            left -= n;
            bytes += n as u64;
        }
        files += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"files\": {files}, \"bytes\": {bytes}, \"seconds\": {seconds:.4}}}");
    Ok(())
}
