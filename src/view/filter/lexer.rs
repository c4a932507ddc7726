//! Tokens of an expression, each with the position of its first character.

use super::{Constant, ExprError};

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    /// Character, from 1.
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// A plain word: a name or a keyword.
    Word(String),
    /// A name in backquotes, never a keyword.
    Name(String),
    Constant(Constant),
    /// Operators, brackets and commas, as `parser` compares them.
    Sign(&'static str),
    End,
}

/// Longer ones come first, so that `<=` is not read as `<`. A single `=` is a token, so that the parser can say what to write instead.
const SIGNS: [&str; 17] = ["==", "!=", "<=", ">=", "<>", "<", ">", "(", ")", "[", "]", ",", "&", "|", "~", "-", "="];

/// All tokens, then `End`.
pub fn tokens(text: &str) -> Result<Vec<Token>, ExprError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut place = 0;
    while let Some(&c) = chars.get(place) {
        let (kind, length) = match c {
            c if c.is_whitespace() => {
                place += 1;
                continue;
            }
            '"' | '\'' => quoted(&chars[place..], place + 1)?,
            '`' => backquoted(&chars[place..], place + 1)?,
            c if c.is_alphabetic() || c == '_' => {
                let word: String = chars[place..].iter().take_while(|&&c| is_name(c)).collect();
                let length = word.chars().count();
                (TokenKind::Word(word), length)
            }
            c if c.is_ascii_digit() || (c == '.' && chars.get(place + 1).is_some_and(char::is_ascii_digit)) => {
                number(&chars[place..], place + 1)?
            }
            _ => sign(&chars[place..], place + 1)?,
        };
        tokens.push(Token { kind, at: place + 1 });
        place += length;
    }
    tokens.push(Token { kind: TokenKind::End, at: chars.len() + 1 });
    Ok(tokens)
}

/// Dots are part of names, as in R (`percent.mt`).
pub fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn quoted(chars: &[char], at: usize) -> Result<(TokenKind, usize), ExprError> {
    let mut text = String::new();
    let mut place = 1;
    while let Some(&c) = chars.get(place) {
        place += 1;
        match (c, chars.get(place)) {
            (c, _) if c == chars[0] => return Ok((TokenKind::Constant(Constant::Text(text)), place)),
            ('\\', Some(&escaped)) if ['\\', '"', '\'', 'n', 't'].contains(&escaped) => {
                text.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
                place += 1;
            }
            _ => text.push(c),
        }
    }
    Err(ExprError::new(at, format!("the text that begins here has no closing {}", chars[0])))
}

fn backquoted(chars: &[char], at: usize) -> Result<(TokenKind, usize), ExprError> {
    match chars[1..].iter().position(|&c| c == '`') {
        Some(0) => Err(ExprError::new(at, "a column's name stands between backquotes, and here is none")),
        Some(length) => Ok((TokenKind::Name(chars[1..=length].iter().collect()), length + 2)),
        None => Err(ExprError::new(at, "the name that begins here has no closing `")),
    }
}

fn number(chars: &[char], at: usize) -> Result<(TokenKind, usize), ExprError> {
    let mut length = 0;
    let mut text = String::new();
    while let Some(&c) = chars.get(length) {
        let after_e = matches!(chars.get(length.wrapping_sub(1)), Some('e' | 'E'));
        match c {
            // As in Python: 1_000_000.
            '_' if chars.get(length + 1).is_some_and(char::is_ascii_digit) => {}
            c if is_name(c) || (after_e && (c == '-' || c == '+')) => text.push(c),
            _ => break,
        }
        length += 1;
    }
    let whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = match text.parse::<i128>() {
        Ok(number) if whole => Some(Constant::Int(number)),
        _ => text.parse().ok().map(Constant::Float),
    };
    match value {
        Some(value) => Ok((TokenKind::Constant(value), length)),
        None => Err(ExprError::new(
            at,
            format!("{text} is neither a number nor a name; put backquotes around a column's name"),
        )),
    }
}

fn sign(chars: &[char], at: usize) -> Result<(TokenKind, usize), ExprError> {
    let begins = |sign: &str| sign.chars().enumerate().all(|(i, c)| chars.get(i) == Some(&c));
    if let Some(sign) = SIGNS.into_iter().find(|sign| begins(sign)) {
        return Ok((TokenKind::Sign(sign), sign.len()));
    }
    Err(ExprError::new(
        at,
        match chars[0] {
            '!' => "! is written `not` (or !=)".to_owned(),
            '@' => "@ names a variable of Python; write the value itself".to_owned(),
            c @ ('+' | '*' | '/' | '%' | '^') => format!("{c}: columns are compared, not calculated with"),
            c => format!("{c:?} means nothing here"),
        },
    ))
}
