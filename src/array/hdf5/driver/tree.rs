//! Parses nodes of a chunk index for the addresses of their children, which can then be fetched together; the library would read them one
//! by one.

/// Maximum dimensions of an array (HDF5's own limit).
const MOST_AXES: u64 = 32;
const HEADER: u64 = 24;

/// The level of a node of a version 1 B-tree of chunks (`TREE`, type 1, level above 0), and the addresses of its children; `None` for
/// anything else. All nodes of a tree have the size of `node`.
pub fn children(node: &[u8]) -> Option<(u8, Vec<u64>)> {
    let [b'T', b'R', b'E', b'E', 1, level, low, high] = *node.first_chunk::<8>()? else { return None };
    if level == 0 {
        return None;
    }
    let used = u64::from(u16::from_le_bytes([low, high]));
    // A node has room for 2K children and one more key. K is 32 unless the file sets it; a key has the chunk's size, its filter mask, and
    // an offset for each axis and one more.
    let size = node.len() as u64;
    let fits = |key: &u64| {
        let entries = size.checked_sub(HEADER + key)?;
        (entries % (key + 8) == 0).then_some((entries / (key + 8), *key))
    };
    let keys: Vec<u64> = (1..=MOST_AXES).map(|axes| 16 + 8 * axes).collect();
    let all: Vec<(u64, u64)> = keys.iter().filter_map(fits).collect();
    let &(room, key) = all.iter().find(|&&(room, _)| room == 64).or_else(|| all.first())?;
    if used > room {
        return None;
    }
    let child = |index: u64| {
        let at = usize::try_from(HEADER + index * (key + 8) + key).ok()?;
        Some(u64::from_le_bytes(node.get(at..at + 8)?.try_into().ok()?))
    };
    Some((level, (0..used).map(child).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_a_node_are_found() {
        let mut node = vec![0; 24 + 64 * 32 + 24];
        node[..8].copy_from_slice(&[b'T', b'R', b'E', b'E', 1, 2, 3, 0]);
        for (index, address) in [4096_u64, 8192, 99].into_iter().enumerate() {
            let at = 24 + index * 32 + 24;
            node[at..at + 8].copy_from_slice(&address.to_le_bytes());
        }
        assert_eq!(children(&node), Some((2, vec![4096, 8192, 99])));
        node[5] = 0;
        assert_eq!(children(&node), None);
        node[5] = 1;
        node[6] = 200;
        assert_eq!(children(&node), None);
        assert_eq!(children(b"TREE"), None);
    }
}
