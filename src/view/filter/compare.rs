//! Compares one column with values, or with another column.
//!
//! For a categorical the test is made once for each label, and rows look up the result by code. Numbers are compared at the column's
//! precision, as in pandas: 0.1 means the float32 nearest to 0.1 if the column is float32.

use std::cmp::Ordering;

use half::f16;

use super::{Constant, ExprError, Literal, Op, spell};
use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Numbers, Texts, Values};
use crate::array::Dtype;
use crate::array::cast::{to_f64, to_i64};
use crate::array::meaning::NOT_A_TIME;
use crate::view::bits::Bits;
use crate::view::suggest::suggest;

/// A column, its name, and the type of its values.
pub struct NamedColumn<'a> {
    pub name: &'a str,
    pub kind: ValueKind,
    values: &'a Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Text,
    Labels,
    Number,
    Boolean,
}

impl ValueKind {
    pub fn name(self) -> &'static str {
        match self {
            ValueKind::Text => "text",
            ValueKind::Labels => "categorical",
            ValueKind::Number => "of numbers",
            ValueKind::Boolean => "boolean",
        }
    }
}

impl<'a> NamedColumn<'a> {
    pub fn new(name: &'a str, values: &'a Values) -> NamedColumn<'a> {
        let of = |dtype: Dtype| if dtype == Dtype::Bool { ValueKind::Boolean } else { ValueKind::Number };
        let kind = match values {
            Values::Text { .. } => ValueKind::Text,
            Values::Numbers { numbers, .. } => of(numbers.dtype),
            Values::Categorical { categories: Categories { numbers: Some(numbers), .. }, .. } => of(numbers.dtype),
            Values::Categorical { .. } => ValueKind::Labels,
        };
        NamedColumn { name, kind, values }
    }

    pub fn is_boolean(&self) -> bool {
        self.kind == ValueKind::Boolean
    }

    /// A valid comparison with this column, as an example for messages.
    pub fn example(&self) -> String {
        let value = match (self.kind, self.values) {
            (ValueKind::Labels, Values::Categorical { categories, .. }) => {
                categories.labels.first().map_or("\"...\"".to_owned(), |label| format!("{label:?}"))
            }
            (ValueKind::Number, _) => "0".to_owned(),
            (ValueKind::Boolean, _) => "True".to_owned(),
            _ => "\"...\"".to_owned(),
        };
        format!("{} == {value}", spell::name(self.name))
    }

    /// The rows without a value: code -1, masked, or NaN.
    pub fn missing(&self, rows: u64) -> Bits {
        match self.values {
            Values::Categorical { codes, categories, .. } => {
                looked_up(rows, codes, categories.labels.len(), &|code| code.is_none())
            }
            Values::Text { mask: None, .. } => Bits::none(rows),
            Values::Text { mask: Some(mask), .. } => Bits::of(rows, |row| mask[row] != 0),
            Values::Numbers { numbers, mask, time } => {
                let mask = mask.as_ref();
                let masked = |row: usize| mask.is_some_and(|mask| mask[row] != 0);
                let float = numbers.dtype.is_float();
                let no_time = |row| time.is_some() && to_i64(numbers.dtype, numbers.at(row)) == NOT_A_TIME;
                Bits::of(rows, |row| {
                    masked(row) || no_time(row) || (float && to_f64(numbers.dtype, numbers.at(row)).is_nan())
                })
            }
        }
    }

    /// A literal of another type, converted to this column's type, as text; `None` if it has no counterpart.
    fn respelt(&self, literal: &Literal) -> Option<String> {
        let quoted = |text: String| match self.values {
            Values::Categorical { categories, .. } => categories.labels.contains(&text).then(|| format!("{text:?}")),
            _ => Some(format!("{text:?}")),
        };
        match (self.kind, &literal.value) {
            (ValueKind::Number, Constant::Text(text)) => {
                let number = text.trim().trim_start_matches('+');
                number.parse().is_ok_and(f64::is_finite).then(|| number.to_owned())
            }
            (ValueKind::Number, Constant::Bool(value)) => Some(u8::from(*value).to_string()),
            (ValueKind::Boolean, Constant::Text(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" => Some("True".to_owned()),
                "false" => Some("False".to_owned()),
                _ => None,
            },
            (ValueKind::Boolean, Constant::Int(1)) => Some("True".to_owned()),
            (ValueKind::Boolean, Constant::Int(0)) => Some("False".to_owned()),
            (ValueKind::Text | ValueKind::Labels, Constant::Int(_) | Constant::Float(_) | Constant::Bool(_)) => {
                quoted(spell::literal(literal))
            }
            _ => None,
        }
    }

    /// The error for a comparison with a literal of the wrong type; it says what to write.
    fn mismatch(&self, op: Op, literal: &Literal) -> ExprError {
        let test = |value: String| format!("{} {} {value}", spell::name(self.name), spell::op(op));
        self.unlike(literal, self.respelt(literal).map_or_else(|| self.example(), test))
    }

    /// The same for a list.
    fn mismatched_list(&self, literal: &Literal, list: &[Literal]) -> ExprError {
        let respelt = |literal| if self.fits(literal) { Some(spell::literal(literal)) } else { self.respelt(literal) };
        let all: Option<Vec<String>> = list.iter().map(respelt).collect();
        let test = |all: Vec<String>| format!("{} in {}", spell::name(self.name), spell::list(all.into_iter()));
        self.unlike(literal, all.map_or_else(|| self.example(), test))
    }

    /// Whether a literal is of the column's type.
    fn fits(&self, literal: &Literal) -> bool {
        matches!(
            (self.kind, &literal.value),
            (ValueKind::Text | ValueKind::Labels, Constant::Text(_))
                | (ValueKind::Number, Constant::Int(_) | Constant::Float(_))
                | (ValueKind::Boolean, Constant::Bool(_))
        )
    }

    fn unlike(&self, literal: &Literal, instead: String) -> ExprError {
        let value = match &literal.value {
            Constant::Text(text) => format!("text, {text:?}"),
            Constant::Int(number) => format!("a number, {number}"),
            Constant::Float(number) => format!("a number, {number}"),
            Constant::Bool(value) => format!("a boolean, {value}"),
        };
        let cause = format!("{} is {} and is compared with {value}; write {instead}", self.name, self.kind.name());
        ExprError::new(literal.at, cause)
    }

    /// The index of a label among the categories.
    fn label(&self, label: &str, labels: &[String], at: usize) -> Result<usize, ExprError> {
        labels.iter().position(|other| other == label).ok_or_else(|| {
            let suggest = suggest(label, labels.iter().map(String::as_str));
            ExprError::new(at, format!("{} has no category {label:?}; {suggest}", self.name))
        })
    }
}

/// Whether `a op b` holds, given their order; incomparable values are unequal.
fn holds(op: Op, order: Option<Ordering>) -> bool {
    match (op, order) {
        (Op::Ne, None) => true,
        (_, None) => false,
        (Op::Eq, Some(order)) => order.is_eq(),
        (Op::Ne, Some(order)) => order.is_ne(),
        (Op::Lt, Some(order)) => order.is_lt(),
        (Op::Le, Some(order)) => order.is_le(),
        (Op::Gt, Some(order)) => order.is_gt(),
        (Op::Ge, Some(order)) => order.is_ge(),
    }
}

/// Compares a column with one value.
pub fn with(rows: u64, column: &NamedColumn<'_>, op: Op, literal: &Literal) -> Result<Bits, ExprError> {
    match (column.values, column.kind, &literal.value) {
        (Values::Text { texts, mask, .. }, _, Constant::Text(text)) => {
            Ok(by_text(rows, texts, mask.as_ref(), |value| holds(op, value.map(|value| value.cmp(text.as_str())))))
        }
        (Values::Categorical { codes, categories, ordered }, ValueKind::Labels, Constant::Text(text)) => {
            if !ordered && !matches!(op, Op::Eq | Op::Ne) {
                let cause = format!("the categories of {} have no order, so only == and != compare them", column.name);
                return Err(ExprError::new(literal.at, cause));
            }
            let place = column.label(text, &categories.labels, literal.at)?;
            Ok(looked_up(rows, codes, categories.labels.len(), &|code| holds(op, code.map(|code| code.cmp(&place)))))
        }
        (_, ValueKind::Number, Constant::Int(_) | Constant::Float(_)) | (_, ValueKind::Boolean, Constant::Bool(_)) => {
            Ok(by_number(rows, column, &|dtype| {
                let wanted = Number::of(&literal.value, dtype);
                Box::new(move |value| holds(op, value.and_then(|value| value.compare(wanted))))
            }))
        }
        _ => Err(column.mismatch(op, literal)),
    }
}

/// The rows whose value is in a list.
pub fn within(rows: u64, column: &NamedColumn<'_>, list: &[Literal]) -> Result<Bits, ExprError> {
    if let Some(wrong) = list.iter().find(|literal| !column.fits(literal)) {
        return Err(column.mismatched_list(wrong, list));
    }
    let texts =
        || list.iter().filter_map(|literal| if let Constant::Text(text) = &literal.value { Some(text) } else { None });
    match (column.values, column.kind) {
        (Values::Text { texts: column, mask, .. }, _) => {
            let wanted: std::collections::HashSet<&str> = texts().map(String::as_str).collect();
            Ok(by_text(rows, column, mask.as_ref(), |value| value.is_some_and(|value| wanted.contains(value))))
        }
        (Values::Categorical { codes, categories, .. }, ValueKind::Labels) => {
            let mut wanted = vec![false; categories.labels.len()];
            for (text, literal) in texts().zip(list) {
                wanted[column.label(text, &categories.labels, literal.at)?] = true;
            }
            Ok(looked_up(rows, codes, wanted.len(), &|code| code.is_some_and(|code| wanted[code])))
        }
        _ => Ok(by_number(rows, column, &|dtype| {
            let wanted: Vec<Number> = list.iter().map(|literal| Number::of(&literal.value, dtype)).collect();
            Box::new(move |value| {
                value.is_some_and(|value| wanted.iter().any(|&other| value.compare(other) == Some(Ordering::Equal)))
            })
        })),
    }
}

/// Compares two columns row by row.
pub fn columns(
    rows: u64,
    (at, left): (usize, NamedColumn<'_>),
    op: Op,
    right: NamedColumn<'_>,
) -> Result<Bits, ExprError> {
    let numbers = |kind| matches!(kind, ValueKind::Number | ValueKind::Boolean);
    if numbers(left.kind) != numbers(right.kind) {
        let [a, b] = [&left, &right].map(|column| format!("{} is {}", column.name, column.kind.name()));
        return Err(ExprError::new(at, format!("{a} and {b}: they cannot be compared")));
    }
    if numbers(left.kind) {
        let value = |column: &NamedColumn<'_>, row: usize| number(column.values, row);
        return Ok(Bits::of(rows, |row| {
            holds(op, value(&left, row).zip(value(&right, row)).and_then(|(a, b)| a.compare(b)))
        }));
    }
    if (left.kind == ValueKind::Labels || right.kind == ValueKind::Labels) && !matches!(op, Op::Eq | Op::Ne) {
        return Err(ExprError::new(at, "categories of two columns have no common order; only == and != compare them"));
    }
    Ok(Bits::of(rows, |row| holds(op, label(left.values, row).zip(label(right.values, row)).map(|(a, b)| a.cmp(b)))))
}

/// A number or boolean.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    /// A constant, rounded to the precision of a column.
    fn of(value: &Constant, dtype: Dtype) -> Number {
        let float = match *value {
            Constant::Bool(value) => return Number::Int(value.into()),
            Constant::Int(number) if !dtype.is_float() => return Number::Int(number),
            Constant::Int(number) => number as f64,
            Constant::Float(number) => number,
            Constant::Text(_) => f64::NAN,
        };
        Number::Float(match dtype {
            Dtype::F32 => f64::from(float as f32),
            Dtype::F16 => f16::from_f64(float).to_f64(),
            _ => float,
        })
    }

    fn compare(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (Number::Int(a), Number::Float(b)) => (a as f64).partial_cmp(&b),
            (Number::Float(a), Number::Int(b)) => a.partial_cmp(&(b as f64)),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        }
    }
}

/// A test of a number; `None` is a missing value.
type Test = Box<dyn Fn(Option<Number>) -> bool + Sync>;

/// Applies a test to each row of numbers, or to each category of numeric categories.
fn by_number(rows: u64, column: &NamedColumn<'_>, test: &dyn Fn(Dtype) -> Test) -> Bits {
    match column.values {
        Values::Categorical { codes, categories: Categories { numbers: Some(numbers), .. }, .. } => {
            let test = test(numbers.dtype);
            let kept: Vec<bool> = (0..numbers.len()).map(|i| test(Some(element(numbers, i)))).collect();
            let missing = test(None);
            looked_up(rows, codes, kept.len(), &|code| code.map_or(missing, |code| kept[code]))
        }
        Values::Numbers { numbers, mask, .. } => {
            let test = test(numbers.dtype);
            let here = |row: usize| mask.as_ref().is_none_or(|mask| mask[row] == 0);
            // The dtype is matched outside of the loop for common dtypes.
            macro_rules! typed {
                ($size:literal, $bytes:ident => $number:expr) => {{
                    let values = &numbers.bytes;
                    Bits::of(rows, |row| {
                        let $bytes = values.array::<$size>(row);
                        test(here(row).then_some($number))
                    })
                }};
            }
            match numbers.dtype {
                Dtype::F32 => typed!(4, bytes => Number::Float(f32::from_le_bytes(bytes).into())),
                Dtype::F64 => typed!(8, bytes => Number::Float(f64::from_le_bytes(bytes))),
                Dtype::I32 => typed!(4, bytes => Number::Int(i32::from_le_bytes(bytes).into())),
                Dtype::I64 => typed!(8, bytes => Number::Int(i64::from_le_bytes(bytes).into())),
                _ => Bits::of(rows, |row| test(here(row).then(|| element(numbers, row)))),
            }
        }
        _ => Bits::none(rows),
    }
}

fn by_text(rows: u64, texts: &Texts, mask: Option<&Bytes>, test: impl Fn(Option<&str>) -> bool + Sync) -> Bits {
    Bits::of(rows, |row| test(mask.is_none_or(|mask| mask[row] == 0).then(|| texts.at(row))))
}

/// Applies a test to each of `count` codes, and looks the results up by row; `None` is a missing value.
fn looked_up(rows: u64, codes: &Numbers, count: usize, test: &dyn Fn(Option<usize>) -> bool) -> Bits {
    let kept: Vec<bool> = (0..count).map(|code| test(Some(code))).collect();
    let missing = test(None);
    let of = |code: i32| usize::try_from(code).ok().and_then(|code| kept.get(code)).copied().unwrap_or(missing);
    match codes.dtype {
        Dtype::I8 => Bits::of(rows, |row| of(i32::from(codes.bytes[row] as i8))),
        Dtype::I16 => {
            let codes = &codes.bytes;
            Bits::of(rows, |row| of(i32::from(i16::from_le_bytes(codes.array(row)))))
        }
        _ => Bits::of(rows, |row| of(i32::try_from(to_i64(codes.dtype, codes.at(row))).unwrap_or(-1))),
    }
}

fn element(numbers: &Numbers, i: usize) -> Number {
    match numbers.dtype {
        Dtype::U64 => Number::Int(u64::from_le_bytes(numbers.bytes.array(i)).into()),
        dtype if dtype.is_float() => Number::Float(to_f64(dtype, numbers.at(i))),
        dtype => Number::Int(to_i64(dtype, numbers.at(i)).into()),
    }
}

/// The code of a row; `None` if missing.
fn code(codes: &Numbers, row: usize) -> Option<usize> {
    usize::try_from(to_i64(codes.dtype, codes.at(row))).ok()
}

/// The number in a row; `None` if missing.
fn number(values: &Values, row: usize) -> Option<Number> {
    match values {
        Values::Numbers { numbers, mask, .. } => {
            mask.as_ref().is_none_or(|mask| mask[row] == 0).then(|| element(numbers, row))
        }
        Values::Categorical { codes, categories: Categories { numbers: Some(numbers), .. }, .. } => {
            code(codes, row).filter(|&code| code < numbers.len()).map(|code| element(numbers, code))
        }
        _ => None,
    }
}

/// The text in a row; `None` if missing.
fn label(values: &Values, row: usize) -> Option<&str> {
    match values {
        Values::Text { texts, mask, .. } => mask.as_ref().is_none_or(|mask| mask[row] == 0).then(|| texts.at(row)),
        Values::Categorical { codes, categories, .. } => {
            code(codes, row).and_then(|code| categories.labels.get(code)).map(String::as_str)
        }
        _ => None,
    }
}
