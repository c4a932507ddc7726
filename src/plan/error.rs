//! Why a plan cannot be made: each message names the input, what is wrong with it, and the remedy.

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("the selection names row {row} after row {before}: give each row once, in ascending order")]
    NotAscending { row: u64, before: u64 },
    #[error("the selection names row {row}, but the collection has {rows} rows, numbered from 0")]
    NoSuchRow { row: u64, rows: u64 },
    #[error("the collection has {rows} rows, and this way of drawing them can count {limit}: mount fewer stores")]
    TooManyRows { rows: u64, limit: u64 },
    #[error("{given} {what} were given for {wanted}: give one for each")]
    Count { what: &'static str, given: u64, wanted: u64 },
    #[error("the weight of {what} {index} is {value}: weights must be finite and not negative")]
    Weight { what: &'static str, index: u64, value: f64 },
    #[error("all weights are 0, so nothing can be drawn: give at least one {what} a weight above 0")]
    NoWeight { what: &'static str },
    #[error("no row of the view is of any class: choose another column, or another view")]
    NoClass,
    #[error("a set has {size} rows and a batch {batch}: a batch must be a whole number of sets")]
    SetSize { size: u64, batch: u64 },
    #[error(
        "no group has the {size} rows of a set, the largest has {largest}: choose a smaller set-size, or set-short repeat or pad"
    )]
    NoSet { size: u64, largest: u64 },
    #[error("class code {code} is above {limit}: number the classes from 0, without gaps")]
    Code { code: u32, limit: u32 },
}
