//! What an emulated machine says on its console, read as results.
//!
//! Owns the meaning of the lines that `init.sh` prints. Must never take silence
//! for success: what was not said did not happen.

use std::collections::BTreeMap;

/// Begins every line that is meant for us.
const MARK: &str = "@weir ";
/// Begins the last words of a kernel.
const PANIC: &str = "Kernel panic";

/// Everything that was said so far.
#[derive(Default)]
pub(super) struct Console {
    /// The kernel's release.
    pub(super) release: Option<String>,
    /// How each test program ended, by name.
    pub(super) results: BTreeMap<String, Outcome>,
    /// Whether the machine got to its end.
    pub(super) is_done: bool,
    /// What a panic said.
    pub(super) panic: Option<String>,
    running: Outcome,
    /// Whether the names of failures are being listed.
    in_list: bool,
}

/// How one test program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that failed.
    pub(super) failed: u32,
    /// Their names.
    pub(super) failures: Vec<String>,
    /// What the program found out about the kernel.
    pub(super) notes: Vec<String>,
    /// The program's exit status; 137 if its time was over.
    pub(super) code: i32,
}

impl Outcome {
    /// Whether every test passed, and there was one.
    pub(super) fn is_good(&self) -> bool {
        self.code == 0 && self.failed == 0 && self.passed > 0
    }

    /// In a table: how many passed, out of how many, which did not, and what was noted.
    pub(super) fn cell(&self) -> String {
        let all = self.passed + self.failed;
        let notes = self
            .notes
            .iter()
            .fold(String::new(), |text, note| text + "; " + note);
        match self.is_good() {
            true => format!("{all} of {all}{notes}"),
            false if all == 0 => "**did not end**".to_owned(),
            false if self.failures.is_empty() => format!("**{} of {all}**", self.passed),
            false => {
                let failures = self.failures.join("`, `");
                format!("**{} of {all}**, not `{failures}`{notes}", self.passed)
            }
        }
    }

    /// A line of the program's own output.
    fn read(&mut self, line: &str, in_list: &mut bool) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed = count(counts, "passed");
            self.failed = count(counts, "failed");
            *in_list = false;
        } else if line == "failures:" {
            // There are two such lists; the names stand in the last.
            self.failures.clear();
            *in_list = true;
        } else if let Some(name) = line.strip_prefix("    ")
            && *in_list
            && !name.contains(' ')
        {
            self.failures.push(name.to_owned());
        }
    }
}

/// The number before a word, as in `ok. 3 passed; 1 failed; …`.
fn count(counts: &str, word: &str) -> u32 {
    let words: Vec<&str> = counts.split([' ', ';', '.']).collect();
    let pair = words.windows(2).find(|pair| pair[1] == word);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

impl Console {
    /// Reads one line; what people want to see of it at once.
    pub(super) fn read(&mut self, line: &str) -> Option<String> {
        let line = line.trim_end();
        if let Some(at) = line.find(PANIC) {
            self.panic = Some(line[at..].to_owned());
            return self.panic.clone();
        }
        let Some(said) = line.strip_prefix(MARK) else {
            self.running.read(line, &mut self.in_list);
            return None;
        };
        if let Some(note) = said.strip_prefix("note ") {
            // A bar would end the cell that it is going to stand in.
            self.running.notes.push(note.replace('|', "/"));
            return None;
        }
        let mut words = said.split(' ');
        match (words.next()?, words.next(), words.next()) {
            ("kernel", Some(release), None) => {
                self.release = Some(release.to_owned());
                Some(format!("runs {release}"))
            }
            ("begin", Some(_), None) => {
                self.running = Outcome::default();
                self.in_list = false;
                None
            }
            ("end", Some(name), Some(code)) => {
                let mut outcome = std::mem::take(&mut self.running);
                outcome.code = code.parse().unwrap_or(-1);
                let said = format!("{name}: {}", outcome.cell());
                self.results.insert(name.to_owned(), outcome);
                Some(said)
            }
            ("done", None, None) => {
                self.is_done = true;
                None
            }
            ("late", None, None) => Some("its time is over".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> Console {
        let mut console = Console::default();
        for line in text.lines() {
            console.read(line);
        }
        console
    }

    #[test]
    fn good_results_are_read() {
        let text = "[    0.1] Linux\r\n@weir kernel 6.1.0-50\r\n@weir begin tcp\r\n\
                    test a ... ok\r\ntest result: ok. 8 passed; 0 failed; 0 ignored\r\n\r\n\
                    @weir end tcp 0\r\n@weir done\r\n";
        let console = console(text);
        assert_eq!(console.release.as_deref(), Some("6.1.0-50"));
        assert!(console.is_done && console.panic.is_none());
        let outcome = &console.results["tcp"];
        assert!(outcome.is_good());
        assert_eq!(outcome.cell(), "8 of 8");
    }

    #[test]
    fn notes_stand_beside_the_result() {
        let text = "@weir begin a\ntest result: ok. 2 passed; 0 failed\n\
                    @weir note 12 programs\n@weir end a 0\n@weir begin b\n@weir end b 1\n";
        let console = console(text);
        assert_eq!(console.results["a"].cell(), "2 of 2; 12 programs");
        assert!(console.results["b"].notes.is_empty());
    }

    #[test]
    fn failures_are_named() {
        let text = "@weir begin tcp\nfailures:\n\n---- a stdout ----\n    at some/file\n\n\
                    failures:\n    a\n    b\n\ntest result: FAILED. 6 passed; 2 failed; 0 ignored\n\
                    @weir end tcp 101\n";
        let console = console(text);
        let outcome = &console.results["tcp"];
        assert!(!outcome.is_good());
        assert_eq!(outcome.failures, ["a", "b"]);
        assert_eq!(outcome.cell(), "**6 of 8**, not `a`, `b`");
        assert!(!console.is_done);
    }

    #[test]
    fn what_was_not_said_did_not_happen() {
        let late = console("@weir begin tcp\ntest a ... ok\n@weir end tcp 137\n");
        assert!(!late.results["tcp"].is_good());
        assert_eq!(late.results["tcp"].cell(), "**did not end**");
        // Good words and a bad end.
        let text = "@weir begin tcp\ntest result: ok. 8 passed; 0 failed\n@weir end tcp 1\n";
        assert!(!console(text).results["tcp"].is_good());
        let panic = console("@weir begin tcp\n[  1.0] Kernel panic - not syncing: x\n");
        assert_eq!(
            panic.panic.as_deref(),
            Some("Kernel panic - not syncing: x")
        );
        assert!(panic.results.is_empty());
    }
}
