//! Inode numbers: the components of a path, packed into 64 bits.
//!
//! | kind | bits, high to low |
//! | --- | --- |
//! | fixed | 00, number |
//! | epoch, batch | 01, format + 1 (4; 0 for the directory), epoch (26), batch (32) |
//! | of a rank | 10, format + 1 (4; 15 for the rank's directory), rank (22), epoch (12), batch (24) |
//!
//! A rank is the number of its pair: of * (of - 1) / 2 + index, so world sizes to 2,895 have room.

use super::{Control, Node};
use crate::format::Extension;
use crate::plan::rank::Rank;

const EPOCH_BITS: u32 = 26;
const BATCH_BITS: u32 = 32;
const RANK_BITS: u32 = 22;
const RANK_EPOCH_BITS: u32 = 12;
const RANK_BATCH_BITS: u32 = 24;
const RANK_DIR: u64 = 15;
const FIRST_CONTROL: u64 = 16;
const FIRST_CATEGORY: u64 = 1 << 32;

/// The inode number of a node; `None` where a component has no room.
pub fn pack(node: &Node) -> Option<u64> {
    let fits = |value: u64, bits: u32| (value >> bits == 0).then_some(value);
    let place = |rank: Option<Rank>, format: u64, epoch: u64, batch: u64| match rank {
        None => Some((1 << 62) | (format << 58) | (fits(epoch, EPOCH_BITS)? << BATCH_BITS) | fits(batch, BATCH_BITS)?),
        Some(rank) => {
            let pair = rank.of.checked_mul(rank.of.checked_sub(1)?)? / 2 + rank.index;
            let low = (fits(epoch, RANK_EPOCH_BITS)? << RANK_BATCH_BITS) | fits(batch, RANK_BATCH_BITS)?;
            Some((2 << 62) | (format << 58) | (fits(pair, RANK_BITS)? << (RANK_EPOCH_BITS + RANK_BATCH_BITS)) | low)
        }
    };
    match *node {
        Node::Root => Some(1),
        Node::Readme => Some(2),
        Node::Dataset => Some(3),
        Node::Var => Some(4),
        Node::Categories => Some(5),
        Node::ControlDir => Some(6),
        Node::Control(control) => Some(FIRST_CONTROL + control as u64),
        Node::Category(column) => Some(FIRST_CATEGORY + fits(column as u64, 32)?),
        Node::RankDir(rank) => place(Some(rank), RANK_DIR, 0, 0),
        Node::Epoch { rank, epoch } => place(rank, 0, epoch, 0),
        Node::Batch { rank, epoch, batch, extension } => {
            let format = Extension::ALL.iter().position(|&other| other == extension)? as u64 + 1;
            place(rank, format, epoch, batch)
        }
    }
}

/// The node of an inode number, whether or not this mount has it.
pub fn unpack(ino: u64) -> Option<Node> {
    let low = |bits: u32| ino & ((1 << bits) - 1);
    let format = (ino >> 58) & 15;
    let (rank, epoch, batch) = match ino >> 62 {
        0 => return fixed(ino),
        1 => (None, low(58) >> BATCH_BITS, low(BATCH_BITS)),
        2 => {
            let rank = unpair(low(58) >> (RANK_EPOCH_BITS + RANK_BATCH_BITS));
            (Some(rank), low(RANK_EPOCH_BITS + RANK_BATCH_BITS) >> RANK_BATCH_BITS, low(RANK_BATCH_BITS))
        }
        _ => return None,
    };
    match (format, rank) {
        (0, _) => Some(Node::Epoch { rank, epoch }),
        (RANK_DIR, Some(rank)) => Some(Node::RankDir(rank)),
        _ => Some(Node::Batch { rank, epoch, batch, extension: *Extension::ALL.get(format as usize - 1)? }),
    }
}

fn fixed(ino: u64) -> Option<Node> {
    match ino {
        1 => Some(Node::Root),
        2 => Some(Node::Readme),
        3 => Some(Node::Dataset),
        4 => Some(Node::Var),
        5 => Some(Node::Categories),
        6 => Some(Node::ControlDir),
        FIRST_CATEGORY.. => Some(Node::Category((ino - FIRST_CATEGORY) as usize)),
        FIRST_CONTROL.. => Control::ALL.get((ino - FIRST_CONTROL) as usize).map(|&control| Node::Control(control)),
        _ => None,
    }
}

/// The rank of a pair number: the largest `of` with of * (of - 1) / 2 <= pair.
fn unpair(pair: u64) -> Rank {
    let of = (8 * pair + 1).isqrt().div_ceil(2);
    Rank { index: pair - of * (of - 1) / 2, of }
}
