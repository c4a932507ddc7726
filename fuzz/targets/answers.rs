//! Answers of servers: a store on a server that answers each request with the next part of the input, including headers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use super::{mount, read};
use shufflefs::storage::remote::{self, Settings};

/// The next answers, the last first.
static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn answer(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_millis(200)));
    let mut asked = Vec::new();
    let mut part = [0; 4096];
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut part) {
            Ok(got) if got > 0 => asked.extend_from_slice(&part[..got]),
            _ => return,
        }
    }
    let answer = ANSWERS
        .lock()
        .unwrap()
        .pop()
        .unwrap_or_else(|| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let _ = client.write_all(&answer);
}

static SERVER: LazyLock<u16> = LazyLock::new(|| {
    // One try, as pauses between retries would take most of the time.
    remote::configure(Settings { anonymous: true, patience: Duration::from_millis(40), index: None, cache: None });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
});

/// One input.
pub fn run(data: &[u8]) {
    let Some((&kind, content)) = data.split_first() else { return };
    let mut answers: Vec<Vec<u8>> = content
        .split(|&byte| byte == 0xff)
        .map(|part| {
            // A part that is not an answer is sent as a body.
            if part.starts_with(b"HTTP/") {
                return part.to_vec();
            }
            let range = format!("bytes 0-{}/{}", part.len().saturating_sub(1), part.len());
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: {range}\r\nETag: \"a\"\r\n\r\n",
                part.len()
            );
            [head.as_bytes(), part].concat()
        })
        .collect();
    answers.reverse();
    *ANSWERS.lock().unwrap() = answers;
    // A new name each time, because versions of objects are remembered.
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let end = ["zarr", "h5ad", "zarr.zip"][usize::from(kind) % 3];
    let store = PathBuf::from(format!("http://127.0.0.1:{}/{number}.{end}", *SERVER));
    if kind & 0x80 == 0 { read(&store, "X") } else { mount(&store) }
}
