//! What a test found out about the kernel that it runs on, for a table.
//!
//! Must never stand in for an assertion: a test that only notes cannot fail.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The variable that names the file of notes; without it nobody wants to know.
const VARIABLE: &str = "TESTBED_NOTES";

/// Adds a line to the notes.
///
/// # Panics
/// If the file cannot be written.
pub fn note(found: &str) {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{found}"));
    written.unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
}
