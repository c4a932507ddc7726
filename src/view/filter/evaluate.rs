//! Evaluates an expression tree on columns: checks types, then computes a bitmap for each test.

use super::compare::{self, NamedColumn};
use super::{Constant, Expr, ExprError, Filter, Literal, Name, Op, Operand};
use crate::anndata::column::Values;
use crate::view::ViewError;
use crate::view::bits::Bits;
use crate::view::suggest::suggest;

/// Source of columns.
pub trait ColumnLookup {
    /// The column of this name, with a value for each row, if it exists.
    fn column(&self, name: &str) -> Option<&Values>;
    /// The names of all columns.
    fn known(&self) -> Vec<&str>;
}

impl Filter {
    /// The rows for which the expression is true.
    ///
    /// # Errors
    /// A column or label that does not exist, or a comparison that its type does not allow.
    pub fn evaluate(&self, rows: u64, columns: &dyn ColumnLookup) -> Result<Bits, ViewError> {
        let evaluation = Evaluation { rows, columns };
        evaluation.expr(&self.root).map_err(|wrong| wrong.of(&self.text))
    }
}

struct Evaluation<'a> {
    rows: u64,
    columns: &'a dyn ColumnLookup,
}

impl<'a> Evaluation<'a> {
    fn expr(&self, expr: &Expr) -> Result<Bits, ExprError> {
        Ok(match expr {
            Expr::Any(parts) => self.folded(parts, Bits::none(self.rows), Bits::or)?,
            Expr::All(parts) => self.folded(parts, Bits::all(self.rows), Bits::and)?,
            Expr::Not(part) => self.expr(part)?.invert(),
            Expr::Compare { left: Operand::Column(left), op, right: Operand::Column(right) } => {
                compare::columns(self.rows, (left.at, self.column(left)?), *op, self.column(right)?)?
            }
            Expr::Compare { left: Operand::Column(column), op, right: Operand::Literal(literal) } => {
                self.one(column, *op, literal)?
            }
            Expr::Compare { left: Operand::Literal(literal), op, right: Operand::Column(column) } => {
                self.one(column, mirrored(*op), literal)?
            }
            Expr::Compare { left: Operand::Literal(literal), right: Operand::Literal(_), .. } => {
                return Err(ExprError::new(literal.at, "two values are compared; one side must be a column"));
            }
            Expr::In { column, list, negated } => {
                let found = compare::within(self.rows, &self.column(column)?, list)?;
                if *negated { found.invert() } else { found }
            }
            Expr::Null { column, negated } => {
                let missing = self.column(column)?.missing(self.rows);
                if *negated { missing.invert() } else { missing }
            }
            Expr::Is(column) => {
                let here = self.column(column)?;
                if !here.is_boolean() {
                    let NamedColumn { name, kind, .. } = &here;
                    let remedy = here.example();
                    return Err(ExprError::new(
                        column.at,
                        format!("{name} is {}, not boolean; write {remedy}", kind.name()),
                    ));
                }
                let truth = Literal { value: Constant::Bool(true), at: column.at };
                compare::with(self.rows, &here, Op::Eq, &truth)?
            }
        })
    }

    fn folded(&self, parts: &[Expr], start: Bits, join: impl Fn(Bits, &Bits) -> Bits) -> Result<Bits, ExprError> {
        parts.iter().try_fold(start, |all, part| Ok(join(all, &self.expr(part)?)))
    }

    fn one(&self, column: &Name, op: Op, literal: &Literal) -> Result<Bits, ExprError> {
        compare::with(self.rows, &self.column(column)?, op, literal)
    }

    fn column<'b>(&self, column: &'b Name) -> Result<NamedColumn<'b>, ExprError>
    where
        'a: 'b,
    {
        match self.columns.column(&column.name) {
            Some(values) => Ok(NamedColumn::new(&column.name, values)),
            None => {
                let known = suggest(&column.name, self.columns.known().into_iter());
                Err(ExprError::new(column.at, format!("no obs column is called {}; {known}", column.name)))
            }
        }
    }
}

fn mirrored(op: Op) -> Op {
    match op {
        Op::Eq | Op::Ne => op,
        Op::Lt => Op::Gt,
        Op::Le => Op::Ge,
        Op::Gt => Op::Lt,
        Op::Ge => Op::Le,
    }
}
