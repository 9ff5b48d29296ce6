//! Moments in the Gregorian calendar, as RFC 3339 writes them.

use super::Timestamp;

/// Reads a date with or without a time of day, UTC unless it ends with an
/// offset: `2026-11-20`, `2026-11-20T12:00`, `2026-11-20 12:00:00.5+01:00`.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, rest_of_date) = date.split_once('-')?;
    let (month, day) = rest_of_date.split_once('-')?;
    let year = if year.len() == 4 { digits(year)? } else { return None };
    let (month, day) = (two_digits(month)?, two_digits(day)?);
    let days = day_number(year, month, day)?;
    // The thirtieth of February becomes a day in March.
    if civil_date(days) != (year, month, day) {
        return None;
    }
    let Some(time) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then_some(Timestamp { seconds: days * 86_400, nanoseconds: 0 });
    };
    let (time, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (&time[..at], offset_seconds(&time[at..])?),
        None => (time, 0),
    };
    let (in_day, nanoseconds) = time_of_day(time)?;
    Some(Timestamp { seconds: days * 86_400 + in_day - offset, nanoseconds })
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.FRACTION` as seconds and nanoseconds.
fn time_of_day(text: &str) -> Option<(i64, u32)> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let parts = clock.split(':').map(two_digits).collect::<Option<Vec<i64>>>()?;
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if fraction.is_none() => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    // A leap second counts as the one before it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let nanoseconds = match fraction {
        Some(text) if (1..=9).contains(&text.len()) => digits(text)? as u32 * 10u32.pow(9 - text.len() as u32),
        Some(_) => return None,
        None => 0,
    };
    Some((hour * 3600 + minute * 60 + second.min(59), nanoseconds))
}

/// `Z`, or `+HH:MM`.
fn offset_seconds(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn two_digits(text: &str) -> Option<i64> {
    if text.len() == 2 { digits(text) } else { None }
}

fn digits(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A day counted from 1970-01-01; the inverse of [`civil_date`].
fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// A moment in whole seconds as RFC 3339, UTC: `2026-11-20T12:00:00Z`.
pub fn rfc3339_seconds(seconds: i64) -> String {
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let in_day = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", in_day / 3600, in_day / 60 % 60, in_day % 60)
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic
/// Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_all_their_forms() {
        let at = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(parse_time("1970-01-01"), at(0, 0));
        assert_eq!(parse_time("2026-11-20"), at(1_795_132_800, 0));
        assert_eq!(parse_time("2026-11-20T12:00"), at(1_795_176_000, 0));
        assert_eq!(parse_time("2026-11-20 12:00:01z"), at(1_795_176_001, 0));
        assert_eq!(parse_time("2026-11-20T12:00:00.25+01:00"), at(1_795_172_400, 250_000_000));
        assert_eq!(parse_time("2026-11-20T12:00:00-01:30"), at(1_795_181_400, 0));
        for wrong in
            ["", "2026", "2026-02-30", "2026-11-20T", "2026-11-20T25:00", "2026-11-20x", "yesterday", "ä026-11-20"]
        {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for seconds in [0, -1, 86_399, 951_827_696, 4_107_542_400, -62_000_000_000, 253_402_300_799] {
            assert_eq!(parse_time(&rfc3339_seconds(seconds)), Some(Timestamp { seconds, nanoseconds: 0 }));
        }
    }
}
