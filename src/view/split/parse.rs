//! Parses `train=0.8,val=0.1,test=0.1`: names and exact decimal fractions.

/// Fractions are stored in billionths, so that 0.1 and sums are exact.
pub const UNIT: u64 = 1_000_000_000;

/// One side's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fraction {
    pub name: String,
    /// The fraction in billionths ([`UNIT`]).
    pub parts: u64,
}

impl Fraction {
    pub fn share(&self) -> f64 {
        self.parts as f64 / UNIT as f64
    }
}

/// Parses a list of `NAME=FRACTION`.
///
/// # Errors
/// A syntax error, a repeated name, a fraction that is not above 0, a sum above 1.
pub fn fractions(text: &str) -> Result<Vec<Fraction>, String> {
    let mut fractions: Vec<Fraction> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let wrong = || format!("{item:?} is not NAME=FRACTION, as in train=0.8,val=0.1,test=0.1");
        let (name, fraction) = item.split_once('=').ok_or_else(wrong)?;
        let (name, fraction) = (name.trim(), fraction.trim());
        let parts = parts(fraction).filter(|&parts| parts > 0 && parts <= UNIT).ok_or_else(wrong)?;
        if fractions.iter().any(|other| other.name == name) {
            return Err(format!("{name} is named twice"));
        }
        fractions.push(Fraction { name: name.to_owned(), parts });
    }
    if fractions.is_empty() {
        return Err("no side is named; write train=0.8,val=0.1,test=0.1".to_owned());
    }
    let sum: u64 = fractions.iter().map(|fraction| fraction.parts).sum();
    if sum > UNIT {
        return Err(format!("the fractions sum to {}, above 1", sum as f64 / UNIT as f64));
    }
    Ok(fractions)
}

/// Parses a decimal number with at most nine places.
fn parts(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 9 || !(whole.to_owned() + decimals).bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let decimals: u64 = format!("{decimals:0<9}").parse().ok()?;
    whole.checked_mul(UNIT)?.checked_add(decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_exact() {
        let parsed =
            |text: &str| fractions(text).map(|all| all.into_iter().map(|f| (f.name, f.parts)).collect::<Vec<_>>());
        assert_eq!(parsed("a=.1, b=0.25,"), Ok(vec![("a".into(), UNIT / 10), ("b".into(), UNIT / 4)]));
        assert!(parsed("a=0.1,b=0.2,c=0.7").is_ok());
        for (text, word) in [
            ("", "no side"),
            ("a", "NAME=FRACTION"),
            ("a=0", "NAME=FRACTION"),
            ("a=-1", "NAME=FRACTION"),
            ("a=1e-3", "NAME=FRACTION"),
            ("a=0.7,b=0.4", "sum to 1.1"),
            ("a=0.7,a=0.1", "twice"),
        ] {
            assert!(parsed(text).is_err_and(|error| error.contains(word)), "{text}");
        }
    }
}
