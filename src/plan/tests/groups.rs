//! Sets and bags over random tables: every group is cut as promised, uniformly, whatever is requested first.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;

use super::draws::{batches, golden, plan, sorted, subset};
use super::*;
use crate::plan::groups::{GroupShape, Short};
use crate::plan::shuffle::{self, below};
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

/// The rows of a view: row counts of stores, global row numbers, a code for each.
struct Viewed {
    stores: Vec<u64>,
    rows: Vec<u64>,
    codes: Vec<u32>,
}

impl Viewed {
    fn awkward() -> Viewed {
        let (stores, rows) = subset();
        let codes = super::classes::codes(&rows);
        Viewed { stores, rows, codes }
    }

    /// A few stores and groups, whose rows are scattered or in runs.
    fn random(rng: &mut ChaCha8Rng) -> Viewed {
        let stores: Vec<u64> = (0..1 + below(rng, 4)).map(|_| below(rng, 400)).chain([1]).collect();
        let share = 1 + below(rng, 4);
        let rows: Vec<u64> = (0..stores.iter().sum()).filter(|_| below(rng, 4) < share).collect();
        let rows = if rows.is_empty() { vec![0] } else { rows };
        let (groups, run, missing) = (1 + below(rng, 40), 1 + below(rng, 30), below(rng, 2));
        let mut codes: Vec<u32> = Vec::new();
        while codes.len() < rows.len() {
            let code = below(rng, groups) as u32;
            let code = if missing > 0 && below(rng, 9) == 0 { NO_CLASS } else { code };
            codes.extend((0..1 + below(rng, run)).map(|_| code));
        }
        codes.truncate(rows.len());
        codes[0] = 0;
        Viewed { stores, rows, codes }
    }

    fn group(&self, row: u64) -> u32 {
        self.codes[self.rows.binary_search(&row).expect("selected")]
    }

    /// Checks an epoch of sets against the rows of each group.
    fn check_sets(&self, size: u64, short: Short, of: Sampling, epoch: u64) {
        let plan = plan(&self.stores, &self.rows, of, sets(&self.codes, size, short));
        let mut of_group: HashMap<u32, (u64, Vec<u64>)> = HashMap::new();
        for fetch in (0..plan.fetches()).rev() {
            let found = plan.epoch(epoch).fetch(fetch);
            assert_eq!(found.padding.len(), if short == Short::Pad { found.rows.len() } else { 0 });
            for (number, set) in found.rows.chunks(size as usize).enumerate() {
                assert_eq!(set.len() as u64, size);
                let code = self.group(set[0]);
                assert!(set.iter().all(|&row| self.group(row) == code), "one group");
                let padding = found.padding.chunks(size as usize).nth(number).unwrap_or_default();
                let own = set.iter().enumerate().filter(|(at, _)| !padding.get(*at).is_some_and(|&pads| pads));
                let (sets, rows) = of_group.entry(code).or_default();
                *sets += 1;
                rows.extend(own.map(|(_, row)| row));
            }
        }
        let (mut kept, mut all_sets) = (0, 0);
        for (code, all) in members(&self.rows, &self.codes) {
            let n = all.len() as u64;
            let wanted = if short == Short::Drop { n / size } else { n.div_ceil(size) };
            let (found, of) = of_group.remove(&code).unwrap_or_default();
            assert_eq!(found, wanted, "sets of group {code}");
            let mut distinct = sorted(of.clone());
            distinct.dedup();
            match short {
                Short::Drop => assert!(distinct.len() == of.len() && of.len() as u64 == wanted * size),
                Short::Pad => assert_eq!(sorted(of), all),
                Short::Repeat => assert!(distinct == all && of.len() as u64 == wanted * size),
            }
            (kept, all_sets) = (kept + distinct.len() as u64, all_sets + wanted);
        }
        assert!(of_group.is_empty());
        let told: HashMap<&str, u64> = plan.strategy().told().into_iter().collect();
        let grouped = self.codes.iter().filter(|&&code| code != NO_CLASS).count() as u64;
        assert_eq!((told["sets"], told["rows_in_short_sets_dropped"]), (all_sets, grouped - kept));
        assert_eq!(told["rows_without_group"], self.rows.len() as u64 - grouped);
        let filled = if short == Short::Pad { "rows_of_padding" } else { "rows_repeated" };
        assert_eq!(told[filled], all_sets * size - kept);
    }

    /// Checks an epoch of bags against the rows of each group.
    fn check_bags(&self, most: Option<u64>, of: Sampling, epoch: u64) {
        let groups = members(&self.rows, &self.codes);
        let plan = plan(&self.stores, &self.rows, of, bags(&self.codes, most));
        let mut found: Vec<(u32, Vec<u64>)> =
            batches(&plan, epoch).into_iter().map(|batch| (self.group(batch[0]), sorted(batch))).collect();
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

#[test]
fn sets_are_whole_and_of_one_group() {
    let viewed = Viewed::awkward();
    for (size, per_batch, block_size, fetch_factor) in [(1, 7, 3, 2), (7, 3, 16, 5), (64, 4, 16, 4), (50, 1, 4000, 3)] {
        for short in Short::ALL {
            for epoch in [0, 5] {
                viewed.check_sets(size, short, sampling(size * per_batch, block_size, fetch_factor), epoch);
            }
        }
    }
}

#[test]
fn random_tables_are_grouped_as_promised() {
    let rng = &mut shuffle::rng(shuffle::Domain::Rows, 17, 0, 0);
    for table in 0..300 {
        let viewed = Viewed::random(rng);
        let size = 1 + below(rng, 20);
        let of = sampling(size * (1 + below(rng, 6)), 1 + below(rng, 60), 1 + below(rng, 40));
        let largest = members(&viewed.rows, &viewed.codes).into_values().map(|rows| rows.len() as u64).max();
        for short in Short::ALL.into_iter().filter(|short| *short != Short::Drop || largest >= Some(size)) {
            viewed.check_sets(size, short, of, table);
        }
        viewed.check_bags(if table % 2 == 0 { None } else { Some(size) }, of, table);
    }
}

/// Within a stretch of 16 blocks, any two rows of a group are in the same set equally often.
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
    // 3 of 11 others are in the set of a row.
    let expected = epochs as f64 * 3.0 / 11.0;
    let chi: f64 = (0..12)
        .flat_map(|a| (a + 1..12).map(move |b| (a, b)))
        .map(|(a, b)| (together[a][b] as f64 - expected).powi(2) / expected)
        .sum();
    // 66 pairs; exceeds 130 with probability below 1e-5.
    assert!(chi < 130.0, "{chi}");
}

/// Groups of 5 rows in a sorted store: a fetch reads runs of at least a block, not of a group.
#[test]
fn small_neighbours_are_read_together() {
    let n = 20_000u64;
    let codes: Vec<u32> = (0..n).map(|row| (row / 5) as u32).collect();
    let rows: Vec<u64> = (0..n).collect();
    let plan = plan(&[n], &rows, sampling(64, 64, 40), sets(&codes, 4, Short::Drop));
    for fetch in 0..plan.fetches() {
        let mut groups: Vec<u64> = plan.epoch(0).fetch(fetch).rows.iter().map(|row| row / 5).collect();
        groups.sort_unstable();
        groups.dedup();
        let runs = 1 + groups.windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
        // 13 groups fill a block; fetch boundaries divide two of the runs.
        assert!(groups.len() / 13 + 2 >= runs, "{} groups in {runs} runs", groups.len());
    }
}

#[test]
fn golden_groups() {
    let (stores, rows) = subset();
    let codes = super::classes::codes(&rows);
    let of = |draw| golden(&plan(&stores, &rows, sampling(64, 16, 8), draw));
    assert_eq!(
        [
            of(sets(&codes, 16, Short::Repeat)),
            of(sets(&codes, 16, Short::Drop)),
            of(sets(&codes, 1, Short::Pad)),
            of(bags(&codes, None)),
            of(bags(&codes, Some(100))),
        ],
        ["8d7f0dd1938644c2", "7d341689e4427cbf", "e82cc3bd336effcd", "a6a86dd28499a867", "290d8183354b8426"]
    );
}

#[test]
fn bags_are_groups_and_draws_are_even() {
    let viewed = Viewed::awkward();
    for most in [None, Some(1), Some(100)] {
        for (block_size, fetch_factor) in [(1, 1), (16, 3), (4000, 20)] {
            for epoch in [0, 9] {
                viewed.check_bags(most, sampling(64, block_size, fetch_factor), epoch);
            }
        }
    }
    // 50 of 105 rows in blocks of 10, the last one short: each row equally often.
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
