//! The meaning of an array's integers, if they are more than numbers: names (HDF5 enums) or times.

use std::fmt;

use super::Dtype;
use super::cast::to_i64;

/// What the elements of an integer array stand for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Meaning {
    /// Numbers or booleans.
    Numbers,
    /// Integers with names, except booleans without a missing value.
    Names(Names),
    /// 64-bit integers that count time since 1970-01-01, or durations.
    Time(Time),
}

/// The names of an enum with their integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names(pub Vec<(String, i64)>);

/// The integers of a boolean enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Booleans {
    pub no: i64,
    pub yes: i64,
    /// The integer of R's `NA`.
    pub missing: Option<i64>,
}

impl Names {
    /// The integers, if the names are `FALSE` and `TRUE` in any case, and possibly `NA`, as in R's logical.
    pub fn booleans(&self) -> Option<Booleans> {
        let value = |wanted: &str| self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, n)| *n);
        let booleans = Booleans { no: value("false")?, yes: value("true")?, missing: value("na") };
        (self.0.len() == 2 + usize::from(booleans.missing.is_some())).then_some(booleans)
    }

    /// The integers of booleans without a missing value.
    pub fn two_valued(&self) -> Option<Booleans> {
        self.booleans().filter(|booleans| booleans.missing.is_none())
    }

    /// For each element the index of its name.
    ///
    /// # Errors
    /// The first integer without a name.
    pub fn codes(&self, dtype: Dtype, elements: &[u8]) -> Result<Vec<i32>, i64> {
        let code = |element: &[u8]| {
            let number = to_i64(dtype, element);
            let place = self.0.iter().position(|(_, value)| *value == number);
            place.and_then(|place| i32::try_from(place).ok()).ok_or(number)
        };
        elements.chunks_exact(dtype.size()).map(code).collect()
    }
}

impl Booleans {
    /// Converts elements to booleans (0 or 1), and a mask (1 = missing).
    ///
    /// # Errors
    /// The first integer that is not one of the enum.
    pub fn split(self, dtype: Dtype, elements: &[u8]) -> Result<(Vec<u8>, Vec<u8>), i64> {
        let one = |element: &[u8]| match to_i64(dtype, element) {
            number if number == self.no => Ok((0, 0)),
            number if number == self.yes => Ok((1, 0)),
            number if Some(number) == self.missing => Ok((0, 1)),
            number => Err(number),
        };
        let pairs = elements.chunks_exact(dtype.size()).map(one).collect::<Result<Vec<(u8, u8)>, i64>>()?;
        Ok(pairs.into_iter().unzip())
    }
}

/// What a 64-bit integer counts. The smallest integer means missing (NaT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Time {
    pub is_duration: bool,
    pub unit: Unit,
}

/// The supported units of numpy, coarse to fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

const UNITS: [(Unit, &str); 10] = [
    (Unit::Year, "Y"),
    (Unit::Month, "M"),
    (Unit::Week, "W"),
    (Unit::Day, "D"),
    (Unit::Hour, "h"),
    (Unit::Minute, "m"),
    (Unit::Second, "s"),
    (Unit::Millisecond, "ms"),
    (Unit::Microsecond, "us"),
    (Unit::Nanosecond, "ns"),
];

const DAY_NANOSECONDS: i128 = 86_400_000_000_000;

/// The integer of a missing time, as in numpy.
pub const NOT_A_TIME: i64 = i64::MIN;

impl Unit {
    pub fn name(self) -> &'static str {
        UNITS.iter().find(|(unit, _)| *unit == self).map_or("", |(_, name)| name)
    }

    /// The unit with numpy's abbreviation.
    pub fn from_name(name: &str) -> Option<Unit> {
        UNITS.iter().find(|(_, other)| *other == name).map(|(unit, _)| *unit)
    }

    /// `None` for months and years, whose length varies.
    fn nanoseconds(self) -> Option<i128> {
        Some(match self {
            Unit::Year | Unit::Month => return None,
            Unit::Week => 7 * DAY_NANOSECONDS,
            Unit::Day => DAY_NANOSECONDS,
            Unit::Hour => 3_600_000_000_000,
            Unit::Minute => 60_000_000_000,
            Unit::Second => 1_000_000_000,
            Unit::Millisecond => 1_000_000,
            Unit::Microsecond => 1_000,
            Unit::Nanosecond => 1,
        })
    }
}

impl Time {
    /// Parses numpy's descriptor, with or without byte order: `<M8[ns]`, `m8[s]`.
    pub fn from_descr(descr: &str) -> Option<Time> {
        Time::multiple_of(descr).filter(|(_, multiple)| *multiple == 1).map(|(time, _)| time)
    }

    /// Parses a descriptor in which a tick may be several units: `M8[25s]`.
    pub fn multiple_of(descr: &str) -> Option<(Time, i64)> {
        let descr = descr.trim_start_matches(['<', '>', '=', '|']);
        let told = descr.get(3..)?.strip_suffix(']')?;
        let name = told.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = told.strip_suffix(name).filter(|digits| !digits.is_empty());
        let multiple = digits.map_or(Some(1), |digits| digits.parse().ok().filter(|&multiple| multiple > 0))?;
        let unit = Unit::from_name(name)?;
        let is_duration = match descr.get(..3)? {
            "M8[" => false,
            "m8[" => true,
            _ => return None,
        };
        Some((Time { is_duration, unit }, multiple))
    }

    /// numpy's descriptor, little-endian.
    pub fn descr(self) -> String {
        format!("<{}8[{}]", if self.is_duration { 'm' } else { 'M' }, self.unit.name())
    }

    /// The kind, as named by `dataset.json` and `info`.
    pub fn kind(self) -> &'static str {
        if self.is_duration { "timedelta" } else { "datetime" }
    }

    /// The time in ISO 8601: `2020-01-31`, `2020-01-31T12:00:00.5`, `P1DT2H3M4S`; empty if missing. Years outside of 0 to 9999 have a
    /// sign.
    pub fn text(self, ticks: i64) -> String {
        if ticks == NOT_A_TIME {
            return String::new();
        }
        let wide = i128::from(ticks);
        let Some(step) = self.unit.nanoseconds() else {
            let months = if self.unit == Unit::Year { wide * 12 } else { wide };
            let (year, month) = (1970 + months.div_euclid(12), months.rem_euclid(12) + 1);
            return match (self.is_duration, self.unit) {
                (true, unit) => format!("P{ticks}{}", unit.name()),
                (false, Unit::Year) => year_text(year),
                (false, _) => format!("{}-{month:02}", year_text(year)),
            };
        };
        let total = wide * step;
        let (days, rest) = (total.div_euclid(DAY_NANOSECONDS), total.rem_euclid(DAY_NANOSECONDS));
        let (seconds, fraction) = (rest / 1_000_000_000, rest % 1_000_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = match format!(".{fraction:09}").trim_end_matches('0') {
            "." => String::new(),
            fraction => fraction.to_owned(),
        };
        if self.is_duration {
            return format!("P{days}DT{hour}H{minute}M{second}{fraction}S");
        }
        let (year, month, day) = date(days);
        let date = format!("{}-{month:02}-{day:02}", year_text(year));
        if self.unit <= Unit::Day {
            return date;
        }
        format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}")
    }

    /// How many units of `finer` are in one of these; `None` if that is not an integer.
    pub fn steps_of(self, finer: Time) -> Option<i64> {
        if self.is_duration != finer.is_duration {
            return None;
        }
        match (self.unit, finer.unit) {
            (a, b) if a == b => Some(1),
            (Unit::Year, Unit::Month) => Some(12),
            (a, b) => {
                let (a, b) = (a.nanoseconds()?, b.nanoseconds()?);
                if a % b == 0 { i64::try_from(a / b).ok() } else { None }
            }
        }
    }
}

impl fmt::Display for Time {
    /// numpy's name: `datetime64[ns]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}64[{}]", self.kind(), self.unit.name())
    }
}

fn year_text(year: i128) -> String {
    if (0..10_000).contains(&year) { format!("{year:04}") } else { format!("{year:+05}") }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Internally years start in March, so that the leap day
/// is the last one; 400 years have 146,097 days.
fn date(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + i128::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[(&str, i64)]) -> Names {
        Names(names.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn booleans_go_by_name() {
        let two = |no, yes| Some(Booleans { no, yes, missing: None });
        assert_eq!(names(&[("FALSE", 0), ("TRUE", 1)]).booleans(), two(0, 1));
        assert_eq!(names(&[("True", 255), ("False", 0)]).booleans(), two(0, 255));
        let r = names(&[("FALSE", 0), ("TRUE", 1), ("NA", 2)]).booleans();
        assert_eq!(r, Some(Booleans { no: 0, yes: 1, missing: Some(2) }));
        assert_eq!(r.unwrap().split(Dtype::I16, &[1, 0, 2, 0, 0, 0]), Ok((vec![1, 0, 0], vec![0, 1, 0])));
        assert_eq!(r.unwrap().split(Dtype::U8, &[1, 7]), Err(7));
        for others in [&[("F", 0), ("T", 1)][..], &[("FALSE", 0), ("TRUE", 1), ("maybe", 2)], &[("TRUE", 1)]] {
            assert_eq!(names(others).booleans(), None);
        }
        assert_eq!(names(&[("b", -3), ("a", 9)]).codes(Dtype::I8, &[9, 0xfd]), Ok(vec![1, 0]));
    }

    /// Expected values from numpy and pandas.
    #[test]
    fn times_are_written_as_iso() {
        let text = |descr: &str, ticks| Time::from_descr(descr).unwrap().text(ticks);
        for (descr, ticks, want) in [
            ("<M8[ns]", 0, "1970-01-01T00:00:00"),
            ("M8[ns]", 1_612_325_106_123_456_789, "2021-02-03T04:05:06.123456789"),
            ("M8[ms]", -1, "1969-12-31T23:59:59.999"),
            ("M8[s]", 951_782_400, "2000-02-29T00:00:00"),
            ("M8[D]", 11_016, "2000-02-29"),
            ("M8[D]", -719_529, "-0001-12-31"),
            ("M8[W]", 1, "1970-01-08"),
            ("M8[M]", -1, "1969-12"),
            ("M8[Y]", 50, "2020"),
            ("M8[s]", i64::MIN, ""),
            ("m8[s]", 93_784, "P1DT2H3M4S"),
            ("m8[ns]", -500_000_000, "P-1DT23H59M59.5S"),
        ] {
            assert_eq!(text(descr, ticks), want, "{descr} {ticks}");
        }
        assert_eq!(Time::from_descr("<M8[25s]"), None);
        assert_eq!(Time::multiple_of(">M8[25s]"), Time::from_descr("M8[s]").map(|time| (time, 25)));
        assert_eq!(
            (Time::multiple_of("M8[0s]"), Time::multiple_of("M8[25]"), Time::multiple_of("M8")),
            (None, None, None)
        );
        assert_eq!(Time::from_descr("<m8[us]").unwrap().to_string(), "timedelta64[us]");
        let time = |descr| Time::from_descr(descr).unwrap();
        assert_eq!(time("M8[D]").steps_of(time("M8[s]")), Some(86_400));
        assert_eq!((time("M8[s]").steps_of(time("M8[D]")), time("M8[M]").steps_of(time("M8[D]"))), (None, None));
    }
}
