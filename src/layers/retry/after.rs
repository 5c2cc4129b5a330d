//! What a reply says about when to come back.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|value| value.parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let value = text(header::RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds_of(value)?);
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_once(", ")?.1.split(' ');
    let day = number(words.next(), 31)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year = number(words.next(), 9999).filter(|year| *year >= 1970)?;
    let mut time = words.next()?.split(':');
    // A leap second is a 61st.
    let (hours, minutes, seconds) = (number(time.next(), 23)?, number(time.next(), 59)?, number(time.next(), 60)?);
    // Days since 1970 of a date, counted in years that begin in March, so that a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some((days.checked_sub(719_469)?) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

fn number(word: Option<&str>, most: u64) -> Option<u64> {
    word?.parse().ok().filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_each_of_its_forms() {
        let read = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(read("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(read("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(read("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 32));
        assert_eq!((read("retry-after", "soon"), read("retry-after", "-1")), (None, None));
        for absurd in
            ["Sun, 18446744073709551615 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:18446744073709551615 GMT"]
        {
            assert_eq!(read("retry-after", absurd), None, "{absurd}");
        }
        assert_eq!(seconds_of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }
}
