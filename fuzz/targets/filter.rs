//! Expressions of --where, lists of rows and weights, fractions of a split: input from users and their files.

use std::sync::LazyLock;

use shufflefs::anndata::column::{Categories, Numbers, Texts, Values};
use shufflefs::array::Dtype;
use shufflefs::view::ViewError;
use shufflefs::view::filter::{ColumnLookup, Filter};
use shufflefs::view::list::{self, Names};
use shufflefs::view::split::fractions;

struct Table(Vec<(&'static str, Values)>);

const ROWS: u64 = 70;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let rows = ROWS as usize;
    let mut texts = Texts::default();
    (0..rows).for_each(|row| texts.push(["a", "", "b\"", "é"][row % 4]));
    let labels = Categories { labels: vec!["a".to_owned(), "b".to_owned()], numbers: None };
    let codes = Numbers {
        dtype: Dtype::I8,
        bytes: (0..rows).map(|row| (row % 3) as u8).map(|code| if code == 2 { 255 } else { code }).collect(),
    };
    let floats =
        (0..rows).flat_map(|row| (if row % 5 == 0 { f32::NAN } else { row as f32 / 7.0 }).to_le_bytes()).collect();
    let mask = Some((0..rows).map(|row| u8::from(row % 6 == 0)).collect());
    Table(vec![
        ("t", Values::Text { texts, mask: None, chars: 2, bytes: 2 }),
        ("c", Values::Categorical { codes: codes.clone(), categories: labels.clone(), ordered: false }),
        ("o", Values::Categorical { codes, categories: labels, ordered: true }),
        ("f", Values::Numbers { numbers: Numbers { dtype: Dtype::F32, bytes: floats }, mask: None, time: None }),
        (
            "n",
            Values::Numbers {
                numbers: Numbers { dtype: Dtype::U8, bytes: (0..rows as u8).collect() },
                mask,
                time: None,
            },
        ),
        (
            "b",
            Values::Numbers {
                numbers: Numbers { dtype: Dtype::Bool, bytes: (0..rows).map(|row| (row % 2) as u8).collect() },
                mask: None,
                time: None,
            },
        ),
    ])
});

impl ColumnLookup for Table {
    fn column(&self, name: &str) -> Option<&Values> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, values)| values)
    }

    fn known(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

struct Stores;

impl Names for Stores {
    fn stores(&self, path: &str) -> Vec<usize> {
        if path == "a" { vec![0] } else { Vec::new() }
    }

    fn rows(&self, _: usize) -> Result<(u64, Vec<String>), String> {
        Ok((0, ["x", "y", "x"].map(str::to_owned).into()))
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((&kind, content)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let listed = list::rows(content, ROWS, &Stores);
            assert!(listed.map_or(true, |bits| bits.iter().all(|row| row < ROWS)));
        }
        1 => drop(list::weights(content, ROWS)),
        2 => drop(
            fractions(&String::from_utf8_lossy(content))
                .map(|all| assert!(all.iter().map(|f| f.parts).sum::<u64>() <= 1_000_000_000)),
        ),
        _ => {
            let text = String::from_utf8_lossy(content);
            let evaluated = |text: &str| Filter::parse(text).and_then(|filter| filter.evaluate(ROWS, &*TABLE));
            match evaluated(&text) {
                Err(ViewError::Filter { at, .. }) => assert!((1..=text.chars().count() + 1).contains(&at)),
                Err(error) => panic!("{error}"),
                // Rows where it is true and rows where its negation is true are all rows.
                Ok(bits) => {
                    if let Ok(others) = evaluated(&format!("not ({text})")) {
                        assert_eq!(others, bits.invert());
                    }
                }
            }
        }
    }
}
