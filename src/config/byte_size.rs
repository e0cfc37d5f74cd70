//! Sizes in bytes: a whole number, or a number with a unit such as "50MiB".

use std::fmt;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Deserializes a number of bytes, at least one.
pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match any(deserializer)? {
        0 => Err(D::Error::custom(
            "0 bytes would refuse every message; use a size such as \"50MiB\"",
        )),
        bytes => Ok(bytes),
    }
}

/// Deserializes a number of bytes, 0 included.
pub(super) fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes or a size such as \"50MiB\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        match u64::try_from(bytes) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_type(Unexpected::Signed(bytes), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        let Some(bytes) = parse(text) else {
            return Err(E::custom(format!(
                "{text:?} is not a size; use a whole number with B, KiB, MiB, GiB, KB, MB or GB, \
                 such as \"50MiB\""
            )));
        };
        self.visit_u64(bytes)
    }
}

/// Reads a size as it is written in the configuration, in bytes.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_thousand_and_of_1024_differ() {
        for (text, bytes) in [
            ("1", Some(1)),
            ("52428800", Some(50 << 20)),
            ("50MiB", Some(50 << 20)),
            ("50 MiB", Some(50 << 20)),
            ("50MB", Some(50_000_000)),
            ("10KiB", Some(10_240)),
            ("2GiB", Some(2 << 30)),
            ("7B", Some(7)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("50mib", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse(text), bytes, "{text:?}");
        }
    }
}
