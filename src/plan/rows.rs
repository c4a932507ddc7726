//! The rows of a view: all rows of the collection, or a selection with rank and select in about one bit a row.
//!
//! A selection is stored in pages of 4,096 rows. An empty or full page takes only its count, a page with few rows a list of positions, any
//! other page one bit a row. So the whole never exceeds 1.06 bits a row of the collection, and a view of long runs (a donor, a tissue)
//! takes
//! less. The counts before each page and before each eighth of one are the index for rank (within an eighth of a page) and select (binary
//! search among pages, then an eighth). The position of every selected row is computed, so a plan over a selection has random access like
//! one over all rows. The crate `roaring` takes up to 1/20 less memory (even less for runs), but its select takes 2 to 150 us at 1e8 rows,
//! this one at most 0.4. The counts are Jacobson's ("Space-efficient static trees and graphs", 1989), pages by density are Roaring's
//! (Chambi, Lemire, Kaser and Godin, "Better bitmap performance with Roaring bitmaps", 2016).

use std::ops::Range;
use std::sync::Arc;

use super::PlanError;

const PAGE_ROWS: u64 = 4096;
const PAGE_WORDS: usize = 64;
/// Below this many rows a list of 16-bit positions is smaller than 64 words.
const FEW: u64 = 256;

/// The rows of a view, in stored order. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Number of selected rows of each store.
    counts: Arc<[u64]>,
    /// Number of selected rows.
    len: u64,
    /// Number of rows of the collection.
    all: u64,
    /// `None`: all rows.
    selection: Option<Arc<PagedRows>>,
}

#[derive(Debug, Default)]
struct PagedRows {
    /// Number of selected rows before each page, and in total.
    before: Vec<u64>,
    /// The index of a page in `few`, or in `words` and `eighths`. Unused for empty and full pages.
    at: Vec<u32>,
    few: Vec<u16>,
    words: Vec<[u64; PAGE_WORDS]>,
    /// For each page in `words`, the number of selected rows before each eighth of it.
    eighths: Vec<[u16; 8]>,
}

impl Rows {
    /// All rows; `store_rows`: number of rows of each store.
    pub fn all(store_rows: &[u64]) -> Rows {
        let all = store_rows.iter().sum();
        Rows { counts: store_rows.into(), len: all, all, selection: None }
    }

    /// The rows with these global row numbers, which must ascend.
    pub fn from_ascending(store_rows: &[u64], rows: impl IntoIterator<Item = u64>) -> Result<Rows, PlanError> {
        let mut builder = RowsBuilder::new(store_rows)?;
        let mut next = 0;
        for row in rows {
            if row < next {
                return Err(PlanError::NotAscending { row, before: next - 1 });
            }
            if row >= builder.all {
                return Err(PlanError::NoSuchRow { row, rows: builder.all });
            }
            builder.insert(row);
            next = row + 1;
        }
        Ok(builder.finish(store_rows))
    }

    /// The rows whose bit is set: bit r % 64 of word r / 64 is global row r. Missing words count as zero.
    pub fn from_words(store_rows: &[u64], words: impl IntoIterator<Item = u64>) -> Result<Rows, PlanError> {
        let mut builder = RowsBuilder::new(store_rows)?;
        let mut row = 0;
        for word in words {
            if word != 0 {
                let last = row + 63 - u64::from(word.leading_zeros());
                if last >= builder.all {
                    return Err(PlanError::NoSuchRow { row: last, rows: builder.all });
                }
                builder.turn_to(row / PAGE_ROWS);
                builder.page[(row % PAGE_ROWS / 64) as usize] = word;
            }
            row += 64;
        }
        Ok(builder.finish(store_rows))
    }

    /// Number of rows of the view.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of rows of the collection.
    pub fn of(&self) -> u64 {
        self.all
    }

    /// Number of rows of the view in each store.
    pub fn store_counts(&self) -> &[u64] {
        &self.counts
    }

    /// Whether a global row is in the view.
    pub fn contains(&self, row: u64) -> bool {
        row < self.all && self.selection.as_ref().is_none_or(|selection| selection.contains(row, self.all))
    }

    /// Number of rows of the view before a global row.
    pub fn rank(&self, row: u64) -> u64 {
        let row = row.min(self.all);
        self.selection.as_ref().map_or(row, |selection| selection.rank(row, self.all))
    }

    /// The global row number of the view's `index`-th row.
    pub fn select(&self, index: u64) -> Option<u64> {
        let mut row = Vec::with_capacity(1);
        if index < self.len {
            self.select_run(index..index + 1, &mut row);
        }
        row.pop()
    }

    /// Appends the global row numbers of a range of the view's rows, as far as they exist.
    pub fn select_run(&self, run: Range<u64>, rows: &mut Vec<u64>) {
        let run = run.start..run.end.min(self.len);
        if run.is_empty() {
            return;
        }
        match &self.selection {
            None => rows.extend(run),
            Some(selection) => selection.select_run(run, self.all, rows),
        }
    }

    /// Global row numbers of the view, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len.div_ceil(PAGE_ROWS)).flat_map(|page| {
            let mut rows = Vec::with_capacity(PAGE_ROWS as usize);
            self.select_run(page * PAGE_ROWS..(page + 1) * PAGE_ROWS, &mut rows);
            rows
        })
    }

    /// Memory of the selection, in bytes.
    pub fn bytes(&self) -> usize {
        self.selection.as_ref().map_or(0, |selection| {
            selection.before.len() * 8
                + selection.at.len() * 4
                + selection.few.len() * 2
                + selection.words.len() * (512 + 16)
        })
    }
}

/// How the rows of a page are stored.
enum Page<'a> {
    Full,
    Few(&'a [u16]),
    Words(&'a [u64; PAGE_WORDS], &'a [u16; 8]),
}

impl PagedRows {
    fn page(&self, page: usize, all: u64) -> Page<'_> {
        let count = self.before[page + 1] - self.before[page];
        let at = self.at[page] as usize;
        match kind(count, (all - page as u64 * PAGE_ROWS).min(PAGE_ROWS)) {
            PageKind::Full => Page::Full,
            PageKind::Few => Page::Few(&self.few[at..at + count as usize]),
            PageKind::Words => Page::Words(&self.words[at], &self.eighths[at]),
        }
    }

    fn contains(&self, row: u64, all: u64) -> bool {
        let place = row % PAGE_ROWS;
        match self.page((row / PAGE_ROWS) as usize, all) {
            Page::Full => true,
            Page::Few(places) => places.binary_search(&(place as u16)).is_ok(),
            Page::Words(words, _) => words[(place / 64) as usize] >> (place % 64) & 1 == 1,
        }
    }

    fn rank(&self, row: u64, all: u64) -> u64 {
        let (page, place) = ((row / PAGE_ROWS) as usize, row % PAGE_ROWS);
        if page + 1 == self.before.len() {
            return self.before[page];
        }
        let within = match self.page(page, all) {
            Page::Full => place,
            Page::Few(places) => places.partition_point(|&other| u64::from(other) < place) as u64,
            Page::Words(words, eighths) => {
                let (eighth, word) = ((place / 512) as usize, (place / 64) as usize);
                let whole: u32 = words[eighth * 8..word].iter().map(|word| word.count_ones()).sum();
                let part = words[word] & !(!0 << (place % 64));
                u64::from(eighths[eighth]) + u64::from(whole + part.count_ones())
            }
        };
        self.before[page] + within
    }

    /// `run` must not be empty, and must end at or before the last selected row.
    fn select_run(&self, run: Range<u64>, all: u64, rows: &mut Vec<u64>) {
        let mut page = self.before.partition_point(|&before| before <= run.start) - 1;
        let mut next = run.start;
        while next < run.end {
            let first = page as u64 * PAGE_ROWS;
            let skip = next - self.before[page];
            let take = (run.end - next).min(self.before[page + 1] - next);
            match self.page(page, all) {
                Page::Full => rows.extend(first + skip..first + skip + take),
                Page::Few(places) => {
                    let places = &places[skip as usize..(skip + take) as usize];
                    rows.extend(places.iter().map(|&place| first + u64::from(place)));
                }
                Page::Words(words, eighths) => {
                    let eighth = eighths.partition_point(|&before| u64::from(before) <= skip) - 1;
                    let start = first + eighth as u64 * 512;
                    unpack(&words[eighth * 8..], start, skip - u64::from(eighths[eighth]), take, rows);
                }
            }
            next += take;
            page += 1;
        }
    }
}

/// Appends the rows set in words, the first of which has row `first`: skips `skip` of them, and appends `take`.
fn unpack(words: &[u64], first: u64, mut skip: u64, mut take: u64, rows: &mut Vec<u64>) {
    for (i, &word) in words.iter().enumerate() {
        let count = u64::from(word.count_ones());
        if skip >= count {
            skip -= count;
            continue;
        }
        let mut word = word;
        for _ in 0..skip {
            word &= word - 1;
        }
        skip = 0;
        while word != 0 && take > 0 {
            rows.push(first + i as u64 * 64 + u64::from(word.trailing_zeros()));
            word &= word - 1;
            take -= 1;
        }
        if take == 0 {
            return;
        }
    }
}

enum PageKind {
    Full,
    Few,
    Words,
}

/// How to store `count` selected rows of a page of `rows` rows; an empty page is an empty list.
fn kind(count: u64, rows: u64) -> PageKind {
    if count == rows {
        PageKind::Full
    } else if count < FEW {
        PageKind::Few
    } else {
        PageKind::Words
    }
}

/// Builds a selection; pages are added in ascending order.
struct RowsBuilder {
    selection: PagedRows,
    all: u64,
    len: u64,
    page: [u64; PAGE_WORDS],
}

impl RowsBuilder {
    fn new(store_rows: &[u64]) -> Result<RowsBuilder, PlanError> {
        let all: u64 = store_rows.iter().sum();
        // Positions in `few` are 32-bit, and a page has fewer than 256.
        if all.div_ceil(PAGE_ROWS).saturating_mul(FEW) > u64::from(u32::MAX) {
            return Err(PlanError::TooManyRows { rows: all, limit: u64::from(u32::MAX) / FEW * PAGE_ROWS });
        }
        Ok(RowsBuilder { selection: PagedRows::default(), all, len: 0, page: [0; PAGE_WORDS] })
    }

    fn insert(&mut self, row: u64) {
        self.turn_to(row / PAGE_ROWS);
        let place = row % PAGE_ROWS;
        self.page[(place / 64) as usize] |= 1 << (place % 64);
    }

    /// Completes pages until `page` is the current one.
    fn turn_to(&mut self, page: u64) {
        while (self.selection.at.len() as u64) < page {
            self.close();
        }
    }

    fn close(&mut self) {
        let selection = &mut self.selection;
        let first = selection.at.len() as u64 * PAGE_ROWS;
        let count = self.page.iter().map(|word| u64::from(word.count_ones())).sum();
        selection.before.push(self.len);
        let at = match kind(count, (self.all - first).min(PAGE_ROWS)) {
            PageKind::Full => 0,
            PageKind::Few => {
                let at = selection.few.len();
                for (i, &word) in self.page.iter().enumerate() {
                    let mut word = word;
                    while word != 0 {
                        selection.few.push((i as u32 * 64 + word.trailing_zeros()) as u16);
                        word &= word - 1;
                    }
                }
                at
            }
            PageKind::Words => {
                let mut before = 0;
                selection.eighths.push(std::array::from_fn(|eighth| {
                    let words = &self.page[eighth * 8..(eighth + 1) * 8];
                    let within: u32 = words.iter().map(|word| word.count_ones()).sum();
                    before += within as u16;
                    before - within as u16
                }));
                selection.words.push(self.page);
                selection.words.len() - 1
            }
        };
        selection.at.push(at as u32);
        self.len += count;
        if count > 0 {
            self.page = [0; PAGE_WORDS];
        }
    }

    fn finish(mut self, store_rows: &[u64]) -> Rows {
        self.turn_to(self.all.div_ceil(PAGE_ROWS));
        let RowsBuilder { mut selection, all, len, .. } = self;
        selection.before.push(len);
        selection.before.shrink_to_fit();
        selection.at.shrink_to_fit();
        selection.few.shrink_to_fit();
        selection.words.shrink_to_fit();
        selection.eighths.shrink_to_fit();
        let mut end = 0;
        let mut counted = 0;
        let counts = store_rows
            .iter()
            .map(|rows| {
                end += rows;
                let before = std::mem::replace(&mut counted, selection.rank(end, all));
                counted - before
            })
            .collect();
        Rows { counts, len, all, selection: (len < all).then(|| Arc::new(selection)) }
    }
}
