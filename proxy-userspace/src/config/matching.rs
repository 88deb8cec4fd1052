//! How a rule compares a string. Must never hold a pattern that was not
//! compiled, or one whose matching could take more than linear time.

use regex::{Regex, RegexBuilder};

/// A value to compare a string with; two are equal if they are written the same.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// `exact`.
    Exact(String),
    /// `prefix`.
    Prefix(String),
    /// `regex`, compiled; matches the whole value (RE2 syntax, linear time).
    Regex(Regex),
}

/// What the compiled form of one pattern may take, in bytes. Patterns are
/// written by people and matched per request.
const REGEX_SIZE_MAX: usize = 256 * 1024;

/// A pattern is compiled between these, so that it speaks of the whole value.
const ANCHORS: (&str, &str) = (r"\A(?:", r")\z");

impl StringMatch {
    /// Compiles `pattern`, anchored to the whole value.
    ///
    /// # Errors
    /// The pattern is malformed, or takes more than 256 KiB compiled.
    pub fn regex(pattern: &str) -> Result<Self, regex::Error> {
        let build = |pattern: &str| {
            RegexBuilder::new(pattern)
                .size_limit(REGEX_SIZE_MAX)
                .build()
        };
        // On its own first: `a)|(b` compiles between the anchors only.
        build(pattern)?;
        build(&format!("{}{pattern}{}", ANCHORS.0, ANCHORS.1)).map(Self::Regex)
    }

    /// Whether `value` is matched.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// The key that says how it compares, and the text as it was written.
    pub fn as_written(&self) -> (&'static str, &str) {
        match self {
            Self::Exact(text) => ("exact", text),
            Self::Prefix(text) => ("prefix", text),
            Self::Regex(regex) => {
                let anchored = regex.as_str();
                let inner = anchored
                    .strip_prefix(ANCHORS.0)
                    .and_then(|rest| rest.strip_suffix(ANCHORS.1));
                ("regex", inner.unwrap_or(anchored))
            }
        }
    }
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        self.as_written() == other.as_written()
    }
}
