//! Sizes, times and ranges as people write them.

use blockframe::base::Timestamp;
use blockframe::cli::units;

/// The input is 12 bytes of a moment, then a text.
pub fn run(input: &[u8]) {
    let Some((moment, text)) = input.split_first_chunk::<12>() else { return };
    let [s @ .., n0, n1, n2, n3] = *moment;
    let nanoseconds = u32::from_le_bytes([n0, n1, n2, n3]) % 1_000_000_000;
    let now = Timestamp { seconds: i64::from_le_bytes(s), nanoseconds };
    let shown = units::rfc3339(now);
    // Years of four digits are what RFC 3339 has.
    if (-62_167_219_200..=253_402_300_799).contains(&now.seconds) {
        assert_eq!(units::parse_time(&shown), Some(now), "{shown}");
    }
    let _ = (units::time(now.seconds), units::age(now.seconds.unsigned_abs()), units::size(now.seconds.unsigned_abs()));
    let bytes = now.seconds.unsigned_abs();
    assert_eq!(units::parse_size(&units::exact_size(bytes)), Ok(bytes));
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(moment) = units::parse_moment(text) {
        assert!(moment.when(now).nanoseconds < 1_000_000_000);
    }
    if let Ok(range) = units::parse_range(text) {
        assert!(range.end.is_none_or(|end| end >= range.start));
    }
    let _ = (units::parse_size(text), units::parse_duration(text), units::parse_budget(text));
}

/// One text of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = ["10MiB", "1h 30m", "2h ago", "2026-11-20T12:00:00.25+01:00", "100-2kB", "20GB", "yesterday", "-1MB"];
    texts.iter().map(|text| [&1_795_176_000u64.to_le_bytes()[..], &[1, 2, 3, 4], text.as_bytes()].concat()).collect()
}
