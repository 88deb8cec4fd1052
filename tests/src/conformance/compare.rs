//! What differs between two runs, held against what may.
//!
//! An unlisted difference is a finding, and so is a listed one that is gone or
//! is another than the list says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::expected::{DENIED, DIFFERENCES, Difference, PREMISES, Verdict};
use super::{Way, name_in};

/// What each case saw.
pub type Seen = BTreeMap<String, BTreeMap<String, String>>;

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    case: String,
    what: String,
    without: String,
    with: String,
    problem: String,
}

/// Every finding under a verdict.
pub fn findings(verdict: &Verdict, without: &Seen, with: &Seen) -> Vec<Finding> {
    let of_verdict = |difference: &&Difference| difference.verdict == verdict.name;
    let listed: Vec<_> = DIFFERENCES.iter().filter(of_verdict).collect();
    against(&listed, without, with)
}

/// What is listed, by case and observation.
type Listed<'a> = BTreeMap<(String, &'a str), &'a Difference>;

fn against(listed: &[&Difference], without: &Seen, with: &Seen) -> Vec<Finding> {
    let listed: Listed<'_> = listed
        .iter()
        .flat_map(|row| row.cases().map(|case| ((case, row.what), *row)))
        .collect();
    let mut keys: BTreeSet<(String, &str)> = listed.keys().cloned().collect();
    for seen in [without, with] {
        for (case, observations) in seen {
            keys.extend(observations.keys().map(|what| (case.clone(), &**what)));
        }
    }
    keys.into_iter()
        .filter_map(|key| finding(&key, &listed, without, with))
        .collect()
}

fn finding(
    key: &(String, &str),
    listed: &Listed<'_>,
    without: &Seen,
    with: &Seen,
) -> Option<Finding> {
    let (case, what) = key;
    let value = |seen: &Seen| {
        let value = seen.get(case).and_then(|case| case.get(*what));
        value.map_or_else(|| "(not seen)".to_owned(), Clone::clone)
    };
    let (without, with) = (value(without), value(with));
    let expected = listed.get(key);
    let problem = match expected {
        None if without == with => return None,
        None => "is not listed".to_owned(),
        Some(expected) if expected.without == without && expected.with == with => return None,
        Some(_) if without == with => "is listed, but gone".to_owned(),
        Some(expected) => format!("listed as {} → {}", expected.without, expected.with),
    };
    Some(Finding {
        case: case.clone(),
        what: (*what).to_owned(),
        without,
        with,
        problem,
    })
}

/// What a run without weir does not show, though a case stands on it.
pub fn lacking(without: &Seen) -> Vec<String> {
    let each = PREMISES
        .iter()
        .flat_map(|premise| Way::ALL.iter().map(move |way| (premise, *way)));
    each.filter_map(|((case, what, expected), way)| {
        let case = name_in(case, way);
        let seen = without.get(&case).and_then(|case| case.get(*what));
        let is_there = seen.is_some_and(|seen| seen == expected);
        (!is_there).then(|| format!("{case}, {what}: {seen:?}, not {expected}"))
    })
    .collect()
}

/// Every finding of the cases that are denied.
pub fn as_denied(way: Way, seen: &Seen) -> Vec<Finding> {
    let mut expected = Seen::new();
    for (case, what, value) in DENIED {
        let case = expected.entry(name_in(case, way)).or_default();
        case.insert((*what).to_owned(), (*value).to_owned());
    }
    against(&[], &expected, seen)
}

/// The findings for a reader.
pub fn table([without, with]: [&str; 2], findings: &[Finding]) -> String {
    let head = ["case", "observation", without, with, ""];
    let rows: Vec<[&str; 5]> = std::iter::once(head)
        .chain(findings.iter().map(|finding| {
            [
                &*finding.case,
                &*finding.what,
                &*finding.without,
                &*finding.with,
                &*finding.problem,
            ]
        }))
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.into_iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _: std::fmt::Result = write!(text, "{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Way;
    use crate::conformance::expected::Reason;

    const LISTED: Difference = Difference {
        verdict: "proxy",
        case: "a/b",
        ways: &[Way::V6],
        what: "connect",
        without: "ECONNREFUSED",
        with: "OK",
        reason: Reason::DeadEndpoint,
    };

    fn seen(value: &str) -> Seen {
        let observations = BTreeMap::from([("connect".to_owned(), value.to_owned())]);
        BTreeMap::from([("a6/b".to_owned(), observations)])
    }

    fn problems(listed: &[&Difference], without: &Seen, with: &Seen) -> Vec<String> {
        let findings = against(listed, without, with);
        findings
            .into_iter()
            .map(|finding| finding.problem)
            .collect()
    }

    #[test]
    fn what_is_equal_or_listed_is_no_finding() {
        assert!(problems(&[], &seen("OK"), &seen("OK")).is_empty());
        assert!(problems(&[&LISTED], &seen("ECONNREFUSED"), &seen("OK")).is_empty());
    }

    #[test]
    fn everything_else_is() {
        let unlisted = problems(&[], &seen("ECONNREFUSED"), &seen("OK"));
        assert_eq!(unlisted, ["is not listed"]);
        let gone = problems(&[&LISTED], &seen("OK"), &seen("OK"));
        assert_eq!(gone, ["is listed, but gone"]);
        let other = problems(&[&LISTED], &seen("ECONNREFUSED"), &seen("EPERM"));
        assert_eq!(other, ["listed as ECONNREFUSED → OK"]);
        let absent = problems(&[], &seen("OK"), &Seen::new());
        assert_eq!(absent, ["is not listed"]);
        let never_ran = problems(&[&LISTED], &Seen::new(), &Seen::new());
        assert_eq!(never_ran, ["is listed, but gone"]);
    }
}
