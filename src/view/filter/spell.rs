//! Writes parts of expressions, for messages that show what to write instead.

use super::lexer::is_name;
use super::{Constant, Literal, Op};

/// Words that cannot be column names without backquotes.
pub const KEYWORDS: [&str; 5] = ["and", "or", "not", "in", "is"];

/// A column's name, in backquotes unless it is a plain word.
pub fn name(name: &str) -> String {
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_keyword = KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(name));
    if begins && !is_keyword && name.chars().all(is_name) { name.to_owned() } else { format!("`{name}`") }
}

pub fn literal(literal: &Literal) -> String {
    match &literal.value {
        Constant::Text(text) => format!("{text:?}"),
        Constant::Int(number) => number.to_string(),
        Constant::Float(number) => number.to_string(),
        Constant::Bool(true) => "True".to_owned(),
        Constant::Bool(false) => "False".to_owned(),
    }
}

pub fn list(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

pub fn op(op: Op) -> &'static str {
    match op {
        Op::Eq => "==",
        Op::Ne => "!=",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
    }
}
