//! Labels as classes: codes of a view's rows, counted and summed.

use std::collections::HashMap;

use super::PlanError;

/// Marks a row that is of no class.
pub const NO_CLASS: u32 = u32::MAX;

/// Class codes end here: more labels than this are no classes, and a count is kept for each.
const CODES: u32 = 1 << 24;

/// One code for each row from its codes in several columns: the same where all are the same, [`NO_CLASS`] where any is.
/// Numbered from 0 in order of first appearance. Without columns all `rows` rows are of one class.
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

/// Rows of each class.
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

/// Weights that give every class the same chance: for each row one over its class's rows, 0 for [`NO_CLASS`].
pub fn balanced(codes: &[u32]) -> Result<Vec<f32>, PlanError> {
    let counts = class_rows(codes)?;
    // A row's own class has at least one row.
    let weight = |&code: &u32| counts.get(code as usize).map_or(0.0, |&count| (1.0 / count as f64) as f32);
    Ok(codes.iter().map(weight).collect())
}

/// The sum of the weights of each class's rows.
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
