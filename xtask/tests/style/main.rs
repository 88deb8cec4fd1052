//! The style of the whole workspace, as a test: what clippy and rustfmt do not
//! hold.
//!
//! Owns the limits and their exceptions. An exception names its reason, and
//! one that is no longer needed is itself a failure.

mod rules;
mod source;

use rules::{Exceptions, Finding};
use source::Source;

/// Files that may be longer than [`rules::FILE_LINES`], and why.
const LONG_FILES: Exceptions = &[];
/// Functions (`file::function`) that may be longer than [`rules::FUNCTION_LINES`], and why.
const LONG_FUNCTIONS: Exceptions = &[];

/// Fails with every finding of `rule` in every file that `wanted` picks.
fn check(wanted: fn(&Source) -> bool, rule: impl Fn(&Source) -> Vec<Finding>) {
    let sources = source::all();
    let wanted: Vec<&Source> = sources.iter().filter(|source| wanted(source)).collect();
    assert!(!wanted.is_empty(), "the workspace has lost its files");
    let findings: Vec<Finding> = wanted.iter().flat_map(|source| rule(source)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// As [`check`], but what `exceptions` names is not a finding, it must be one.
fn check_but(exceptions: Exceptions, rule: impl Fn(&Source) -> Vec<(String, Finding)>) {
    let sources = source::all();
    let rust = sources.iter().filter(|source| source.is_rust());
    let (excused, found): (Vec<_>, Vec<_>) = rust
        .flat_map(rule)
        .partition(|(place, _)| exceptions.iter().any(|(name, _)| name == place));
    let mut findings: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
    for (name, _) in exceptions {
        if !excused.iter().any(|(place, _)| place == name) {
            findings.push(format!("{name}: needs no exception any more"));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn files_are_short() {
    check_but(LONG_FILES, rules::long_file);
}

#[test]
fn functions_are_short() {
    check_but(LONG_FUNCTIONS, rules::long_functions);
}

#[test]
fn modules_say_what_they_own() {
    let is_module = |source: &Source| source.is_rust() && !source.is_unit_test();
    check(is_module, rules::missing_header);
}

#[test]
fn nothing_is_left_over() {
    check(Source::is_rust, rules::leftovers);
}

#[test]
fn no_place_of_work_and_no_registry_is_named() {
    check(|_| true, rules::foreign_names);
}

#[test]
fn links_lead_somewhere() {
    check(Source::is_markdown, rules::dead_links);
}

#[test]
fn unsafe_code_has_its_places_and_reasons() {
    check(Source::is_rust, rules::misplaced_unsafe);
    check(Source::is_rust, rules::unexplained_unsafe);
}
