//! Host names, and the patterns that rules name them by.
//!
//! Owns the one spelling in which names are compared: lower case, no trailing dot.
//! Must never let an address pass for a name, however it is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The longest name, in bytes without the trailing dot.
const NAME_MAX: usize = 253;

/// The longest label, in bytes.
const LABEL_MAX: usize = 63;

/// Why a text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No text, or no label between two dots.
    #[error("a host name, and each label of it, must have at least one character")]
    Empty,
    /// The name or a label is too long.
    #[error("a host name has at most 253 characters, a label at most 63")]
    TooLong,
    /// A character that host names do not have.
    #[error(
        "host names are made of letters, digits, `-` and `_`; \
         write others in their `xn--` form, and `*` only as the whole first label of a rule"
    )]
    Character,
    /// An address, or something that resolvers take for one.
    #[error("this is an address, not a host name")]
    Address,
    /// What follows the colon is not a port.
    #[error("a port is a number from 0 to 65535")]
    Port,
}

/// A host name: lower case, no trailing dot, never an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Reads a name as people and programs write it.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > NAME_MAX {
            return Err(HostError::TooLong);
        }
        let mut last = "";
        for label in name.split('.') {
            match label.len() {
                0 => return Err(HostError::Empty),
                1..=LABEL_MAX => last = label,
                _ => return Err(HostError::TooLong),
            }
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.bytes().all(is_allowed) {
                return Err(HostError::Character);
            }
        }
        if is_number(last) {
            return Err(HostError::Address);
        }
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(name.to_ascii_lowercase().into()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether old resolvers read a name that ends in this label as an IPv4 address
/// (`127.1`, `0x7f000001`).
fn is_number(label: &str) -> bool {
    let is_decimal = label.bytes().all(|byte| byte.is_ascii_digit());
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    is_decimal || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Names that a rule stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name alone.
    Exact(HostName),
    /// `*.suffix`: every name with one label or more before `.suffix`, not the suffix itself.
    Under(HostName),
}

impl HostPattern {
    /// Reads `name` or `*.suffix`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            Some(suffix) => HostName::parse(suffix).map(Self::Under),
            None => HostName::parse(text).map(Self::Exact),
        }
    }

    /// Whether `name` is one of them.
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Under(suffix) => name
                .as_str()
                .strip_suffix(suffix.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Under(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// Who a request is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name.
    Name(HostName),
    /// An address; no rule on names holds for it.
    Address(IpAddr),
}

/// The content of a Host header, or the authority of a request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Before the port.
    pub host: Host,
    /// The port, if one is given.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`. User
    /// names are refused, as RFC 9110 demands.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(HostError::Character)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Character)?;
            return Ok(Self {
                host: Host::Address(address.into()),
                port: port_after(port)?,
            });
        }
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let host = match host.parse::<Ipv4Addr>() {
            Ok(address) => Host::Address(address.into()),
            Err(_) => Host::Name(HostName::parse(host)?),
        };
        Ok(Self {
            host,
            port: port_after(port)?,
        })
    }
}

/// The port in `:port`; nothing, and a colon alone, give none.
fn port_after(text: &str) -> Result<Option<u16>, HostError> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() {
            Ok(None)
        } else {
            Err(HostError::Character)
        };
    };
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    digits.parse().map(Some).map_err(|_| HostError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn names_have_one_spelling() {
        for text in ["API.Example.com", "api.example.com.", "api.example.com"] {
            assert_eq!(name(text).as_str(), "api.example.com");
        }
        assert_eq!(name("_dmarc.a-b.1a").as_str(), "_dmarc.a-b.1a");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127);
        for (text, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("a..b", HostError::Empty),
            (".a", HostError::Empty),
            ("a..", HostError::Empty),
            ("a b", HostError::Character),
            ("a@b", HostError::Character),
            ("b\u{fc}cher.example", HostError::Character),
            ("*.a", HostError::Character),
            ("a/b", HostError::Character),
            ("192.0.2.1", HostError::Address),
            ("192.0.2.1.", HostError::Address),
            ("127.1", HostError::Address),
            ("2130706433", HostError::Address),
            ("0x7F000001", HostError::Address),
            ("a.0x", HostError::Address),
            (&long_label, HostError::TooLong),
            (&format!("{long_name}b"), HostError::TooLong),
        ] {
            assert_eq!(HostName::parse(text), Err(error), "{text}");
        }
        assert!(
            HostName::parse(&long_name).is_ok(),
            "253 characters and a dot"
        );
    }

    #[test]
    fn wildcards_stand_for_one_label_or_more() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        for (text, matches) in [
            ("a.example.com", true),
            ("A.EXAMPLE.COM.", true),
            ("b.a.example.com", true),
            ("example.com", false),
            ("badexample.com", false),
            ("a.example.com.evil", false),
            ("example.com.a", false),
        ] {
            assert_eq!(pattern.matches(&name(text)), matches, "{text}");
        }
        for text in [
            "*",
            "*.",
            "*a.example",
            "a.*.example",
            "*.*.example",
            "*.192.0.2.1",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        assert_eq!(pattern.to_string(), "*.example.com");
    }

    #[test]
    fn an_exact_pattern_is_one_name() {
        let pattern = HostPattern::parse("Example.com.").unwrap();
        assert!(pattern.matches(&name("example.COM")));
        assert!(!pattern.matches(&name("a.example.com")));
        assert_eq!(pattern.to_string(), "example.com");
    }

    #[test]
    fn authorities_are_taken_apart() {
        let host = |text| Host::Name(name(text));
        let address = |text: &str| Host::Address(text.parse().unwrap());
        for (text, expected, port) in [
            ("Example.com", host("example.com"), None),
            ("example.com.:8080", host("example.com"), Some(8080)),
            ("example.com:", host("example.com"), None),
            ("192.0.2.1", address("192.0.2.1"), None),
            ("192.0.2.1:80", address("192.0.2.1"), Some(80)),
            ("[2001:db8::1]", address("2001:db8::1"), None),
            ("[2001:db8::1]:443", address("2001:db8::1"), Some(443)),
        ] {
            let host = expected;
            assert_eq!(
                Authority::parse(text),
                Ok(Authority { host, port }),
                "{text}"
            );
        }
        for text in [
            "",
            ":80",
            "a:b",
            "a:+80",
            "a:65536",
            "a:80:80",
            "u@a",
            "2001:db8::1",
            "[::1",
            "[::1]x",
            "[a]",
            "127.1:80",
            "a, b",
        ] {
            assert!(Authority::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(text in "[a-zA-Z0-9_.-]{0,20}") {
            if let Ok(first) = HostName::parse(&text) {
                prop_assert_eq!(HostName::parse(first.as_str()), Ok(first));
            }
        }

        #[test]
        fn no_address_is_a_name(address in any::<IpAddr>()) {
            prop_assert!(HostName::parse(&address.to_string()).is_err());
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (HostPattern::parse(&text), Authority::parse(&text));
        }
    }
}
