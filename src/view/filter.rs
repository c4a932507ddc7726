//! Expressions over obs columns, as users of pandas `query` and TileDB-SOMA `value_filter` write them.
//!
//! Text becomes a tree once (`parse`), the tree becomes a bitmap once (`evaluate`): every test is made for a whole
//! column, and for a categorical once a label. Every error names a character of the text, because expressions come
//! from command lines and files where a debugger does not reach.
//!
//! Missing values follow pandas' rule for NaN, in every kind of column: they equal nothing, so `!=` and `not in` are
//! true of them and every other comparison is false; `x is null` asks for them.

mod compare;
mod evaluate;
mod lexer;
mod parser;
mod spell;

pub use evaluate::ColumnLookup;

use super::ViewError;

/// An expression, understood but not yet held against columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Expr,
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Any(Vec<Expr>),
    All(Vec<Expr>),
    Not(Box<Expr>),
    Compare {
        left: Operand,
        op: Op,
        right: Operand,
    },
    In {
        column: Name,
        list: Vec<Literal>,
        negated: bool,
    },
    Null {
        column: Name,
        negated: bool,
    },
    /// A column of booleans by itself.
    Is(Name),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Column(Name),
    Literal(Literal),
}

/// The name of a column and its first character's number.
#[derive(Clone, Debug, PartialEq)]
struct Name {
    name: String,
    at: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Literal {
    value: Constant,
    at: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Constant {
    Text(String),
    Int(i128),
    Float(f64),
    Bool(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Filter {
    /// Understands an expression.
    ///
    /// # Errors
    /// What it says is not of the grammar; the error names the character.
    pub fn parse(text: &str) -> Result<Filter, ViewError> {
        match parser::parse(text) {
            Ok(root) => Ok(Filter { text: text.to_owned(), root }),
            Err(wrong) => Err(wrong.of(text)),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The columns it asks for, each once, in the order of the text.
    pub fn columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        self.root.visit(&mut |name| {
            if !names.contains(&name.name.as_str()) {
                names.push(&name.name);
            }
        });
        names
    }
}

impl Expr {
    fn visit<'a>(&'a self, name: &mut dyn FnMut(&'a Name)) {
        match self {
            Expr::Any(parts) | Expr::All(parts) => parts.iter().for_each(|part| part.visit(name)),
            Expr::Not(part) => part.visit(name),
            Expr::Compare { left, right, .. } => [left, right].into_iter().for_each(|operand| {
                if let Operand::Column(column) = operand {
                    name(column);
                }
            }),
            Expr::In { column, .. } | Expr::Null { column, .. } | Expr::Is(column) => name(column),
        }
    }
}

/// What is wrong at which character, counted from 1.
#[derive(Debug, PartialEq)]
struct ExprError {
    at: usize,
    cause: String,
}

impl ExprError {
    fn new(at: usize, cause: impl Into<String>) -> ExprError {
        ExprError { at, cause: cause.into() }
    }

    fn of(self, text: &str) -> ViewError {
        ViewError::Filter { text: text.to_owned(), at: self.at, cause: self.cause }
    }
}

#[cfg(test)]
mod tests;
