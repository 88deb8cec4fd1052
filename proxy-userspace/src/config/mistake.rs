//! What is wrong with a configuration, said so that it can be put right:
//! where, what was found, what would be right.

use std::fmt;

use serde::Serialize;

/// Mistakes, or warnings, that are listed; more are counted. A file of rubbish must not
/// turn into an answer of megabytes.
const LISTED_MAX: usize = 1000;

/// Characters of an offending value that are shown.
const SHOWN_MAX: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, if it was found in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which document of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// The object, as `RouteRule default/reviews`, where objects contradict each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where in the document, e.g. `spec.route[1].weight`; empty: the document itself.
    pub path: String,
    /// What was found, shortened; strings in quotes, `absent` where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What would be right; completes "expected …".
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(
            f,
            self.source.as_deref(),
            self.document,
            self.object.as_deref(),
            &self.path,
        )?;
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        write!(f, "expected {}", self.expected)
    }
}

/// Writes `rules.yaml: document 2: RouteRule default/reviews: spec.route: `, as far as known.
fn place(
    f: &mut fmt::Formatter<'_>,
    source: Option<&str>,
    document: Option<usize>,
    object: Option<&str>,
    path: &str,
) -> fmt::Result {
    if let Some(source) = source {
        write!(f, "{source}: ")?;
    }
    if let Some(document) = document {
        write!(f, "document {document}: ")?;
    }
    if let Some(object) = object {
        write!(f, "{object}: ")?;
    }
    if path.is_empty() {
        Ok(())
    } else {
        write!(f, "{path}: ")
    }
}

/// Shortens `text` for [`Mistake::value`].
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Everything that is wrong, in the order it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mistakes {
    /// The first thousand.
    pub mistakes: Vec<Mistake>,
    /// How many more there are.
    pub omitted: usize,
    /// Whether a document could not even be read: it is neither YAML nor JSON.
    #[serde(skip)]
    pub unreadable: bool,
}

impl Mistakes {
    /// How many there are, listed or not.
    pub fn len(&self) -> usize {
        self.mistakes.len() + self.omitted
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// `value` if nothing is wrong, else the mistakes.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    pub(super) fn push(&mut self, mistake: Mistake) {
        if self.mistakes.len() < LISTED_MAX {
            self.mistakes.push(mistake);
        } else {
            self.omitted += 1;
        }
    }

    /// Says where they were found.
    pub(super) fn place(&mut self, source: &str, document: usize) {
        for mistake in &mut self.mistakes {
            mistake.source = Some(source.to_owned());
            mistake.document = Some(document);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        self.unreadable |= other.unreadable;
        for mistake in other.mistakes {
            self.push(mistake);
        }
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self {
            mistakes: vec![mistake],
            omitted: 0,
            unreadable: false,
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{mistake}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Something that is accepted, but may not be what was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The file, if it was found in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which document of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// The object, as `RouteRule default/reviews`, where objects do not fit each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where in the document; empty: the document itself.
    pub path: String,
    /// What to know.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(
            f,
            self.source.as_deref(),
            self.document,
            self.object.as_deref(),
            &self.path,
        )?;
        f.write_str(&self.message)
    }
}

/// Collects warnings, as many as are worth reading.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    listed: Vec<Warning>,
    omitted: usize,
}

impl Warnings {
    pub(super) fn push(&mut self, warning: Warning) {
        if self.listed.len() < LISTED_MAX {
            self.listed.push(warning);
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Says where they were found.
    pub(super) fn place(&mut self, source: &str, document: usize) {
        for warning in &mut self.listed {
            warning.source = Some(source.to_owned());
            warning.document = Some(document);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        for warning in other.listed {
            self.push(warning);
        }
    }

    /// The first thousand; one more says how many there would be.
    pub(super) fn into_vec(mut self) -> Vec<Warning> {
        if self.omitted > 0 {
            let message = format!("and {} more warnings", self.omitted);
            self.listed.push(Warning {
                source: None,
                document: None,
                object: None,
                path: String::new(),
                message,
            });
        }
        self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake() -> Mistake {
        Mistake {
            source: Some("rules.yaml".into()),
            document: Some(2),
            object: None,
            path: "spec.route[1].weight".into(),
            value: Some("\"x\"".into()),
            expected: "a whole number from 0 to 100".into(),
        }
    }

    #[test]
    fn a_mistake_says_where_what_and_what_would_be_right() {
        assert_eq!(
            mistake().to_string(),
            "rules.yaml: document 2: spec.route[1].weight: \"x\": expected a whole number from 0 to 100"
        );
    }

    #[test]
    fn more_than_can_be_listed_are_counted() {
        let mut all = Mistakes::default();
        for _ in 0..LISTED_MAX + 3 {
            all.push(mistake());
        }
        assert_eq!((all.mistakes.len(), all.omitted), (LISTED_MAX, 3));
        assert!(all.to_string().ends_with("and 3 more"));
    }

    #[test]
    fn warnings_end_too() {
        let mut all = Warnings::default();
        for _ in 0..LISTED_MAX + 3 {
            let message = "odd".to_owned();
            all.push(Warning {
                source: None,
                document: None,
                object: None,
                path: "spec".into(),
                message,
            });
        }
        let all = all.into_vec();
        assert_eq!(all.len(), LISTED_MAX + 1);
        assert_eq!(
            (all[0].to_string(), all[LISTED_MAX].to_string()),
            ("spec: odd".into(), "and 3 more warnings".into())
        );
    }

    #[test]
    fn long_values_are_shortened_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(
            shortened(&"ä".repeat(100)),
            format!("{}…", "ä".repeat(SHOWN_MAX))
        );
    }
}
