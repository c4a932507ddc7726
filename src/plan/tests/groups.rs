//! Sets and bags over random tables: every group cut as promised, uniform, the same whatever is asked for first.

use std::collections::HashMap;

use super::draws::{batches, plan, sorted, subset};
use super::*;
use crate::plan::groups::{GroupShape, Short};
use crate::plan::strategy::Inputs;

fn sets(codes: &[u32], set_size: u64, short: Short) -> super::draws::Draw {
    let shape = GroupShape { set_size: Some(set_size), short, bag_max: None };
    ("sets", Inputs { codes: Some(codes.to_vec()), shape, ..Inputs::default() })
}

fn bags(codes: &[u32], bag_max: Option<u64>) -> super::draws::Draw {
    let shape = GroupShape { bag_max, ..GroupShape::default() };
    ("bags", Inputs { codes: Some(codes.to_vec()), shape, ..Inputs::default() })
}

fn members(rows: &[u64], codes: &[u32]) -> HashMap<u32, Vec<u64>> {
    let mut groups: HashMap<u32, Vec<u64>> = HashMap::new();
    for (&row, &code) in rows.iter().zip(codes).filter(|(_, code)| **code != NO_CLASS) {
        groups.entry(code).or_default().push(row);
    }
    groups
}

#[test]
fn sets_are_whole_and_of_one_group() {
    let (stores, rows) = subset();
    let codes = super::classes::codes(&rows);
    let groups = members(&rows, &codes);
    let group = |row: &u64| codes[rows.binary_search(row).expect("selected")];
    for (size, per_batch, block_size, fetch_factor) in [(1, 7, 3, 2), (7, 3, 16, 5), (64, 4, 16, 4), (50, 1, 4000, 3)] {
        for short in Short::ALL {
            let plan =
                plan(&stores, &rows, sampling(size * per_batch, block_size, fetch_factor), sets(&codes, size, short));
            for epoch in [0, 5] {
                let mut of_group: HashMap<u32, (u64, Vec<u64>)> = HashMap::new();
                for fetch in 0..plan.fetches() {
                    let found = plan.epoch(epoch).fetch(fetch);
                    assert_eq!(found.padding.len(), if short == Short::Pad { found.rows.len() } else { 0 });
                    for (number, set) in found.rows.chunks(size as usize).enumerate() {
                        assert_eq!(set.len() as u64, size);
                        let code = group(&set[0]);
                        assert!(set.iter().all(|row| group(row) == code), "one group");
                        let padding = found.padding.chunks(size as usize).nth(number).unwrap_or_default();
                        let own = set.iter().enumerate().filter(|(at, _)| !padding.get(*at).is_some_and(|&pads| pads));
                        let (sets, rows) = of_group.entry(code).or_default();
                        *sets += 1;
                        rows.extend(own.map(|(_, row)| row));
                    }
                }
                for (code, all) in &groups {
                    let n = all.len() as u64;
                    let wanted = if short == Short::Drop { n / size } else { n.div_ceil(size) };
                    let (found, of) = of_group.remove(code).unwrap_or_default();
                    assert_eq!(found, wanted, "sets of group {code}");
                    let mut distinct = sorted(of.clone());
                    distinct.dedup();
                    match short {
                        Short::Drop => assert!(distinct.len() == of.len() && of.len() as u64 == wanted * size),
                        Short::Pad => assert_eq!(sorted(of), *all),
                        Short::Repeat => assert!(distinct == *all && of.len() as u64 == wanted * size),
                    }
                }
                assert!(of_group.is_empty());
            }
        }
    }
}

/// Within a stretch of 16 blocks every two rows of a group are in one set as often as any other two.
#[test]
fn sets_of_a_small_group_are_a_uniform_partition() {
    let n = 12u64;
    let codes = vec![0; n as usize];
    let rows: Vec<u64> = (0..n).collect();
    let plan = plan(&[n], &rows, sampling(4, 2, 48), sets(&codes, 4, Short::Repeat));
    let mut together = [[0u64; 12]; 12];
    let epochs = 4000;
    for epoch in 0..epochs {
        for set in plan.epoch(epoch).fetch(0).rows.chunks(4) {
            for (&a, &b) in set.iter().flat_map(|a| set.iter().map(move |b| (a, b))).filter(|(a, b)| a < b) {
                together[a as usize][b as usize] += 1;
            }
        }
    }
    // Of 11 others 3 are in the set of a row.
    let expected = epochs as f64 * 3.0 / 11.0;
    let chi: f64 = (0..12)
        .flat_map(|a| (a + 1..12).map(move |b| (a, b)))
        .map(|(a, b)| (together[a][b] as f64 - expected).powi(2) / expected)
        .sum();
    // 66 pairs; beyond 130 less than once in 1e5.
    assert!(chi < 130.0, "{chi}");
}

#[test]
fn bags_are_groups_and_draws_are_even() {
    let (stores, rows) = subset();
    let codes = super::classes::codes(&rows);
    let groups = members(&rows, &codes);
    for most in [None, Some(1), Some(100)] {
        for (block_size, fetch_factor) in [(1, 1), (16, 3), (4000, 20)] {
            let plan = plan(&stores, &rows, sampling(64, block_size, fetch_factor), bags(&codes, most));
            for epoch in [0, 9] {
                let mut found: Vec<(u32, Vec<u64>)> = Vec::new();
                for batch in batches(&plan, epoch) {
                    let code = codes[rows.binary_search(&batch[0]).expect("selected")];
                    found.push((code, sorted(batch)));
                }
                found.sort_unstable();
                assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0) && found.len() == groups.len());
                for (code, bag) in found {
                    let all = &groups[&code];
                    assert_eq!(bag.len() as u64, (all.len() as u64).min(most.unwrap_or(u64::MAX)));
                    assert!(bag.windows(2).all(|pair| pair[0] < pair[1]), "no row twice");
                    assert!(bag.iter().all(|row| all.binary_search(row).is_ok()));
                }
            }
        }
    }
    // 50 of 105 rows in blocks of 10, the last one short: each as often as any other.
    let rows: Vec<u64> = (0..105).collect();
    let plan = plan(&[105], &rows, sampling(64, 10, 1), bags(&[0; 105], Some(50)));
    let (mut times, epochs) = ([0u64; 105], 8000);
    for epoch in 0..epochs {
        plan.epoch(epoch).fetch(0).rows.iter().for_each(|&row| times[row as usize] += 1);
    }
    let p = 50.0 / 105.0;
    for (row, &times) in times.iter().enumerate() {
        let apart = (times as f64 - epochs as f64 * p) / (epochs as f64 * p * (1.0 - p)).sqrt();
        assert!(apart.abs() < 4.5, "row {row}: {times}");
    }
}

#[test]
fn sets_that_cannot_be() {
    let of = |draw: super::draws::Draw, batch: u64| {
        let registered = crate::plan::strategy::by_name(draw.0).expect("registered");
        registered.strategy(Rows::all(&[6]), sampling(batch, 2, 2), draw.1).err()
    };
    assert_eq!(of(sets(&[0; 6], 4, Short::Drop), 6), Some(PlanError::SetSize { size: 4, batch: 6 }));
    assert_eq!(of(sets(&[0, 0, 1, 1, 1, 2], 4, Short::Drop), 4), Some(PlanError::NoSet { size: 4, largest: 3 }));
    assert_eq!(of(sets(&[NO_CLASS; 6], 2, Short::Pad), 4), Some(PlanError::NoClass));
    assert_eq!(of(bags(&[NO_CLASS; 6], None), 4), Some(PlanError::NoClass));
}
