//! Fetches ranges over plain HTTP from this machine, IN_FLIGHT at once, and discards them: the maximum rate of server and network,
//! without the costs of a loader. An answer 503 is retried. Prints requests, bytes and seconds as JSON.
//!
//! Usage: gets HOST:PORT IN_FLIGHT < LINES     (each line: PATH FIRST LAST, bytes inclusive)

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Requests the range of one line; the connection is kept. Returns the bytes of the body, or None if the server is busy.
fn get(stream: &mut BufReader<TcpStream>, host: &str, line: &str, body: &mut Vec<u8>) -> Result<Option<u64>> {
    let mut words = line.split_whitespace();
    let (Some(path), Some(first), Some(last)) = (words.next(), words.next(), words.next()) else {
        return Err(Error::other(format!("not PATH FIRST LAST: {line}")));
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-{last}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut header, mut length, mut status) = (String::new(), None, String::new());
    loop {
        header.clear();
        stream.read_line(&mut header)?;
        let text = header.trim_end();
        if text.is_empty() {
            break;
        }
        if status.is_empty() {
            status = text.to_owned();
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let Some(length) = length.filter(|_| [" 206 ", " 503 "].iter().any(|known| status.contains(known))) else {
        return Err(Error::other(format!("{status} for {line}")));
    };
    body.resize(length, 0);
    stream.read_exact(body)?;
    Ok(status.contains(" 206 ").then_some(length as u64))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, in_flight] = arguments.as_slice() else {
        return Err(Error::other("usage: gets HOST:PORT IN_FLIGHT < LINES"));
    };
    let in_flight: usize = in_flight.parse().map_err(Error::other)?;
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_>>()?;
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let worker = || -> Result<()> {
            let mut stream = BufReader::with_capacity(1 << 16, TcpStream::connect(host)?);
            let mut body = Vec::new();
            while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                let got = loop {
                    if let Some(got) = get(&mut stream, host, line, &mut body)? {
                        break got;
                    }
                };
                bytes.fetch_add(got, Ordering::Relaxed);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..in_flight.min(lines.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Error::other("a worker died"))?)
    })?;
    let (seconds, bytes) = (start.elapsed().as_secs_f64(), bytes.into_inner());
    println!("{{\"requests\": {}, \"bytes\": {bytes}, \"seconds\": {seconds:.4}}}", lines.len());
    Ok(())
}
