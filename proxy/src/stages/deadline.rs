//! How long a gRPC caller waits (`grpc-timeout`): what it no longer waits for is not worth doing.
//!
//! The route's own limits are the ceiling; a call gets what is shorter. Pure.

use std::time::Duration;

use http::HeaderMap;

/// What the caller says; nothing where it says what is no duration.
pub(crate) fn told(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
    // At most eight digits, says the protocol.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_grpc_writes_them() {
        let said = |text: &str| {
            told(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        for (text, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("4m", 4), ("5000u", 5), ("6000000n", 6)]
        {
            assert_eq!(said(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert!(said("99999999H").is_some());
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1 S", "1.5S"] {
            assert_eq!(said(text), None, "{text}");
        }
        assert_eq!(told(&HeaderMap::new()), None);
    }
}
