//! Labels as classes: counts and sums over the codes of a view's rows.

use std::collections::HashMap;

use super::PlanError;

/// The code of a row without class.
pub const NO_CLASS: u32 = u32::MAX;

/// Maximum class code: a count is kept for each, and columns with more labels are not classes.
const CODES: u32 = 1 << 24;

/// Combines codes in several columns into one for each row: equal if all are equal, [`NO_CLASS`] if one is. Numbered from 0 in order of
/// first
/// appearance. Without columns all `rows` rows have one class.
pub fn joint(rows: usize, columns: &[Vec<u32>]) -> Vec<u32> {
    let mut joint = vec![0; rows];
    for column in columns {
        let mut known: HashMap<(u32, u32), u32> = HashMap::new();
        for (code, &other) in joint.iter_mut().zip(column) {
            if *code == NO_CLASS || other == NO_CLASS {
                *code = NO_CLASS;
            } else {
                let next = known.len() as u32;
                *code = *known.entry((*code, other)).or_insert(next);
            }
        }
    }
    joint
}

/// The number of rows of each class.
pub fn class_rows(codes: &[u32]) -> Result<Vec<u64>, PlanError> {
    let mut counts: Vec<u64> = Vec::new();
    for &code in codes.iter().filter(|&&code| code != NO_CLASS) {
        if code >= CODES {
            return Err(PlanError::Code { code, limit: CODES - 1 });
        }
        if counts.len() <= code as usize {
            counts.resize(code as usize + 1, 0);
        }
        counts[code as usize] += 1;
    }
    Ok(counts)
}

/// Weights that give every class the same probability: 1 / rows of the class for each row, 0 for [`NO_CLASS`].
pub fn balanced(codes: &[u32]) -> Result<Vec<f32>, PlanError> {
    let counts = class_rows(codes)?;
    // A class that occurs has at least one row.
    let weight = |&code: &u32| counts.get(code as usize).map_or(0.0, |&count| (1.0 / count as f64) as f32);
    Ok(codes.iter().map(weight).collect())
}

/// The sum of the weights of the rows of each class.
pub fn class_sums(codes: &[u32], weights: &[f32]) -> Vec<f64> {
    let classes = codes.iter().filter(|&&code| code != NO_CLASS).max().map_or(0, |&code| code as usize + 1);
    let mut sums = vec![0.0; classes.min(CODES as usize)];
    for (&code, &weight) in codes.iter().zip(weights) {
        if let Some(sum) = sums.get_mut(code as usize) {
            *sum += f64::from(weight);
        }
    }
    sums
}
