//! What names, labels, hosts, networks and durations look like as text. Pure
//! functions: text in, value or nothing out; who calls says what was expected.

use std::net::IpAddr;
use std::time::Duration;

/// Lower-case letters, digits and dashes; a letter or digit at both ends.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels with dots between, 253 characters at most (RFC 1123).
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Up to 63 letters, digits, `-`, `_`, `.`; a letter or digit at both ends.
fn is_label_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(inner)
        && end(text.bytes().next())
        && end(text.bytes().next_back())
}

/// A label key as in Kubernetes: a name, with `some.domain/` before it or not.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_label_name(name),
        None => is_label_name(text),
    }
}

/// A label value as in Kubernetes; may be empty.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

/// A header name (RFC 9110 `token`), in lower case.
pub(super) fn header_name(text: &str) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    ((1..=256).contains(&text.len()) && text.bytes().all(token)).then(|| text.to_ascii_lowercase())
}

/// A host name in lower case, without the trailing dot. A name whose last
/// label is a number is a mistyped address, not a host.
pub(super) fn host(text: &str) -> Option<String> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // Underscores are no host names by RFC 1123, but real ones carry them.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = lower.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    (lower.len() <= 253 && lower.split('.').all(label) && !numeric).then_some(lower)
}

/// The network that `addr` is in: all bits behind `prefix` cleared.
pub(super) fn network(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0);
            IpAddr::V4((addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            IpAddr::V6((addr.to_bits() & mask).into())
        }
    }
}

/// A number with a unit (`10s`, `500ms`, `0.5s`, `2m`, `1h`), in whole milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 || number.ends_with('.') {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let scaled: u64 = format!("{whole}{fraction}").parse().ok()?;
    let total = scaled.checked_mul(unit_ms)?;
    (total % scale == 0).then(|| Duration::from_millis(total / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "reviews-v1", "0a", &"a".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_subdomain("pod-0.web"));
        assert!(!is_subdomain("pod..web"));
    }

    #[test]
    fn labels_follow_kubernetes() {
        for good in ["app", "app.kubernetes.io/name", "a_B-c.d"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/app", "a/b/c", "UPPER.io/x", "-a", "a b"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("v0.1") && !is_label_value("a b"));
    }

    #[test]
    fn a_host_is_told_from_a_mistyped_address() {
        assert_eq!(host("HTTPBIN.org."), Some("httpbin.org".into()));
        assert_eq!(
            host("_dmarc.example.com"),
            Some("_dmarc.example.com".into())
        );
        for bad in [
            "",
            ".",
            "a..b",
            "10.1.2",
            "1.2.3.4",
            "exa mple.org",
            "a/b",
            "-a.b",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn networks_lose_their_host_bits() {
        for (text, prefix, expected) in [
            ("10.1.2.3", 8, "10.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("2001:db8::1", 32, "2001:db8::"),
            ("2001:db8::1", 0, "::"),
        ] {
            assert_eq!(
                network(text.parse().unwrap(), prefix),
                expected.parse::<IpAddr>().unwrap()
            );
        }
    }

    #[test]
    fn durations_are_whole_milliseconds_with_a_unit() {
        for (text, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("0.5s", 500),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.s",
            ".s",
            "0.5ms",
            "1d",
            "1 s",
            "99999999999999999999s",
            "1s2",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
