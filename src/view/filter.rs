//! Expressions over obs columns, as users of pandas `query` and TileDB-SOMA `value_filter` write them.
//!
//! The text is parsed once into a tree (`parse`), and the tree evaluated once into a bitmap (`evaluate`): each test covers a whole
//! column; for a categorical it is made once for each label. Every error names a character of the text, as expressions come from command
//! lines and files.
//!
//! Missing values follow pandas' rule for NaN, in every type of column: they equal nothing, so `!=` and `not in` are true for them, and
//! all other comparisons are false; `x is null` finds them.

mod compare;
mod evaluate;
mod lexer;
mod parser;
mod spell;

pub use evaluate::ColumnLookup;

use super::ViewError;

/// A parsed expression, not yet checked against columns.
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
    /// A boolean column as a condition.
    Is(Name),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Column(Name),
    Literal(Literal),
}

/// The name of a column, and the position of its first character in the text.
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
    /// Parses an expression.
    ///
    /// # Errors
    /// A syntax error, with the position of the character.
    pub fn parse(text: &str) -> Result<Filter, ViewError> {
        match parser::parse(text) {
            Ok(root) => Ok(Filter { text: text.to_owned(), root }),
            Err(wrong) => Err(wrong.of(text)),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The columns in it, each once, in the order of the text.
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

/// An error at a character, counted from 1.
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
