//! The rules: each looks at one file and says what is wrong with it.

use crate::source::{Lines, Source};

/// Lines that a file may have, inline test modules not counted.
pub(crate) const FILE_LINES: usize = 400;
/// Lines that a function may have, signature and braces counted.
pub(crate) const FUNCTION_LINES: usize = 70;

/// A sentence that names the place and the fault.
pub(crate) type Finding = String;
/// Places with the reason why they may break a rule.
pub(crate) type Exceptions = &'static [(&'static str, &'static str)];

/// Words that say that something is not finished. Each is written in two parts,
/// so that this file does not hold it.
const LEFTOVERS: [(&str, &str); 6] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X"),
    ("dbg", "!("),
    ("[al", "low("),
    ("[ign", "ore"),
];

/// Where the code was written, and where its dependencies come from, is none
/// of its business.
const FOREIGN: [(&str, &str); 7] = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("crates", ".io"),
    ("deb.deb", "ian"),
    ("debian", ".org"),
    ("rust-lang", ".org"),
    ("npmjs", "."),
];

/// Where `unsafe` may stand.
const UNSAFE_PLACES: [&str; 3] = [
    "proxy-ebpf/src/",
    "proxy-userspace/src/kernel/",
    "proxy-userspace/src/socket.rs",
];
/// The module of `proxy-common` that may hold it too: marker traits of plain data.
const UNSAFE_MODULE: &str = "pod";

/// The file's length, if it is beyond the limit.
pub(crate) fn long_file(source: &Source) -> Vec<(String, Finding)> {
    let tests: usize = source.outline().tests.into_iter().map(length).sum();
    let lines = source.text.lines().count() - tests;
    if lines <= FILE_LINES {
        return Vec::new();
    }
    let path = source.path.clone();
    let finding = format!("{path}: {lines} lines, {FILE_LINES} are allowed");
    vec![(path, finding)]
}

/// Every function beyond the limit.
pub(crate) fn long_functions(source: &Source) -> Vec<(String, Finding)> {
    let outline = source.outline();
    let functions = outline.functions.into_iter();
    functions
        .filter(|(_, lines)| length(*lines) > FUNCTION_LINES)
        .map(|(name, lines)| {
            let place = format!("{}::{name}", source.path);
            let length = length(lines);
            let finding = format!("{place}: {length} lines, {FUNCTION_LINES} are allowed");
            (place, finding)
        })
        .collect()
}

/// A Rust file that does not begin with its module's documentation.
pub(crate) fn missing_header(source: &Source) -> Vec<Finding> {
    let begins = source.text.trim_start().starts_with("//!");
    let finding = format!("{}: does not begin with `//!`", source.path);
    if begins { Vec::new() } else { vec![finding] }
}

/// Words that must not stay in the code.
pub(crate) fn leftovers(source: &Source) -> Vec<Finding> {
    banned(source, &LEFTOVERS)
}

/// Names of places that the project must not depend on.
pub(crate) fn foreign_names(source: &Source) -> Vec<Finding> {
    banned(source, &FOREIGN)
}

/// Links of a Markdown file to files that are not there.
pub(crate) fn dead_links(source: &Source) -> Vec<Finding> {
    let links = source.text.split("](").skip(1);
    links
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://"))
        .filter(|link| !source.leads_to(link))
        .map(|link| format!("{}: the link to `{link}` leads nowhere", source.path))
        .collect()
}

fn banned(source: &Source, words: &[(&str, &str)]) -> Vec<Finding> {
    let words: Vec<String> = words.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let lines = source.text.lines().zip(1..);
    lines
        .flat_map(|(line, number)| words.iter().map(move |word| (line, number, word)))
        .filter(|(line, _, word)| line.contains(*word))
        .map(|(_, number, word)| format!("{}:{number}: `{word}`", source.path))
        .collect()
}

/// `unsafe` where it has no place.
pub(crate) fn misplaced_unsafe(source: &Source) -> Vec<Finding> {
    if UNSAFE_PLACES
        .iter()
        .any(|place| source.path.starts_with(place))
    {
        return Vec::new();
    }
    let mut allowed: Vec<Lines> = Vec::new();
    if source.path.starts_with("proxy-common/src/") {
        let modules = source.outline().modules.into_iter();
        allowed.extend(
            modules
                .filter(|(name, _)| name == UNSAFE_MODULE)
                .map(|(_, lines)| lines),
        );
    }
    let inside = |line: usize| {
        allowed
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&line))
    };
    let lines = source.lines_of("unsafe").into_iter();
    lines
        .filter(|line| !inside(*line))
        .map(|line| format!("{}:{line}: `unsafe` has no place here", source.path))
        .collect()
}

/// `unsafe` without a reason above it: `// SAFETY:`, or `# Safety` in the
/// documentation of an unsafe function.
pub(crate) fn unexplained_unsafe(source: &Source) -> Vec<Finding> {
    let text: Vec<&str> = source.text.lines().collect();
    let is_explained = |line: usize| {
        let paragraph = text[..line].iter().rev();
        paragraph
            .take_while(|line| !line.trim().is_empty())
            .any(|line| line.contains("// SAFETY:") || line.contains("/// # Safety"))
    };
    let lines = source.lines_of("unsafe").into_iter();
    lines
        .filter(|line| !is_explained(*line))
        .map(|line| format!("{}:{line}: `unsafe` without `// SAFETY:`", source.path))
        .collect()
}

fn length((first, last): Lines) -> usize {
    last + 1 - first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn lengths_are_counted_without_test_modules() {
        let code = "fn f() {}\n".repeat(FILE_LINES);
        let tests = "#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert!(long_file(&source("a.rs", &format!("{code}{tests}"))).is_empty());
        assert_eq!(
            long_file(&source("a.rs", &format!("{code}fn h() {{}}\n"))).len(),
            1
        );
        let body = "    f();\n".repeat(FUNCTION_LINES - 2);
        let fits = format!("#[test]\nfn f() {{\n{body}}}\n");
        assert!(long_functions(&source("a.rs", &fits)).is_empty());
        let long = format!("impl A {{\nfn f() {{\n{body}\n}}\n}}\n");
        assert_eq!(long_functions(&source("a.rs", &long))[0].0, "a.rs::f");
    }

    #[test]
    fn banned_words_are_found_with_their_line() {
        let text = format!("//! m\n// {}{}: later\n", "TO", "DO");
        let found = leftovers(&source("a.rs", &text));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:2:"), "{found:?}");
        assert_eq!(missing_header(&source("a.rs", "fn f() {}")).len(), 1);
        assert!(missing_header(&source("a.rs", "//! m\n")).is_empty());
    }

    #[test]
    fn links_to_nowhere_are_found() {
        let text = "[a](rules.rs) [b](../main.rs#c) [d](#e) [f](https://example.org/g)";
        let found = dead_links(&source("xtask/tests/style/a.md", text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`../main.rs`"), "{found:?}");
    }

    #[test]
    fn unsafe_is_found_in_macros_and_not_in_comments() {
        let text = "// unsafe\nm! { unsafe impl A for B {} }\n#![deny(unsafe_code)]\n";
        let found = misplaced_unsafe(&source("xtask/src/a.rs", text));
        assert_eq!(found, ["xtask/src/a.rs:2: `unsafe` has no place here"]);
        assert!(misplaced_unsafe(&source("proxy-ebpf/src/a.rs", text)).is_empty());
        let text = "mod pod {\n    unsafe impl A for B {}\n}\nunsafe impl A for C {}\n";
        assert_eq!(
            misplaced_unsafe(&source("proxy-common/src/a.rs", text)).len(),
            1
        );
    }

    #[test]
    fn a_reason_counts_in_its_own_paragraph_only() {
        let good = "fn f() {\n    // SAFETY: because.\n    let a =\n        unsafe { g() };\n}\n";
        assert!(unexplained_unsafe(&source("a.rs", good)).is_empty());
        let bad = "fn f() {\n    // SAFETY: because.\n\n    let a = unsafe { g() };\n}\n";
        assert_eq!(unexplained_unsafe(&source("a.rs", bad)).len(), 1);
    }
}
