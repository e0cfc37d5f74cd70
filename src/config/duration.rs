//! Durations as people write them: "30s", "5m", "500ms", "1h 30m".

use std::time::Duration;

use serde::Deserializer;

use super::text;

/// Longer ones are slips of the pen, and adding them to a clock could overflow it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const EXPECTED: &str = "a duration such as \"30s\", \"5m\" or \"500ms\"";

/// Deserializes a duration of up to a day, zero included.
pub(super) fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    text::parsed(deserializer, EXPECTED, parse)
}

/// Deserializes a duration that has to be longer than zero.
pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    text::parsed(deserializer, EXPECTED, |text| match parse(text)? {
        Duration::ZERO => Err(format!("{text:?} is no time at all; use {EXPECTED}")),
        duration => Ok(duration),
    })
}

fn parse(text: &str) -> Result<Duration, String> {
    let duration = crate::clock::span(text)
        .ok_or_else(|| format!("{text:?} is not a duration; use {EXPECTED}"))?;
    if duration > LONGEST {
        return Err(format!(
            "{text:?} is longer than a day; use \"24h\" or less"
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("500ms", Some(500)),
            ("1h 30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("24h", Some(86_400_000)),
            ("1d", Some(86_400_000)),
            ("7d", None),
            ("25h", None),
            ("30", None),
            ("-5s", None),
            ("5s ago", None),
            ("", None),
            ("soon", None),
        ] {
            let parsed = parse(text).ok().map(|duration| duration.as_millis());
            assert_eq!(parsed, millis, "{text:?}");
        }
    }
}
