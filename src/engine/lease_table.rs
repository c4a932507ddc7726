//! Tracks the memory that the kernel may show to readers, so that it is not reused before all have released it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::memory::{Memory, is_unshared};

/// Leases by the number of their file.
#[derive(Default)]
pub struct LeaseTable {
    entries: HashMap<u64, Lease>,
    /// Memory of dropped images that the kernel may still map.
    gone: Vec<Memory>,
    bytes: u64,
}

struct Lease {
    file: Arc<File>,
    bytes: u64,
    /// Our own handles: while there is one, the kernel may be about to open the file.
    holders: usize,
}

impl LeaseTable {
    /// Adds a lease on a file, unless more than `most` bytes would be leased in total.
    pub fn lease(&mut self, memory: &Memory, most: u64) -> bool {
        let Some((file, number)) = memory.as_file() else { return false };
        let bytes = memory.capacity() as u64;
        if !self.entries.contains_key(&number) && self.bytes + bytes > most {
            self.sweep();
            if self.bytes + bytes > most {
                return false;
            }
        }
        let entry = self.entries.entry(number).or_insert_with(|| {
            self.bytes += bytes;
            Lease { file: file.clone(), bytes, holders: 0 }
        });
        entry.holders += 1;
        true
    }

    /// Ends a lease.
    pub fn end_lease(&mut self, memory: &Memory) {
        if let Some(entry) = memory.as_file().and_then(|(_, number)| self.entries.get_mut(&number)) {
            entry.holders -= 1;
        }
    }

    /// Retains a dropped image's memory while the kernel may still map it; otherwise returns it.
    pub fn keep(&mut self, memory: Memory) -> Option<Memory> {
        let number = memory.as_file().map(|(_, number)| number);
        if let Some((number, entry)) = number.and_then(|number| Some((number, self.entries.get(&number)?))) {
            if entry.holders > 0 || !is_unshared(&entry.file) {
                self.gone.push(memory);
                return None;
            }
            self.bytes -= entry.bytes;
            self.entries.remove(&number);
        }
        Some(memory)
    }

    /// Retained memory that the kernel no longer maps.
    pub fn returned(&mut self) -> Vec<Memory> {
        if self.gone.is_empty() {
            return Vec::new();
        }
        self.sweep();
        let entries = &self.entries;
        let free = |memory: &mut Memory| memory.as_file().is_none_or(|(_, number)| !entries.contains_key(&number));
        self.gone.extract_if(.., free).collect()
    }

    fn sweep(&mut self) {
        self.entries.retain(|_, entry| entry.holders > 0 || !is_unshared(&entry.file));
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
    }

    /// Leased bytes.
    pub fn bytes(&mut self) -> u64 {
        self.sweep();
        self.bytes
    }

    /// Leased bytes whose image was dropped.
    pub fn gone_bytes(&self) -> u64 {
        self.gone.iter().map(|memory| memory.capacity() as u64).sum()
    }
}
