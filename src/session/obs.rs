//! obs columns of a collection for views: read on demand, as labels, as weights, or for expressions.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::anndata::column::{Numbers, Texts, Values};
use crate::array::cast::{to_f64, to_i64, to_text};
use crate::array::{Counters, Dtype};
use crate::collection::{Collection, Store};
use crate::plan::strategy::Inputs;
use crate::plan::{NO_CLASS, Rows};
use crate::view::bits::Bits;
use crate::view::filter::{ColumnLookup, Filter};
use crate::view::list::{self, Names};
use crate::view::split::{Labelled, Split};
use crate::view::suggest::suggest;

use super::error::{About, SessionError};
use super::spec::{DrawSpec, ROW_NAMES, STORE_NUMBER, SplitSpec, ViewSpec, WeightSource};

/// Labels of all rows.
pub struct Labels {
    /// The code of each row; `NO_CLASS` if it has no label.
    pub codes: Vec<u32>,
    pub labels: Vec<String>,
}

/// obs columns of a collection, read on demand.
pub struct Obs<'a> {
    pub collection: &'a Collection,
    counters: &'a Counters,
    known: Vec<String>,
    /// Columns read that are not served.
    read: HashMap<String, Values>,
}

impl ColumnLookup for Obs<'_> {
    fn column(&self, name: &str) -> Option<&Values> {
        let served = self.collection.table.columns.iter().find(|column| column.name == name);
        served.map(|column| &column.values).or_else(|| self.read.get(name))
    }

    fn known(&self) -> Vec<&str> {
        self.known.iter().map(String::as_str).chain([ROW_NAMES[0], STORE_NUMBER]).collect()
    }
}

impl<'a> Obs<'a> {
    pub fn new(collection: &'a Collection, counters: &'a Counters) -> Result<Obs<'a>, SessionError> {
        Ok(Obs { collection, counters, known: collection.obs_columns()?, read: HashMap::new() })
    }

    /// Reads a column if it exists and has not been read.
    pub fn load(&mut self, name: &str) -> Result<(), SessionError> {
        if self.column(name).is_some() {
            return Ok(());
        }
        let values = if self.known.iter().any(|known| known == name) {
            self.collection.obs_column(name, self.counters)?
        } else if ROW_NAMES.contains(&name) {
            self.row_names()?
        } else if name == STORE_NUMBER {
            let number = |(number, store): (usize, &Store)| {
                std::iter::repeat_n((number as u32).to_le_bytes(), store.rows as usize)
            };
            let bytes = self.collection.stores.iter().enumerate().flat_map(number).flatten().collect();
            Values::Numbers { numbers: Numbers { dtype: Dtype::U32, bytes }, mask: None, time: None }
        } else {
            return Ok(());
        };
        self.read.insert(name.to_owned(), values);
        Ok(())
    }

    fn row_names(&self) -> Result<Values, SessionError> {
        let mut texts = Texts::default();
        for store in 0..self.collection.stores.len() {
            self.collection.row_names(store, self.counters)?.iter().for_each(|name| texts.push(name));
        }
        Ok(Values::Text { texts, mask: None, chars: 0, bytes: 0 })
    }

    fn loaded(&mut self, name: &str) -> Result<&Values, SessionError> {
        self.load(name)?;
        self.column(name).ok_or_else(|| {
            let known = suggest(name, self.known().into_iter());
            SessionError::Refused(format!("no obs column is called {name}; {known}"))
        })
    }

    /// The rows among a set (or all) that an expression and a file select; `None`: all.
    pub fn restricted(
        &mut self,
        of: Option<&Bits>,
        filter: Option<&Filter>,
        file: Option<&Path>,
    ) -> Result<Option<Bits>, SessionError> {
        let rows = self.collection.table.n_rows;
        let mut left = of.cloned();
        if let Some(path) = file {
            let content = std::fs::read(path).about(format_args!("rows {}", path.display()))?;
            let listed = list::rows(&content, rows, self).about(path.display())?;
            left = Some(left.map_or_else(|| listed.clone(), |left| left.and(&listed)));
        }
        if let Some(filter) = filter {
            for name in filter.columns() {
                self.load(name)?;
            }
            let found = filter.evaluate(rows, self)?;
            left = Some(left.map_or_else(|| found.clone(), |left| left.and(&found)));
        }
        Ok(left)
    }

    /// A column as labels. Integers are labels by their text; floats are refused.
    pub fn labels(&mut self, name: &str) -> Result<Labels, SessionError> {
        let values = self.loaded(name)?;
        let (mut labels, mut known) = (Vec::new(), HashMap::new());
        let mut code = |label: &str| {
            *known.entry(label.to_owned()).or_insert_with(|| {
                labels.push(label.to_owned());
                labels.len() as u32 - 1
            })
        };
        let codes = match values {
            Values::Categorical { codes, categories, .. } => {
                let of = |i: usize| u32::try_from(to_i64(codes.dtype, codes.at(i))).unwrap_or(NO_CLASS);
                return Ok(Labels { codes: (0..codes.len()).map(of).collect(), labels: categories.labels.clone() });
            }
            Values::Numbers { numbers, .. } if numbers.dtype.is_float() => {
                let dtype = numbers.dtype;
                return Err(SessionError::Refused(format!(
                    "obs column {name} is of {dtype}: groups and classes are labels, text or whole numbers"
                )));
            }
            Values::Numbers { numbers, mask, .. } => {
                let missing = |i: usize| mask.as_ref().is_some_and(|mask| mask[i] != 0);
                let of = |i| if missing(i) { NO_CLASS } else { code(&to_text(numbers.dtype, numbers.at(i))) };
                (0..numbers.len()).map(of).collect()
            }
            Values::Text { texts, mask, .. } => {
                let missing = |i: usize| mask.as_ref().is_some_and(|mask| mask[i] != 0);
                (0..texts.len()).map(|i| if missing(i) { NO_CLASS } else { code(texts.at(i)) }).collect()
            }
        };
        Ok(Labels { codes, labels })
    }

    /// The number of a view's rows with each label, rows without a label last; labels without rows are left out.
    fn label_rows(&mut self, name: &str, rows: &Rows) -> Result<Vec<(Option<String>, u64)>, SessionError> {
        let Labels { codes, labels } = self.labels(name)?;
        let mut counts = vec![0u64; labels.len() + 1];
        rows.iter().for_each(|row| counts[(codes[row as usize] as usize).min(labels.len())] += 1);
        let labels = labels.into_iter().map(Some).chain([None]);
        Ok(labels.zip(counts).filter(|&(_, count)| count > 0).collect())
    }

    /// The same for `dataset.json`; if there are many labels, only their number.
    pub fn label_counts(&mut self, name: &str, rows: &Rows) -> Result<Value, SessionError> {
        const MOST_TOLD: usize = 1000;
        let counts = self.label_rows(name, rows)?;
        if counts.len() > MOST_TOLD {
            return Ok(json!({"labels": counts.len()}));
        }
        let missing = || "(missing)".to_owned();
        Ok(counts
            .into_iter()
            .map(|(label, count)| (label.unwrap_or_else(missing), json!(count)))
            .collect::<Map<_, _>>()
            .into())
    }

    /// The label of a row.
    pub fn label_of(&mut self, name: &str, row: u64) -> Result<Option<String>, SessionError> {
        let Labels { codes, mut labels } = self.labels(name)?;
        let code = codes.get(row as usize).map_or(usize::MAX, |&code| code as usize);
        Ok((code < labels.len()).then(|| labels.swap_remove(code)))
    }

    /// The codes of all rows, for a figure about a label.
    pub fn codes(&mut self, name: &str) -> Result<Vec<u32>, SessionError> {
        Ok(self.labels(name)?.codes)
    }

    /// The sides of a split, with the number of groups on each.
    pub fn split(
        &mut self,
        split: &SplitSpec,
        base: Option<&Bits>,
    ) -> Result<(Vec<Bits>, Vec<Option<u64>>), SessionError> {
        let groups = split.by.as_deref().map(|name| self.labels(name).about("--split-by")).transpose()?;
        let classes = split.stratify.as_deref().map(|name| self.labels(name).about("--stratify")).transpose()?;
        fn labelled<'b>(name: &'b Option<String>, labels: &'b Option<Labels>) -> Option<Labelled<'b>> {
            let (name, Labels { codes, labels }) = name.as_deref().zip(labels.as_ref())?;
            Some(Labelled { name, codes, labels })
        }
        let all = Bits::all(self.collection.table.n_rows);
        let sides = Split {
            fractions: &split.fractions,
            groups: labelled(&split.by, &groups),
            classes: labelled(&split.stratify, &classes),
            seed: split.seed,
        }
        .divide(base.unwrap_or(&all))
        .about("--split")?;
        Ok(sides.into_iter().map(|side| (side.rows, side.groups)).unzip())
    }

    /// The inputs of the view's strategy.
    pub fn inputs(&mut self, view: &ViewSpec, rows: &Rows) -> Result<Inputs, SessionError> {
        let DrawSpec { labels, weights, .. } = &view.draw;
        Ok(Inputs {
            codes: labels.as_ref().map(|column| self.of_view(column, rows)).transpose()?,
            weights: weights.as_ref().map(|source| self.weights(source, rows)).transpose()?,
            samples: view.samples,
            shape: view.draw.groups.as_ref().map(|groups| groups.shape).unwrap_or_default(),
        })
    }

    /// The class codes of a view's rows.
    fn of_view(&mut self, column: &str, rows: &Rows) -> Result<Vec<u32>, SessionError> {
        let codes = self.labels(column)?.codes;
        Ok(rows.iter().map(|row| codes[row as usize]).collect())
    }

    /// The weights of a view's rows: from a column, or from a file with a weight for each row of the collection.
    fn weights(&mut self, source: &WeightSource, rows: &Rows) -> Result<Vec<f32>, SessionError> {
        let WeightSource { name, file } = source;
        self.load(name)?;
        let of_column = match self.column(name) {
            Some(Values::Numbers { numbers, mask, .. }) => {
                let missing = |row: usize| mask.as_ref().is_some_and(|mask| mask[row] != 0);
                let weight = |row: usize| {
                    if missing(row) { f32::NAN } else { to_f64(numbers.dtype, numbers.at(row)) as f32 }
                };
                Some(rows.iter().map(|row| weight(row as usize)).collect())
            }
            Some(_) => {
                return Err(SessionError::Refused(format!("weights: obs column {name} does not hold numbers")));
            }
            None => None,
        };
        if let Some(weights) = of_column {
            return Ok(weights);
        }
        let content = std::fs::read(file).map_err(|error| {
            let known = suggest(name, self.known().into_iter());
            SessionError::Refused(format!(
                "weights: {name} is neither an obs column ({known}) nor a file that can be read ({error})"
            ))
        })?;
        let weights = list::weights(&content, self.collection.table.n_rows).about(file.display())?;
        Ok(rows.iter().map(|row| weights[row as usize]).collect())
    }
}

impl Names for Obs<'_> {
    fn stores(&self, path: &str) -> Vec<usize> {
        let is = |store: &Store| {
            let full = store.path.as_os_str().to_string_lossy();
            full == path || store.path.ends_with(path)
        };
        (0..self.collection.stores.len()).filter(|&store| is(&self.collection.stores[store])).collect()
    }

    fn rows(&self, store: usize) -> Result<(u64, Vec<String>), String> {
        let names = self.collection.row_names(store, self.counters).map_err(|error| error.to_string())?;
        Ok((self.collection.stores[store].first_row, names))
    }
}
