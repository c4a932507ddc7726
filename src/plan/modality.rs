//! The same cells in another modality: one row or none for each row.
//!
//! Memory: 4 bytes a row.

use super::companion::Companion;
use super::{FetchRows, JoinedRows, PlanError, Sampling};

/// Marks a row that has none in the modality.
pub const NO_ROW: u32 = u32::MAX;

/// The modality's row for each row.
#[derive(Clone, Debug)]
pub struct Modality {
    /// [`NO_ROW`] if there is none.
    rows: Vec<u32>,
}

impl Modality {
    /// `rows`: for each row the modality's row, or [`NO_ROW`]. `count`: number of rows of the modality.
    ///
    /// # Errors
    /// The modality has too many rows.
    pub fn new(rows: Vec<u32>, count: u64) -> Result<Modality, PlanError> {
        let limit = u64::from(NO_ROW);
        if count > limit {
            return Err(PlanError::TooManyRows { rows: count, limit });
        }
        Ok(Modality { rows })
    }

    /// The modality's row for a row.
    pub fn of(&self, row: u64) -> Option<u64> {
        let found = self.rows.get(usize::try_from(row).ok()?).copied()?;
        (found != NO_ROW).then_some(u64::from(found))
    }
}

impl Companion for Modality {
    /// Nothing is drawn: the rows of the fetch that exist in the modality, in their order.
    fn beside(&self, _sampling: &Sampling, _place: (u64, u64), rows: &FetchRows) -> FetchRows {
        let mut joined = JoinedRows { bounds: rows.bounds.clone(), ..JoinedRows::default() };
        let (mut found, mut at) = (FetchRows { bounds: vec![0], ..FetchRows::default() }, 0);
        for &end in rows.bounds.iter().skip(1) {
            for place in at..end {
                let row = rows.rows[place];
                let of = self.of(row);
                joined.has.push(of.is_some());
                let Some(of) = of else { continue };
                found.rows.push(of);
                let is_padding = rows.padding.get(place).is_some_and(|&filling| filling);
                joined.names.push(if is_padding { -1 } else { row as i64 });
                if !rows.padding.is_empty() {
                    found.padding.push(is_padding);
                }
            }
            found.bounds.push(found.rows.len());
            at = end;
        }
        found.joined = Some(joined);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_one_are_left_out_and_named() {
        let modality = Modality::new(vec![3, NO_ROW, 0, 1], 4).unwrap_or_else(|error| panic!("{error}"));
        let rows = FetchRows {
            rows: vec![1, 0, 1, 1, 3, 2],
            bounds: vec![0, 2, 4, 6],
            padding: vec![false, false, false, false, false, true],
            ..FetchRows::default()
        };
        let sampling = Sampling { batch_size: 2, block_size: 1, fetch_factor: 3, seed: 0, drop_last: false };
        let beside = modality.beside(&sampling, (0, 0), &rows);
        assert_eq!((beside.batch(0), beside.batch(1), beside.batch(2)), (&[3][..], &[][..], &[1, 0][..]));
        assert_eq!((beside.padding(0), beside.padding(2)), (&[false][..], &[false, true][..]));
        let joined = beside.joined.unwrap_or_default();
        assert_eq!(joined.has, [false, true, false, false, true, true]);
        assert_eq!((joined.bounds, joined.names), (rows.bounds, vec![0, 3, -1]));
    }
}
