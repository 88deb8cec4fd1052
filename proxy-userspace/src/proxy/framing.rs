//! How a request head states the length of its body. hyper takes one of two statements
//! and drops the other; whoever reads the other one sees another request begin.
//!
//! Looks at bytes as they come, however they are split. Must never keep any of them.

/// How a request head states its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// At most one way.
    Plain,
    /// `Content-Length` and `Transfer-Encoding`.
    Ambiguous,
    /// Its head came in the wake of another one and was not looked at.
    Unseen,
}

/// A look at the names of header lines, however the bytes are split.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not one state"
)]
pub(crate) struct Scan {
    /// Bytes of the present line that were matched or skipped.
    column: usize,
    /// Which of the two names the line still can be.
    maybe_length: bool,
    maybe_encoding: bool,
    length: bool,
    encoding: bool,
    /// It got any bytes.
    pub(super) seen: bool,
    /// The request line has begun. Parsers skip empty lines before it.
    begun: bool,
    done: bool,
    /// Bytes came behind the end of the head.
    pub(super) rest: bool,
}

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";

impl Scan {
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) {
        self.seen = true;
        while !bytes.is_empty() {
            if self.done {
                self.rest = true;
                return;
            }
            if self.column == 0 {
                self.maybe_length = true;
                self.maybe_encoding = true;
            }
            if self.maybe_length || self.maybe_encoding {
                self.name(bytes[0]);
                bytes = &bytes[1..];
                continue;
            }
            // Nothing of interest until the line ends.
            match bytes.iter().position(|byte| *byte == b'\n') {
                None => return,
                Some(end) => {
                    self.column = 0;
                    bytes = &bytes[end + 1..];
                }
            }
        }
    }

    fn name(&mut self, byte: u8) {
        // An empty line, with or without its CR, ends the head.
        if byte == b'\n' {
            self.done = self.begun && self.column == 0;
            self.column = 0;
            return;
        }
        if byte == b'\r' && self.column == 0 {
            return;
        }
        self.begun = true;
        let is = |name: &[u8]| {
            name.get(self.column)
                .is_some_and(|wanted| byte.eq_ignore_ascii_case(wanted))
        };
        self.maybe_length &= is(LENGTH);
        self.maybe_encoding &= is(ENCODING);
        self.column += 1;
        if self.maybe_length && self.column == LENGTH.len() {
            self.length = true;
            self.maybe_length = false;
        }
        if self.maybe_encoding && self.column == ENCODING.len() {
            self.encoding = true;
            self.maybe_encoding = false;
        }
    }

    pub(crate) fn framing(self) -> Framing {
        match (self.seen, self.length && self.encoding) {
            (false, _) => Framing::Unseen,
            (true, true) => Framing::Ambiguous,
            (true, false) => Framing::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str, split: usize) -> Framing {
        let (first, rest) = head.as_bytes().split_at(split.min(head.len()));
        let mut scan = Scan::default();
        scan.advance(first);
        scan.advance(rest);
        scan.framing()
    }

    #[test]
    fn two_lengths_are_seen_wherever_the_bytes_are_split() {
        let both = "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 3\r\nX: y\r\nTransfer-encoding: chunked\r\n\r\n3";
        let swapped = "POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 3\n\n";
        let late =
            "\r\n\nPOST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        for head in [both, swapped, late] {
            for split in 0..head.len() {
                assert_eq!(framing(head, split), Framing::Ambiguous, "split at {split}");
            }
        }
    }

    #[test]
    fn one_length_and_look_alikes_are_plain() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nX-Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: content-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 3\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            for split in 0..head.len() {
                assert_eq!(
                    framing(head, split),
                    Framing::Plain,
                    "{head} split at {split}"
                );
            }
        }
        assert_eq!(Scan::default().framing(), Framing::Unseen);
    }
}
