//! Columns of var for the genes of the collection; they come from the first store, if it has all genes.

use crate::anndata::column::{Column, Numbers, Texts, Values};
use crate::anndata::dataframe::DataFrame;
use crate::anndata::names::Frame;
use crate::array::{Container, Counters};

use super::genes::{ColumnMap, DROPPED};

/// The columns of a store's var in the order of the collection's `genes` genes. Columns that cannot be read are left out with a log
/// line, as no batch needs them.
pub fn columns(store: &dyn Container, frame: Frame, map: &ColumnMap, genes: usize, counters: &Counters) -> Vec<Column> {
    let Ok(frame) = DataFrame::open(store, frame) else { return Vec::new() };
    if map.missing > 0 || (map.map.is_none() && frame.rows != genes as u64) {
        return Vec::new();
    }
    let order: Option<Vec<usize>> = map.map.as_ref().map(|map| {
        let mut order = vec![0; genes];
        for (stored, &gene) in map.iter().enumerate().filter(|(_, gene)| **gene != DROPPED) {
            order[gene as usize] = stored;
        }
        order
    });
    let read = |name: &String| match (frame.column(name, counters), &order) {
        (Ok(column), None) => Some(column),
        (Ok(column), Some(order)) => Some(Column { values: picked(&column.values, order), ..column }),
        (Err(error), _) => {
            tracing::info!("var column {name} is not served: {error}");
            None
        }
    };
    frame.columns.iter().filter_map(read).collect()
}

/// The values at the given positions.
fn picked(values: &Values, order: &[usize]) -> Values {
    let numbers = |numbers: &Numbers| Numbers {
        dtype: numbers.dtype,
        bytes: order.iter().flat_map(|&i| numbers.at(i).iter().copied()).collect(),
    };
    let mask = |mask: &Option<crate::anndata::bytes::Bytes>| {
        mask.as_ref().map(|mask| order.iter().map(|&i| mask[i]).collect())
    };
    match values {
        Values::Categorical { codes, categories, ordered } => {
            Values::Categorical { codes: numbers(codes), categories: categories.clone(), ordered: *ordered }
        }
        Values::Numbers { numbers: all, mask: missing, time } => {
            Values::Numbers { numbers: numbers(all), mask: mask(missing), time: *time }
        }
        Values::Text { texts, mask: missing, .. } => {
            let mut some = Texts::default();
            let (mut chars, mut bytes) = (0, 0);
            for text in order.iter().map(|&i| texts.at(i)) {
                (chars, bytes) = (chars.max(text.chars().count()), bytes.max(text.len()));
                some.push(text);
            }
            Values::Text { texts: some, mask: mask(missing), chars, bytes }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Dtype;

    #[test]
    fn values_follow_their_genes() {
        let numbers = Numbers { dtype: Dtype::I16, bytes: [1i16, 2, 3].iter().flat_map(|n| n.to_le_bytes()).collect() };
        let Values::Numbers { numbers, mask: Some(mask), .. } =
            picked(&Values::Numbers { numbers, mask: Some(vec![0, 1, 0].into()), time: None }, &[2, 1])
        else {
            panic!("other values");
        };
        assert_eq!((numbers.bytes.to_vec(), mask.to_vec()), (vec![3, 0, 2, 0], vec![0, 1]));
        let mut texts = Texts::default();
        ["long", "é", ""].iter().for_each(|text| texts.push(text));
        let Values::Text { texts, chars, bytes, .. } =
            picked(&Values::Text { texts, mask: None, chars: 4, bytes: 4 }, &[1, 2])
        else {
            panic!("other values");
        };
        assert_eq!((texts.at(0), texts.at(1), chars, bytes), ("é", "", 1, 2));
    }
}
