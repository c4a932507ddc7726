//! Parses tokens into a tree. Precedence as in pandas: `or` (`|`), `and` (`&`), `not`, comparisons, `~`.

use super::lexer::{Token, TokenKind, tokens};
use super::{Constant, Expr, ExprError, Literal, Name, Op, Operand, spell};

/// Maximum nesting: the parser recurses, and the stack is finite.
const DEPTH: usize = 100;

pub fn parse(text: &str) -> Result<Expr, ExprError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: &tokens, place: 0, depth: 0 };
    if parser.kind() == &TokenKind::End {
        return Err(ExprError::new(1, "the expression is empty; write something like tissue == \"lung\""));
    }
    let expr = parser.any()?;
    match parser.kind() {
        TokenKind::End => Ok(expr),
        _ => Err(parser.wrong("the end, `and` or `or` was expected")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    place: usize,
    depth: usize,
}

impl Parser<'_> {
    /// The current token; the last one, `End`, is never passed.
    fn token(&self) -> &Token {
        &self.tokens[self.place.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &TokenKind {
        &self.token().kind
    }

    fn at(&self) -> usize {
        self.token().at
    }

    fn next_is(&self, ahead: usize, keyword: &str) -> bool {
        self.tokens.get(self.place + ahead).is_some_and(|token| is_keyword(&token.kind, keyword))
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let found = self.next_is(0, keyword);
        self.place += usize::from(found);
        found
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.kind(), TokenKind::Sign(other) if *other == sign);
        self.place += usize::from(found);
        found
    }

    fn wrong(&self, expected: &str) -> ExprError {
        if matches!(self.kind(), TokenKind::Sign("=")) {
            return ExprError::new(self.at(), format!("a single = compares nothing; write {}", self.doubled()));
        }
        let found = match self.kind() {
            TokenKind::Word(word) => format!("found {word}"),
            TokenKind::Name(name) => format!("found `{name}`"),
            TokenKind::Constant(Constant::Text(text)) => format!("found {text:?}"),
            TokenKind::Constant(_) => "found a value".to_owned(),
            TokenKind::Sign(sign) => format!("found {sign}"),
            TokenKind::End => "the expression ends here".to_owned(),
        };
        ExprError::new(self.at(), format!("{expected}: {found}"))
    }

    /// The text with each single `=` doubled.
    fn doubled(&self) -> String {
        let single = |at: usize| self.tokens.iter().any(|token| token.at == at && token.kind == TokenKind::Sign("="));
        let double = |(c, at): (char, usize)| std::iter::repeat_n(c, if single(at) { 2 } else { 1 });
        self.text.chars().zip(1..).flat_map(double).collect()
    }

    fn deeper(&mut self) -> Result<(), ExprError> {
        self.depth += 1;
        if self.depth > DEPTH { Err(ExprError::new(self.at(), format!("more than {DEPTH} levels"))) } else { Ok(()) }
    }

    fn any(&mut self) -> Result<Expr, ExprError> {
        let mut parts = vec![self.all()?];
        while self.takes("or") || self.takes_sign("|") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, ExprError> {
        let mut parts = vec![self.not()?];
        while self.takes("and") || self.takes_sign("&") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::All))
    }

    fn not(&mut self) -> Result<Expr, ExprError> {
        if self.takes("not") {
            self.deeper()?;
            let negated = Expr::Not(Box::new(self.not()?));
            self.depth -= 1;
            return Ok(negated);
        }
        self.test()
    }

    fn test(&mut self) -> Result<Expr, ExprError> {
        if self.takes_sign("(") {
            self.deeper()?;
            let inner = self.any()?;
            self.depth -= 1;
            if !self.takes_sign(")") {
                return Err(self.wrong("a closing ) was expected"));
            }
            return self.alone(inner);
        }
        if self.takes_sign("~") {
            self.deeper()?;
            let inner = match self.kind() {
                TokenKind::Sign("(" | "~") => self.test()?,
                _ => {
                    let column = self.column()?;
                    let method = if self.kind() == &TokenKind::Sign("(") { self.method(&column, true)? } else { None };
                    method.unwrap_or(Expr::Is(column))
                }
            };
            self.depth -= 1;
            return self.alone(Expr::Not(Box::new(inner)));
        }
        let left = self.operand()?;
        if let Operand::Column(column) = &left
            && let Some(test) = self.column_test(column)?
        {
            return Ok(test);
        }
        let Some((op, _)) = self.op() else {
            return match left {
                Operand::Column(column) => Ok(Expr::Is(column)),
                Operand::Literal(_) => Err(self.wrong("a comparison was expected")),
            };
        };
        self.comparisons(left, op)
    }

    /// `a < b <= c` is `a < b and b <= c`.
    fn comparisons(&mut self, left: Operand, op: Op) -> Result<Expr, ExprError> {
        let mut parts = Vec::new();
        let (mut left, mut op) = (left, op);
        loop {
            if let (Operand::Column(column), Op::Eq | Op::Ne, true) = (&left, op, self.list_begins()) {
                // As in pandas, == and != with a list test membership.
                let list = self.list()?;
                parts.push(Expr::In { column: column.clone(), list, negated: op == Op::Ne });
                break;
            }
            let right = self.operand()?;
            if let (Operand::Literal(a), Operand::Literal(_)) = (&left, &right) {
                return Err(ExprError::new(a.at, "two values are compared; one side must be a column"));
            }
            parts.push(Expr::Compare { left, op, right: right.clone() });
            match self.op() {
                Some((next, _)) => (left, op) = (right, next),
                None => break,
            }
        }
        Ok(one_or(parts, Expr::All))
    }

    /// `x in [...]`, `x is null` and their negations, `x.isnull()`.
    fn column_test(&mut self, column: &Name) -> Result<Option<Expr>, ExprError> {
        let column = column.clone();
        if self.next_is(0, "not") && self.next_is(1, "in") {
            self.place += 2;
            return Ok(Some(Expr::In { column, list: self.list()?, negated: true }));
        }
        if self.takes("in") {
            return Ok(Some(Expr::In { column, list: self.list()?, negated: false }));
        }
        if self.takes("is") {
            let negated = self.takes("not");
            if ["null", "none", "nan", "na"].into_iter().any(|word| self.takes(word)) {
                return Ok(Some(Expr::Null { column, negated }));
            }
            return Err(self.wrong("`null` was expected after `is`; values are compared by =="));
        }
        self.method(&column, false)
    }

    /// Parses `x.isnull()` and the like; for other methods of pandas, the error says what to write instead. `inverted`: after `~`.
    fn method(&mut self, called: &Name, inverted: bool) -> Result<Option<Expr>, ExprError> {
        if !matches!(self.kind(), TokenKind::Sign("(")) {
            return Ok(None);
        }
        let (name, method) = called.name.rsplit_once('.').unwrap_or(("", &called.name));
        let negated = match method {
            "isnull" | "isna" => false,
            "notnull" | "notna" => true,
            _ => {
                let mut cause = format!("{} is no function; there are none", called.name);
                if let Some(instead) = self.instead(&spell::name(name), method, inverted) {
                    cause = format!("{} is a method of pandas; write {instead}", called.name);
                }
                return Err(ExprError::new(called.at, cause));
            }
        };
        self.place += 1;
        if !self.takes_sign(")") {
            return Err(self.wrong("a closing ) was expected"));
        }
        Ok(Some(Expr::Null { column: Name { name: name.to_owned(), at: called.at }, negated }))
    }

    /// The expression equivalent to a method call whose name has been read.
    fn instead(&mut self, name: &str, method: &str, inverted: bool) -> Option<String> {
        self.place += 1;
        let texts = |list: Vec<Literal>| spell::list(list.iter().map(spell::literal));
        let not = if inverted { "not " } else { "" };
        let simple = [("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")];
        if let Some((_, op)) = simple.iter().find(|(known, _)| *known == method) {
            let value = self.literal().ok()??;
            return Some(format!("{not}{name} {op} {}", spell::literal(&value)));
        }
        match method {
            "isin" => Some(format!("{name} {not}in {}", texts(self.list().ok()?))),
            "between" => {
                let low = self.literal().ok()??;
                self.takes_sign(",").then_some(())?;
                let high = self.literal().ok()??;
                let ends = if self.takes_sign(",") { self.inclusive()? } else { "both".to_owned() };
                let sign = |is_in: bool| if is_in { "<=" } else { "<" };
                let left = sign(ends == "both" || ends == "left");
                let right = sign(ends == "both" || ends == "right");
                let test = format!("{} {left} {name} {right} {}", spell::literal(&low), spell::literal(&high));
                Some(if inverted { format!("not ({test})") } else { test })
            }
            _ => None,
        }
    }

    /// Parses the last argument of `between`: which ends are included.
    fn inclusive(&mut self) -> Option<String> {
        if self.takes("inclusive") {
            self.takes_sign("=").then_some(())?;
        }
        match self.literal().ok()??.value {
            Constant::Text(ends) => Some(ends),
            _ => None,
        }
    }

    /// Refuses to compare a bracketed expression: it is boolean.
    fn alone(&mut self, expr: Expr) -> Result<Expr, ExprError> {
        match self.op() {
            Some((_, at)) => Err(ExprError::new(at, "what is in brackets or after ~ is true or false already")),
            None => Ok(expr),
        }
    }

    fn op(&mut self) -> Option<(Op, usize)> {
        let op = match self.kind() {
            TokenKind::Sign("==") => Op::Eq,
            TokenKind::Sign("!=" | "<>") => Op::Ne,
            TokenKind::Sign("<") => Op::Lt,
            TokenKind::Sign("<=") => Op::Le,
            TokenKind::Sign(">") => Op::Gt,
            TokenKind::Sign(">=") => Op::Ge,
            _ => return None,
        };
        self.place += 1;
        Some((op, self.tokens[self.place - 1].at))
    }

    fn operand(&mut self) -> Result<Operand, ExprError> {
        if let Some(literal) = self.literal()? {
            return Ok(Operand::Literal(literal));
        }
        Ok(Operand::Column(self.column()?))
    }

    fn column(&mut self) -> Result<Name, ExprError> {
        let name = match self.kind() {
            TokenKind::Name(name) => name.clone(),
            TokenKind::Word(word) if is_null(word) => {
                return Err(ExprError::new(self.at(), format!("nothing equals {word}; write `x is null`")));
            }
            TokenKind::Word(word) if !spell::KEYWORDS.iter().any(|keyword| is_keyword(self.kind(), keyword)) => {
                word.clone()
            }
            _ => return Err(self.wrong("a column or a value was expected")),
        };
        let at = self.at();
        self.place += 1;
        Ok(Name { name, at })
    }

    fn literal(&mut self) -> Result<Option<Literal>, ExprError> {
        let at = self.at();
        let minus = self.takes_sign("-");
        let value = match self.kind().clone() {
            TokenKind::Constant(Constant::Int(number)) if minus => Constant::Int(-number),
            TokenKind::Constant(Constant::Float(number)) if minus => Constant::Float(-number),
            TokenKind::Constant(_) if minus => return Err(self.wrong("a number was expected after -")),
            TokenKind::Constant(value) => value,
            TokenKind::Word(word) if !minus && ["True", "true", "TRUE"].contains(&word.as_str()) => {
                Constant::Bool(true)
            }
            TokenKind::Word(word) if !minus && ["False", "false", "FALSE"].contains(&word.as_str()) => {
                Constant::Bool(false)
            }
            _ if minus => return Err(self.wrong("a number was expected after -; columns are not calculated with")),
            _ => return Ok(None),
        };
        self.place += 1;
        Ok(Some(Literal { value, at }))
    }

    fn list_begins(&self) -> bool {
        matches!(self.kind(), TokenKind::Sign("[" | "("))
    }

    fn list(&mut self) -> Result<Vec<Literal>, ExprError> {
        let close = match self.kind() {
            TokenKind::Sign("[") => "]",
            TokenKind::Sign("(") => ")",
            _ => return Err(self.wrong("a list was expected, as in [\"a\", \"b\"]")),
        };
        self.place += 1;
        let mut list = Vec::new();
        while !self.takes_sign(close) {
            if !list.is_empty() && !self.takes_sign(",") {
                return Err(self.wrong(&format!("a comma or {close} was expected")));
            }
            // A trailing comma is allowed, as in Python.
            if !list.is_empty() && self.takes_sign(close) {
                break;
            }
            match self.literal()? {
                Some(literal) => list.push(literal),
                None => return Err(self.wrong("a value was expected in the list; put quotes around text")),
            }
        }
        Ok(list)
    }
}

/// Keywords are all lower case or, as in SQL, all upper case.
fn is_keyword(kind: &TokenKind, keyword: &str) -> bool {
    let TokenKind::Word(word) = kind else { return false };
    match keyword {
        "none" | "nan" | "na" => word.eq_ignore_ascii_case(keyword),
        _ => word == keyword || *word == keyword.to_ascii_uppercase(),
    }
}

fn is_null(word: &str) -> bool {
    ["null", "NULL", "None"].contains(&word)
}

fn one_or(mut parts: Vec<Expr>, several: impl Fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            several(parts)
        }
    }
}
