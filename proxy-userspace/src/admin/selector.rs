//! Label selectors as the command line and query strings write them.
//!
//! Owns their syntax: `key=value` or `key==value`, joined by commas, all of
//! which must hold. Must never take a selector that it only understands in part.

use std::fmt;
use std::str::FromStr;

use crate::config::object::{Labels, selects};

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err(format!("{text:?} has no key"));
        }
        if key.ends_with('!') || value.contains('=') || key.contains(char::is_whitespace) {
            return Err(format!(
                "{text:?}: only KEY=VALUE is understood, joined by commas"
            ));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A selector that asks for at least one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Labels);

impl Selector {
    /// Whether `labels` holds everything that is asked for.
    pub fn selects(&self, labels: &Labels) -> bool {
        selects(&self.0, labels)
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut labels = Labels::new();
        for part in text.split(',') {
            let Label { key, value } = part.parse()?;
            if labels.insert(key.clone(), value).is_some() {
                return Err(format!("{key:?} is asked for twice"));
            }
        }
        Ok(Self(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_picks_what_carries_every_label() {
        let selector: Selector = "app=shop, tier==web".parse().unwrap();
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert!(selector.selects(&labels(&[("app", "shop"), ("tier", "web"), ("x", "y")])));
        assert!(!selector.selects(&labels(&[("app", "shop")])));
        assert_eq!(selector.to_string(), "app=shop,tier=web");
    }

    #[test]
    fn what_is_not_understood_is_refused_whole() {
        for text in [
            "",
            "app",
            "=x",
            "app!=shop",
            "app=a,app=b",
            "app=a,",
            "a in (b)",
            "app=a=b",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
