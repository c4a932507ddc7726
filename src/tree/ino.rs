//! Inode numbers: the components of a path, packed into 64 bits.
//!
//! | kind | bits, high to low |
//! | --- | --- |
//! | fixed | 00, number |
//! | epoch, batch | 01, format (4; 0 for the directory, 15 for the view's), view (v), epoch (the rest), batch (b) |
//! | file of many batches | 11, format (4; 0 for `by-COLUMN/`), 00, view (v), epoch (the rest), W (12; 0: no rank), rank (12) |
//! | as stored; by label | the same, 01 or 10, view (v), label + 1 (the rest; 0 for all), column (16) |
//! | in the directory of an epoch in a directory format | 001, 1 with a rank, format (4), view (v), epoch (the rest), W (12) and rank (12) with a rank, number (n) |
//! | of a rank | 10, format (4; 0 for the directory, 15 for the rank's), view (v), epoch (the rest), W (12), place (p) |
//!
//! v, b, p and n are the widths that the mount's views and batches need, so that all other bits are left for the epoch. So a number is a
//! function of the path and the options. `place` counts the batches of rank 0 of W, then those of rank 1, and so on: the parts of W ranks
//! have few more batches than the whole.

use super::{Control, Node, Sequence, Tree};
use crate::format::DirectoryKind;
use crate::plan::rank::Rank;

/// Bits below kind and format.
const PATH_BITS: u32 = 58;
/// Bounds epoch numbers: 2^32 are enough, and larger ones could overflow sums.
const MOST_EPOCH_BITS: u32 = 32;
const WORLD_BITS: u32 = 12;
/// Bits below the kind of sequence, in the number of a file of many batches.
const WHOLE_BITS: u32 = PATH_BITS - 2;
/// In place of a format: the directory that holds the epochs.
const ABOVE: u64 = 15;
const FIRST_CONTROL: u64 = 16;
const FIRST_CATEGORY: u64 = 1 << 32;

/// How many bits each component has in one mount.
struct Division {
    view: u32,
    epoch: u32,
    rank_epoch: u32,
    batch: u32,
    place: u32,
}

impl Division {
    fn of(tree: &Tree) -> Division {
        let view = bits(tree.views.len() as u64);
        // With more batches than fit, those that fit exist, and no ranks.
        let batch = bits(tree.batches()).min(PATH_BITS - view);
        // The parts of W ranks together have at most W - 1 batches more than the whole.
        let place = bits(tree.batches().saturating_add(1 << WORLD_BITS)).min(PATH_BITS);
        let left = |taken: u32| PATH_BITS.saturating_sub(taken).min(MOST_EPOCH_BITS);
        Division { view, epoch: left(view + batch), rank_epoch: left(view + WORLD_BITS + place), batch, place }
    }
}

impl Division {
    fn has_ranks(&self) -> bool {
        self.view + WORLD_BITS + self.place <= PATH_BITS
    }
}

/// Bits that the numbers 0..count need.
fn bits(count: u64) -> u32 {
    count.saturating_sub(1).checked_ilog2().map_or(0, |log| log + 1)
}

fn fits(value: u64, bits: u32) -> Option<u64> {
    (value >> bits.min(63) == 0).then_some(value)
}

/// The inode number of a node; `None` where a component does not fit.
pub fn pack(tree: &Tree, node: &Node) -> Option<u64> {
    let division = Division::of(tree);
    let place = |view: u16, rank: Option<Rank>, format: u64, epoch: u64, batch: u64| {
        let Division { view: view_bits, epoch: epoch_bits, rank_epoch, batch: batch_bits, place } = division;
        let view = fits(view.into(), view_bits)?;
        let (kind, low, below) = match rank {
            None => (1, (fits(epoch, epoch_bits)? << batch_bits) | fits(batch, batch_bits)?, epoch_bits + batch_bits),
            Some(_) if !division.has_ranks() => return None,
            Some(rank) => {
                let number = fits(first_place(tree, view as u16, rank, format).checked_add(batch)?, place)?;
                let world = fits(rank.of, WORLD_BITS)?;
                let low = (fits(epoch, rank_epoch)? << (WORLD_BITS + place)) | (world << place) | number;
                (2, low, rank_epoch + WORLD_BITS + place)
            }
        };
        Some((kind << 62) | (format << PATH_BITS) | shifted(view, below) | low)
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
        Node::View(view) => place(view, None, ABOVE, 0, 0),
        Node::RankDir { view, rank } => place(view, Some(rank), ABOVE, 0, 0),
        Node::Epoch { view, rank, epoch } => place(view, rank, 0, epoch, 0),
        Node::Labels { view, column } => pack_whole(tree, view, None, Sequence::By(column), 0),
        Node::Whole { view, rank, sequence, extension } => {
            pack_whole(tree, view, rank, sequence, extension.code().into())
        }
        Node::Batch { view, rank, epoch, batch, extension } => place(view, rank, extension.code().into(), epoch, batch),
        Node::Inside { view, rank, epoch, kind, number } => pack_inside(tree, (view, rank), epoch, kind, number),
    }
}

/// For entries in the directory of an epoch: bits below kind, format and the flag for a rank.
const INSIDE_BITS: u32 = 56;
const INSIDE: u64 = 1 << 61;
const INSIDE_OF_RANK: u64 = 1 << 60;

/// Bits of the view, of the epoch, of each of W and rank, and of the entry's number.
fn inside_bits(tree: &Tree, has_rank: bool) -> (u32, u32, u32, u32) {
    let view = bits(tree.views.len() as u64);
    let number = bits(tree.numbers).min(INSIDE_BITS - view);
    let world = if has_rank { WORLD_BITS } else { 0 };
    let epoch = INSIDE_BITS.saturating_sub(view + 2 * world + number).min(MOST_EPOCH_BITS);
    (view, epoch, world, number)
}

fn pack_inside(
    tree: &Tree,
    (view, rank): (u16, Option<Rank>),
    epoch: u64,
    kind: DirectoryKind,
    number: u64,
) -> Option<u64> {
    let (view_bits, epoch_bits, world_bits, number_bits) = inside_bits(tree, rank.is_some());
    let below = epoch_bits + 2 * world_bits + number_bits;
    if view_bits + below > INSIDE_BITS {
        return None;
    }
    let (of, index) = rank.map_or((0, 0), |rank| (rank.of, rank.index));
    let mut low = fits(epoch, epoch_bits)?;
    for (value, bits) in [(of, world_bits), (index, world_bits), (number, number_bits)] {
        low = (low << bits) | fits(value, bits)?;
    }
    let of_rank = if rank.is_some() { INSIDE_OF_RANK } else { 0 };
    Some(
        INSIDE
            | of_rank
            | (u64::from(kind.code()) << INSIDE_BITS)
            | shifted(fits(view.into(), view_bits)?, below)
            | low,
    )
}

fn unpack_inside(tree: &Tree, ino: u64) -> Option<Node> {
    let has_rank = ino & INSIDE_OF_RANK != 0;
    let (view_bits, epoch_bits, world_bits, number_bits) = inside_bits(tree, has_rank);
    let mut rest = ino;
    let mut take = |bits: u32| {
        let part = rest & ((1 << bits) - 1);
        rest >>= bits;
        part
    };
    let (number, index, of) = (take(number_bits), take(world_bits), take(world_bits));
    let (epoch, view) = (take(epoch_bits), u16::try_from(take(view_bits)).ok()?);
    let code = (ino >> INSIDE_BITS) & 15;
    let kind = *tree.directories.iter().find(|kind| u64::from(kind.code()) == code)?;
    Some(Node::Inside { view, rank: has_rank.then_some(Rank { index, of }), epoch, kind, number })
}

/// Packs a file of many batches. There is one for each rank, so W and rank are stored as they are.
fn pack_whole(tree: &Tree, view: u16, rank: Option<Rank>, sequence: Sequence, format: u64) -> Option<u64> {
    let free = WHOLE_BITS - bits(tree.views.len() as u64);
    // The number 0 is the whole column.
    let by = |column: u16, number: u64| Some((fits(number, free - 16)? << 16) | u64::from(column));
    let (sequence, low) = match sequence {
        Sequence::Epoch(epoch) => {
            let epoch = fits(epoch, (free - 2 * WORLD_BITS).min(MOST_EPOCH_BITS))?;
            let world = fits(rank.map_or(0, |rank| rank.of), WORLD_BITS)?;
            let index = fits(rank.map_or(0, |rank| rank.index), WORLD_BITS)?;
            (0, (epoch << (2 * WORLD_BITS)) | (world << WORLD_BITS) | index)
        }
        Sequence::Stored => (1, 0),
        Sequence::By(column) => (2, by(column, 0)?),
        Sequence::Label(column, label) => (2, by(column, u64::from(label) + 1)?),
    };
    Some((3 << 62) | (format << PATH_BITS) | (sequence << WHOLE_BITS) | shifted(view.into(), free) | low)
}

fn unpack_whole(tree: &Tree, ino: u64) -> Option<Node> {
    let part = |from: u32, bits: u32| (ino >> from) & ((1 << bits) - 1);
    let free = WHOLE_BITS - bits(tree.views.len() as u64);
    let view = u16::try_from(part(free, WHOLE_BITS - free)).ok()?;
    let format = part(PATH_BITS, 4);
    let column = part(0, 16) as u16;
    let mut rank = None;
    let sequence = match (part(WHOLE_BITS, PATH_BITS - WHOLE_BITS), part(16, free - 16)) {
        (0, _) => {
            rank = match (part(WORLD_BITS, WORLD_BITS), part(0, WORLD_BITS)) {
                (0, _) => None,
                (of, index) => Some(Rank { index, of }),
            };
            Sequence::Epoch(part(2 * WORLD_BITS, free - 2 * WORLD_BITS))
        }
        (1, _) => Sequence::Stored,
        (2, 0) if format == 0 => return Some(Node::Labels { view, column }),
        (2, 0) => Sequence::By(column),
        (2, number) => Sequence::Label(column, u32::try_from(number - 1).ok()?),
        _ => return None,
    };
    let extension = *tree.whole.iter().find(|known| u64::from(known.code()) == format)?;
    Some(Node::Whole { view, rank, sequence, extension })
}

/// The node of an inode number, without a check that this mount has it.
pub fn unpack(tree: &Tree, ino: u64) -> Option<Node> {
    let division = Division::of(tree);
    let Division { view: view_bits, epoch: epoch_bits, rank_epoch, batch: batch_bits, place } = division;
    let part = |from: u32, bits: u32| if from > 63 { 0 } else { (ino >> from) & ((1 << bits) - 1) };
    let format = part(PATH_BITS, 4);
    let (view, world, epoch, number) = match ino >> 62 {
        0 if ino & INSIDE != 0 => return unpack_inside(tree, ino),
        0 => return fixed(ino),
        1 => (part(epoch_bits + batch_bits, view_bits), None, part(batch_bits, epoch_bits), part(0, batch_bits)),
        2 if division.has_ranks() => {
            let low = WORLD_BITS + place;
            let world = part(place, WORLD_BITS);
            (part(rank_epoch + low, view_bits), Some(world), part(low, rank_epoch), part(0, place))
        }
        3 => return unpack_whole(tree, ino),
        _ => return None,
    };
    let view = u16::try_from(view).ok()?;
    let (rank, batch) = match world {
        None => (None, number),
        Some(0) => return None,
        // For directories the number is the rank, for files the batch.
        Some(of) if format == 0 || format == ABOVE => (Some(Rank { index: number, of }), 0),
        Some(of) => {
            let each = tree.batches_of(view, Some(Rank { index: 0, of }));
            (Some(Rank { index: number.checked_div(each)?, of }), number % each)
        }
    };
    match (format, rank) {
        (0, _) => Some(Node::Epoch { view, rank, epoch }),
        (ABOVE, None) => Some(Node::View(view)),
        (ABOVE, Some(rank)) => Some(Node::RankDir { view, rank }),
        _ => {
            let extension = *tree.extensions.iter().find(|known| u64::from(known.code()) == format)?;
            Some(Node::Batch { view, rank, epoch, batch, extension })
        }
    }
}

/// The place of a rank's first batch among those of all W ranks; for directories, the rank itself.
fn first_place(tree: &Tree, view: u16, rank: Rank, format: u64) -> u64 {
    match format {
        0 | ABOVE => rank.index,
        _ => rank.index.saturating_mul(tree.batches_of(view, Some(rank))),
    }
}

/// The view in the highest bits; with a single view it takes none.
fn shifted(view: u64, bits: u32) -> u64 {
    if view == 0 { 0 } else { view << bits }
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
