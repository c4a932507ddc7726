//! Recipes and tables of `--tokens`, as files; and rows of X as tokens, by recipes with arbitrary numbers.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::place;
use shufflefs::batch::tokens::{TokenScratch, draw_key, tokenize};
use shufflefs::collection::tokens::{Longer, Ties, TokenOrder, TokenSpec, Tokens};

static PLACE: LazyLock<PathBuf> = LazyLock::new(|| place("tokens"));

/// The recipe, a zero byte, then the table.
fn files(content: &[u8], is_json: bool) {
    let cut = content.iter().position(|&byte| byte == 0).unwrap_or(content.len());
    let (recipe, table) = (PLACE.join("recipe.toml"), PLACE.join(if is_json { "table.json" } else { "table.tsv" }));
    fs::write(&recipe, &content[..cut]).unwrap();
    fs::write(&table, content.get(cut + 1..).unwrap_or_default()).unwrap();
    for tokens in [recipe.as_os_str(), "geneformer".as_ref(), "scgpt".as_ref()] {
        let words: [OsString; 8] = [
            "shufflefs".into(),
            "mount".into(),
            "--tokens".into(),
            tokens.into(),
            "--token-table".into(),
            table.clone().into(),
            "a".into(),
            "m".into(),
        ];
        if let Err(line) = shufflefs::cli::parses(words.into()) {
            assert!(!line.contains('\n'), "{line}");
        }
    }
}

fn row(numbers: &[u8]) {
    let [how, length, bins, target, rest @ ..] = numbers else { return };
    let order = match how % 2 {
        0 => TokenOrder::Rank { target_sum: f64::from(*target) * 100.0 },
        _ => TokenOrder::Bins {
            bins: u32::from(*bins) + 2,
            ties: if how & 2 == 0 { Ties::Spread } else { Ties::Last },
            longer: if how & 4 == 0 { Longer::Sample } else { Longer::Cut },
        },
    };
    let special = |bit: u8, token: u32| (how & bit != 0).then_some(token);
    let length = u64::from(*length) + 2;
    let (first, last) = (special(8, 1), special(16, 2));
    let spec =
        TokenSpec { name: "fuzz".to_owned(), order, genes: Vec::new(), length, first, last, pad: 0, pad_value: 0.0 };
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (at, bytes) in rest.as_chunks::<4>().0.iter().enumerate() {
        columns.push(at as u32);
        values.push(f64::from(f32::from_le_bytes(*bytes)));
    }
    let ids: Vec<u32> = (0..columns.len() as u32).map(|column| column + 3).collect();
    let factors: Vec<f64> = (0..columns.len()).map(|column| 1.0 / (column % 7 + 1) as f64).collect();
    let tokens = Tokens { spec: Arc::new(spec), ids, factors };
    let total = values.iter().sum();
    let mut scratch = TokenScratch::default();
    let got = tokenize(&tokens, (&columns, &values), total, draw_key(1, 2), &mut scratch).to_vec();
    // Sizes are known before values are read.
    assert_eq!(got.len() as u64, tokens.spec.count(columns.len() as u64));
    assert!(got.len() as u64 <= length);
    assert!(got.iter().all(|&(token, _)| u64::from(token) < tokens.vocabulary()));
    // Scratch memory keeps no state; the stored order of values does not matter.
    let bits =
        |tokens: &[(u32, f32)]| tokens.iter().map(|(token, value)| (*token, value.to_bits())).collect::<Vec<_>>();
    let again = tokenize(&tokens, (&columns, &values), total, draw_key(1, 2), &mut scratch).to_vec();
    assert_eq!(bits(&again), bits(&got));
    columns.reverse();
    values.reverse();
    let turned = tokenize(&tokens, (&columns, &values), total, draw_key(1, 2), &mut scratch);
    assert_eq!(bits(turned), bits(&got));
}

/// One input.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((kind, content)) if kind % 4 < 2 => files(content, kind % 2 == 0),
        Some((_, content)) => row(content),
        None => {}
    }
}
