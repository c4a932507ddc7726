//! `--block-size auto` and `--fetch-factor auto`, which follow from the collection alone.
//!
//! They must not depend on the machine (cores, memory), because the bytes of batches depend on them.

use crate::collection::StorageProfile;

const MIN_BLOCK: u64 = 16;
const MAX_BLOCK: u64 = 1024;
/// Maximum of chunk bytes decoded / bytes needed.
const MAX_AMPLIFICATION: f64 = 1.25;
const MAX_FETCH_BYTES: f64 = (1u64 << 30) as f64;
/// Bytes of a request over a network below which the round trip takes longer than the transfer.
const MIN_REQUEST: f64 = (1u64 << 20) as f64;
const MIN_K: u64 = 256;
const MAX_K: u64 = 1024;

/// Rows of a block: the smallest power of two from 16 to 1024 that decodes at most 1.25 times what it needs, or the largest for which a
/// fetch of 256 blocks stays under 1 GiB; whole chunk rows for a chunked dense matrix. For remote stores a block also has at least 1 MiB
/// for each request, under the same limit.
pub fn block_size(profile: &StorageProfile) -> u64 {
    let fits = |block: u64| MIN_K as f64 * block as f64 * profile.row_bytes <= MAX_FETCH_BYTES;
    if let Some(rows) = profile.dense_chunk_rows {
        let least = profile.request_row_bytes.map_or(0.0, |row| (MIN_REQUEST / row.max(1.0)).ceil()) as u64;
        let least = least.clamp(MIN_BLOCK, MAX_BLOCK);
        let whole = |least: u64| least.div_ceil(rows.max(1)) * rows.max(1);
        if let Some(block) = [whole(least), whole(MIN_BLOCK)].into_iter().find(|&block| fits(block)) {
            return block;
        }
    }
    let small = |block: u64| profile.request_row_bytes.is_some_and(|row| block as f64 * row < MIN_REQUEST);
    let mut block = MIN_BLOCK;
    while block < MAX_BLOCK && (amplification(profile, block) > MAX_AMPLIFICATION || small(block)) && fits(2 * block) {
        block *= 2;
    }
    block
}

/// Batches of a fetch, so that k = 1024; lowered to no less than k = 256 while the fetch exceeds 1 GiB.
pub fn fetch_factor(profile: &StorageProfile, batch_size: u64, block_size: u64) -> u64 {
    let mut k = MAX_K;
    while k > MIN_K && (k * block_size) as f64 * profile.row_bytes > MAX_FETCH_BYTES {
        k /= 2;
    }
    (k * block_size).div_ceil(batch_size)
}

/// Expected bytes decoded / bytes needed for a block. A run of b rows at a random position touches 1 + (b - 1) / c chunks of c rows on
/// average, approximated by b / c + 1.
fn amplification(profile: &StorageProfile, block: u64) -> f64 {
    profile.chunk_rows.map_or(1.0, |rows| 1.0 + rows / block as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_chunks() {
        let raw =
            StorageProfile { row_bytes: 12_000.0, chunk_rows: None, dense_chunk_rows: None, request_row_bytes: None };
        assert_eq!((block_size(&raw), fetch_factor(&raw, 256, 16)), (16, 64));
        let gzip = StorageProfile { chunk_rows: Some(12.0), ..raw };
        assert_eq!((block_size(&gzip), fetch_factor(&gzip, 256, 64)), (64, 256));
        // annbatch's chunks would need 1,024 rows, but 256 such blocks have 3 GiB: so 256 rows, and k = 256.
        let sharded = StorageProfile { chunk_rows: Some(195.0), ..raw };
        assert_eq!((block_size(&sharded), fetch_factor(&sharded, 256, 256)), (256, 256));
        let dense =
            StorageProfile { row_bytes: 4.0 * 50.0, chunk_rows: Some(782.0), dense_chunk_rows: Some(782), ..raw };
        assert_eq!(block_size(&dense), 782);
        let wide = StorageProfile { row_bytes: 4.0 * 20_000.0, ..dense };
        assert_eq!(block_size(&wide), 32);
    }

    #[test]
    fn requests_over_a_network_are_large() {
        let local =
            StorageProfile { row_bytes: 12_000.0, chunk_rows: None, dense_chunk_rows: None, request_row_bytes: None };
        let remote = StorageProfile { request_row_bytes: Some(6_000.0), ..local };
        assert_eq!((block_size(&local), block_size(&remote)), (16, 256));
        // 256 blocks still fit in 1 GiB.
        let wide = StorageProfile { row_bytes: 100_000.0, request_row_bytes: Some(50_000.0), ..local };
        assert_eq!(block_size(&wide), 32);
        let dense =
            StorageProfile { row_bytes: 200.0, dense_chunk_rows: Some(100), request_row_bytes: Some(200.0), ..local };
        assert_eq!(block_size(&dense), 1100);
    }
}
