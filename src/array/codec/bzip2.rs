//! Concatenated bzip2 streams, by libbzip2.

use ::bzip2::{Decompress, Status};

use super::Fault;
use super::stream::{Step, run};

/// Decodes into the front of `out`; returns the number of bytes written.
pub fn decode(mut input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut filled = 0;
    loop {
        let mut stream = Decompress::new(false);
        let step = |input: &[u8], place: &mut [u8]| {
            let before = (stream.total_in(), stream.total_out());
            let status = stream.decompress(input, place).map_err(|_| "the stream is damaged")?;
            let (read, wrote) = (stream.total_in() - before.0, stream.total_out() - before.1);
            Ok(Step { read, wrote, ended: status == Status::StreamEnd })
        };
        if !run(&mut input, out, &mut filled, step)? {
            return Err("the stream ends early".into());
        }
        // As Python's bz2: further streams are decoded, and trailing garbage is ignored.
        if !input.starts_with(b"BZh") {
            return Ok(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn encode(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ::bzip2::read::BzEncoder::new(data, ::bzip2::Compression::fast()).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn streams_follow_one_another_and_sizes_are_held() {
        let data: Vec<u8> = (0..5000_u32).map(|i| (i / 7) as u8).collect();
        let stored = [encode(&data), encode(&data[..10])].concat();
        let mut out = vec![0; 5010];
        assert_eq!(decode(&stored, &mut out).unwrap(), 5010);
        assert_eq!(out, [&data[..], &data[..10]].concat());
        assert!(matches!(decode(&stored, &mut out[..5009]), Err(Fault::Full)));
        assert!(matches!(decode(&stored, &mut out[..17]), Err(Fault::Full)));
        for cut in [0, 3, 4, 30] {
            assert!(decode(&stored[..cut], &mut out).is_err());
        }
    }
}
