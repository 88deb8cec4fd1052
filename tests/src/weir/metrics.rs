//! The text that Prometheus scrapes, read back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything that the daemon counted at one moment.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format; lines that are no samples are left out.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self {
            samples: lines.filter_map(sample).collect(),
        }
    }

    /// The sum of all samples of `name` that carry these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The same as a count.
    ///
    /// # Panics
    /// If the sum is no whole number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are small and whole"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(
            sum >= 0.0 && sum.fract() == 0.0,
            "{name}{labels:?} is {sum}"
        );
        sum as u64
    }

    /// How many series `name` has.
    pub fn series(&self, name: &str) -> usize {
        self.matching(name, &[]).count()
    }

    /// Every sample of `name` as text, for messages.
    pub fn show(&self, name: &str) -> String {
        let mut text = String::new();
        for Sample { labels, value, .. } in self.matching(name, &[]) {
            // Writing to a string cannot fail.
            let _: std::fmt::Result = writeln!(text, "{name}{labels:?} {value}");
        }
        text
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let carries = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(carries)
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = match line.split_once('{') {
        Some((name, rest)) => (name, rest),
        None => line
            .split_once(' ')
            .map(|(name, _)| (name, &line[name.len()..]))?,
    };
    let mut labels = BTreeMap::new();
    while !rest.starts_with(['}', ' ']) {
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(key.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    let value = number(rest.strip_prefix('}').unwrap_or(rest).strip_prefix(' ')?)?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}

/// The value; an exemplar or a time stamp may follow.
fn number(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read() {
        let text = "# HELP a Words.\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"}{,\"} 3\na_total{x=\"2\"} 4\nb 1.5\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.count("a_total", &[]), 7);
        assert_eq!(metrics.count("a_total", &[("y", "q\"}{,")]), 3);
        assert_eq!(metrics.series("a_total"), 2);
        assert!((metrics.sum("b", &[]) - 1.5).abs() < f64::EPSILON);
    }
}
