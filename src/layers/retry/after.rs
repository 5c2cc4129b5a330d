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
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
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
        // The older forms that RFC 9110 has read as well.
        assert_eq!(read("retry-after", "Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("retry-after", "Sun Nov  6 08:49:37 1994"), Some(Duration::ZERO));
        assert!(read("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 32));
        assert_eq!((read("retry-after", "soon"), read("retry-after", "-1")), (None, None));
        for absurd in
            ["Sun, 18446744073709551615 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:18446744073709551615 GMT"]
        {
            assert_eq!(read("retry-after", absurd), None, "{absurd}");
        }
    }
}
