//! Sizes, times and ranges as people write and read them.

use super::args::{Budget, ByteSpan};
use crate::base::Timestamp;
pub use crate::base::calendar::parse_time;
use crate::base::calendar::rfc3339_seconds;
use std::time::Duration;

/// Most digits of a size with a unit: so many always fit into 64 bits.
const MAX_SIZE_DIGITS: usize = 19;

/// Reads a size: `10MB` is decimal, `10MiB` binary, a bare number bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    // The crate's sums overflow on these: more digits than it can hold, and powers of ten.
    let has_power = text.split_once(['e', 'E']).is_some_and(|(_, rest)| rest.contains(|c: char| c.is_ascii_digit()));
    if has_power || text.chars().filter(char::is_ascii_digit).count() > MAX_SIZE_DIGITS {
        return Err(format!("\"{text}\" is no size such as 10MB or 10MiB (at most {MAX_SIZE_DIGITS} digits)"));
    }
    parse_size::Config::new()
        .with_decimal()
        .parse_size(text)
        .map_err(|error| format!("\"{text}\" is no size such as 10MB or 10MiB ({error})"))
}

/// Reads a length of time: `30d`, `2h`, `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("\"{text}\" is no length of time such as 30d or 2h ({error})"))
}

/// A moment as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// That one.
    At(Timestamp),
    /// This long before now.
    Ago(Duration),
}

impl Moment {
    /// Which moment it is.
    pub fn when(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(time) => time,
            Moment::Ago(ago) => {
                let borrow = now.nanoseconds < ago.subsec_nanos();
                let nanoseconds = now.nanoseconds + if borrow { NANOSECONDS } else { 0 } - ago.subsec_nanos();
                let seconds = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(borrow));
                Timestamp { seconds: now.seconds.saturating_sub(seconds), nanoseconds }
            }
        }
    }
}

const NANOSECONDS: u32 = 1_000_000_000;

/// Reads a moment: RFC 3339, `2026-11-20 12:00` or `2026-11-20` (UTC), `2h ago` or `2h`, `yesterday`, `now`.
pub fn parse_moment(text: &str) -> Result<Moment, String> {
    let trimmed = text.trim();
    match trimmed {
        "now" => return Ok(Moment::Ago(Duration::ZERO)),
        "yesterday" => return Ok(Moment::Ago(Duration::from_secs(86_400))),
        _ => {}
    }
    if let Some(time) = parse_time(trimmed) {
        return Ok(Moment::At(time));
    }
    let ago = trimmed.strip_suffix("ago").map_or(trimmed, str::trim_end);
    humantime::parse_duration(ago).map(Moment::Ago).map_err(|_| {
        format!(
            "\"{text}\" is no time such as 2026-11-20T12:00:00Z, \"2026-11-20 12:00\" (UTC), \"2h ago\" or yesterday"
        )
    })
}

/// Reads a budget: a size, or a length of time.
pub fn parse_budget(text: &str) -> Result<Budget, String> {
    if let Ok(bytes) = parse_size(text) {
        return Ok(Budget::Bytes(bytes));
    }
    parse_duration(text)
        .map(Budget::Time)
        .map_err(|_| format!("\"{text}\" is neither a size (20GB) nor a length of time (2h)"))
}

/// Reads `A-B`, `A-` or `-B`; both are sizes, B is one past the last byte.
pub fn parse_range(text: &str) -> Result<ByteSpan, String> {
    let (start, end) = text.split_once('-').ok_or_else(|| format!("\"{text}\" is no range such as 100-200"))?;
    let start = if start.is_empty() { 0 } else { parse_size(start)? };
    let end = if end.is_empty() { None } else { Some(parse_size(end)?) };
    match end {
        Some(end) if end < start => Err(format!("the range \"{text}\" ends before it starts")),
        _ => Ok(ByteSpan { start, end }),
    }
}

/// A size for people, three digits: `512 B`, `1.23 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would print as 1000 and 9.995 as 10.00: step up before rounding does.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A size as the configuration writes it: the largest unit that leaves a whole number.
pub fn exact_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("TB", 1_000_000_000_000),
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1000),
    ];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}"),
    }
}

/// A point in time for people, UTC: `2026-11-20 22:06:38`.
pub fn time(seconds: i64) -> String {
    rfc3339_seconds(seconds).trim_end_matches('Z').replace('T', " ")
}

/// A point in time for programs: RFC 3339 with nanoseconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{}.{:09}Z", rfc3339_seconds(time.seconds).trim_end_matches('Z'), time.nanoseconds)
}

/// How long ago, in the largest whole unit: `12 days`, `3 hours`.
pub fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    plural(count, unit)
}

/// `1 file`, `2 files`; `1 copy`, `2 copies`.
pub fn plural(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_too_many_digits_are_refused_and_do_not_overflow() {
        for text in ["148446744073709551615674", "184467440737095516155kB", "1.5e-2147483648", "1e2147483647", "2e9"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_size(" 1EB "), Ok(1_000_000_000_000_000_000));
        assert_eq!(parse_size("1.5EiB"), Ok(3 << 59));
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("10MiB"), Ok(10 << 20));
        assert_eq!(parse_size(" 1.5 GB "), Ok(1_500_000_000));
        assert_eq!(parse_size("123"), Ok(123));
        for bad in ["", "ten", "10XB", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for bytes in [0, 1, 1000, 1024, 1 << 20, 10_000_000, 123_456_789, 1 << 41] {
            assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn sizes_show_three_digits() {
        let shown = [0, 999, 1000, 9_994, 9_995, 99_949, 999_499, 999_500, 1_234_567_890, u64::MAX].map(size);
        let expected =
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "99.9 kB", "999 kB", "1.00 MB", "1.23 GB", "18.4 EB"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn times_are_right_on_both_sides_of_1970() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(-1), "1969-12-31 23:59:59");
        assert_eq!(time(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(time(4_107_542_400), "2100-03-01 00:00:00");
        for seconds in [0i64, 86_399, 1_795_212_398, 4_102_444_800, 68_169_600] {
            let moment = std::time::UNIX_EPOCH + Duration::from_secs(seconds as u64);
            let expected = humantime::format_rfc3339_seconds(moment).to_string();
            assert_eq!(format!("{}Z", time(seconds).replace(' ', "T")), expected);
        }
        let _ = (time(i64::MIN), time(i64::MAX));
    }

    #[test]
    fn moments_read_as_people_name_them() {
        let at = |seconds, nanoseconds| Ok(Moment::At(Timestamp { seconds, nanoseconds }));
        let ago = |seconds| Ok(Moment::Ago(Duration::from_secs(seconds)));
        for (text, expected) in [
            ("2000-02-29T12:34:56Z", at(951_827_696, 0)),
            ("2000-02-29T12:34:56.000000001Z", at(951_827_696, 1)),
            ("2000-02-29 12:34:56.5", at(951_827_696, 500_000_000)),
            ("2000-02-29 12:34", at(951_827_640, 0)),
            ("2000-02-29t13:34:56+01:00", at(951_827_696, 0)),
            ("2000-02-28 23:34:56-13:00", at(951_827_696, 0)),
            ("2000-02-29", at(951_782_400, 0)),
            (" 1969-12-31 23:59:59 ", at(-1, 0)),
            ("2h", ago(7200)),
            ("2h ago", ago(7200)),
            ("1day 3min ago", ago(86_580)),
            ("yesterday", ago(86_400)),
            ("now", ago(0)),
        ] {
            assert_eq!(parse_moment(text), expected, "{text}");
        }
        for text in [
            "",
            "ago",
            "soon",
            "2001-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-20 24:00",
            "2026-11-20 12",
            "2026-11-20 1:2",
            "2026-11-20X12:00",
            "2026-11-20 12:00.5",
            "2026-11-20 12:00:00.",
            "2026-11-20 12:00:00.1234567890",
            "2026-11-20 12:00+1",
            "2026-1-020",
            "2026-11-2é",
            "+026-11-20",
            "2026-11-20 12:00:00:00",
        ] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_times_read_back() {
        for seconds in [0, -1, 86_399, 951_827_696, 4_107_542_400, -62_000_000_000, 253_402_300_799] {
            for nanoseconds in [0, 1, 999_999_999] {
                let time = Timestamp { seconds, nanoseconds };
                assert_eq!(parse_time(&rfc3339(time)), Some(time));
            }
        }
    }

    #[test]
    fn a_moment_ago_counts_nanoseconds() {
        let now = Timestamp { seconds: 100, nanoseconds: 5 };
        let ago = |duration| Moment::Ago(duration).when(now);
        assert_eq!(ago(Duration::new(1, 6)), Timestamp { seconds: 98, nanoseconds: 999_999_999 });
        assert_eq!(ago(Duration::new(1, 5)), Timestamp { seconds: 99, nanoseconds: 0 });
        assert_eq!(ago(Duration::MAX).seconds, 100 - i64::MAX);
    }

    #[test]
    fn budgets_and_ranges_parse() {
        assert_eq!(parse_budget("20GB"), Ok(Budget::Bytes(20_000_000_000)));
        assert_eq!(parse_budget("2h"), Ok(Budget::Time(Duration::from_secs(7200))));
        assert_eq!(parse_range("100-200"), Ok(ByteSpan { start: 100, end: Some(200) }));
        assert_eq!(parse_range("1KiB-"), Ok(ByteSpan { start: 1024, end: None }));
        assert_eq!(parse_range("-5"), Ok(ByteSpan { start: 0, end: Some(5) }));
        assert!(parse_range("5-4").is_err());
        assert!(parse_range("5").is_err());
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!(age(86_400), "1 day");
        assert_eq!(age(86_400 * 12 + 5), "12 days");
        assert_eq!(plural(2, "directory"), "2 directories");
    }
}
