//! `.shufflefs/advice`: says what readers wait for, and which option would help.
//!
//! It uses only the statistics, so that it agrees with them.

use serde_json::Value;

/// If readers wait for less than this share of the time, they count as not waiting.
const HARDLY: f64 = 0.05;

/// Loads of each image beyond which there is too little memory.
const AGAIN: f64 = 1.5;

/// The advice for a mount with these statistics.
pub fn advice(stats: &Value) -> String {
    let number = |group: &str, name: &str| stats[group][name].as_f64().unwrap_or(0.0);
    let (rows, uptime) = (number("served", "rows"), stats["uptime_seconds"].as_f64().unwrap_or(0.0));
    if rows == 0.0 {
        return "Nothing has been read to its end yet: read some batches, then look here again.\n".to_owned();
    }
    let waited = number("served", "wait_seconds");
    let latency = number("storage", "latency_microseconds");
    let mut text = format!("Readers waited {waited:.1} s (all readers together) in the {uptime:.0} s of this mount.\n");
    let batches = number("served", "batches") + number("served", "page_cached");
    let cause = if waited < HARDLY * uptime {
        "The trainer: batches are ready before they are asked for. Nothing here would make it faster.".to_owned()
    } else if number("loads", "images") > AGAIN * batches.max(1.0) + 16.0 {
        "Memory: batches are loaded more often than they are read, as they have to go before that. A larger --memory, a \
         smaller --fetch-factor, or fewer readers in different epochs would help."
            .to_owned()
    } else if latency > 0.0 && number("storage", "depth") > 1.0 {
        format!(
            "Storage: a read takes {:.1} ms, and {:.0} are kept in flight. A larger --block-size makes fewer and larger \
             requests (a smaller --fetch-factor keeps memory), a larger --io-depth more of them at a time; where the data \
             fits, a copy on a local disk is best.",
            latency / 1000.0,
            number("storage", "depth"),
        )
    } else if number("store", "decode_seconds") > number("store", "read_seconds") {
        "Decoding: the processor decompresses chunks. More --threads if there are cores, a larger --memory if a quarter of \
         the decoded data would fit (it is then kept), or stores that are not compressed, or with lz4 or zstd."
            .to_owned()
    } else {
        "Reading: data is copied from the page cache, or read from a disk at its speed. More --threads if there are cores; a \
         larger --block-size reads longer runs."
            .to_owned()
    };
    text.push_str(&format!("What they wait for: {cause}\n"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(waited: f64, images: u64, latency: u64, decode: f64) -> String {
        advice(&json!({
            "uptime_seconds": 100.0,
            "served": {"rows": 1000, "batches": 100, "page_cached": 0, "wait_seconds": waited},
            "loads": {"images": images},
            "storage": {"latency_microseconds": latency, "depth": if latency > 0 { 100 } else { 1 }},
            "store": {"decode_seconds": decode, "read_seconds": 1.0},
        }))
    }

    #[test]
    fn each_cause_is_named_with_its_option() {
        let cases = [
            (of(1.0, 100, 5000, 9.0), "The trainer", "Nothing"),
            (of(50.0, 400, 5000, 9.0), "Memory", "--memory"),
            (of(50.0, 100, 5000, 9.0), "Storage: a read takes 5.0 ms, and 100 are kept in flight", "--io-depth"),
            (of(50.0, 100, 0, 9.0), "Decoding", "--threads"),
            (of(50.0, 100, 0, 0.5), "Reading", "--block-size"),
        ];
        for (text, cause, option) in cases {
            assert!(text.contains(cause) && text.contains(option), "{text}");
        }
        assert!(advice(&json!({})).starts_with("Nothing has been read"));
    }
}
