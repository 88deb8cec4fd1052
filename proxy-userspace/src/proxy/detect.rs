//! Whether the first bytes of a connection are HTTP/1.x.
//!
//! Owns the look at a port that declares no protocol. Must never allocate, and
//! never wait for more once the answer is certain: a client that speaks another
//! protocol may be waiting for its server.
//!
//! What counts is the request line of RFC 9112, section 3, read strictly: one
//! space between its parts, no empty line before it (a lone CRLF is a whole
//! request in older protocols), the method any token, the target any bytes that
//! are neither white space nor control characters. The answer is given at the
//! dot of `HTTP/1.`.

/// The longest method that is taken for one, in bytes.
pub const METHOD_MAX: usize = 32;

/// How far into a connection a request line is looked for, in bytes.
pub const LINE_MAX: usize = 8 * 1024;

const VERSION: &[u8] = b"HTTP/1.";

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// They can still become a request line.
    NeedMore,
    /// They begin with the request line of HTTP/1.0 or 1.1.
    Http1,
    /// They do not. An HTTP/2 preface is this too: opaque bytes in this version.
    NotHttp,
}

/// What the first bytes of a connection, as many as there are so far, say.
pub fn detect(prefix: &[u8]) -> Detected {
    Detector::default().advance(prefix)
}

/// The same in pieces: every byte is looked at once, however they arrive.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    seen: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Method,
    TargetStart,
    Target,
    /// So many bytes of `HTTP/1.` were seen.
    Version(usize),
    Decided(Detected),
}

impl Detector {
    /// Takes the bytes that follow those of the calls before. Once it is not
    /// [`Detected::NeedMore`], the answer does not change.
    pub fn advance(&mut self, more: &[u8]) -> Detected {
        for &byte in more {
            if let State::Decided(answer) = self.state {
                return answer;
            }
            self.state = self.state.after(byte, self.seen);
            self.seen += 1;
        }
        match self.state {
            State::Decided(answer) => answer,
            _ => Detected::NeedMore,
        }
    }
}

impl State {
    /// The state after one more byte, `seen` bytes into the connection.
    fn after(self, byte: u8, seen: usize) -> Self {
        let not_http = Self::Decided(Detected::NotHttp);
        let next = match self {
            Self::Method if byte == b' ' && seen > 0 => Self::TargetStart,
            Self::Method if is_token(byte) && seen < METHOD_MAX => Self::Method,
            Self::TargetStart | Self::Target if is_target(byte) => Self::Target,
            Self::Target if byte == b' ' => Self::Version(0),
            Self::Version(matched) if VERSION.get(matched) == Some(&byte) => {
                if matched + 1 == VERSION.len() {
                    return Self::Decided(Detected::Http1);
                }
                Self::Version(matched + 1)
            }
            Self::Decided(_) => return self,
            _ => return not_http,
        };
        if seen + 1 >= LINE_MAX { not_http } else { next }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the HTTP parser behind this takes the byte in a request target.
/// Bytes past ASCII are not in the grammar, but are common enough.
fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn request_lines_are_http() {
        for line in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"GET / HTTP/1.0\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"CONNECT a.example:443 HTTP/1.1\r\n",
            b"POST http://a.example/b?c=d HTTP/1.1\r\nHost: a",
            b"M-SEARCH * HTTP/1.1\r\n",
            b"get /lower HTTP/1.1\r\n",
            b"GET /\xc3\xa4 HTTP/1.1\r\n",
        ] {
            assert_eq!(detect(line), Detected::Http1, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_not() {
        for (name, bytes) in [
            ("TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("HTTP/0.9", b"GET /\r\n"),
            ("SMTP", b"EHLO client.example\r\n"),
            (
                "SMTP, three words",
                b"MAIL FROM:<a@b.example> BODY=8BITMIME\r\n",
            ),
            ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            ("MySQL", b"\x20\x00\x00\x01\x85\xa6\xff\x01\x00\x00\x00\x01"),
            ("PostgreSQL", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"),
            ("Redis", b"*1\r\n$4\r\nPING\r\n"),
            ("Redis inline", b"SET key value\r\n"),
            ("memcached", b"get key\r\n"),
            ("AMQP", b"AMQP\x00\x00\x09\x01"),
            ("NATS", b"CONNECT {\"verbose\":false} \r\n"),
            ("gopher", b"\r\n"),
            ("RTSP", b"OPTIONS rtsp://a.example/b RTSP/1.0\r\n"),
            ("SIP", b"INVITE sip:a@b.example SIP/2.0\r\n"),
            ("two spaces", b"GET  / HTTP/1.1\r\n"),
            ("no method", b" / HTTP/1.1\r\n"),
            ("response", b"HTTP/1.1 200 OK\r\n"),
            ("lower-case version", b"GET / http/1.1\r\n"),
        ] {
            assert_eq!(detect(bytes), Detected::NotHttp, "{name}");
        }
    }

    #[test]
    fn the_first_impossible_byte_decides() {
        for (possible, impossible) in [
            (&b""[..], b'\x16'),
            (b"", b' '),
            (b"*1", b'\r'),
            (b"GET", b'\t'),
            (b"GET ", b' '),
            (b"GET /", b'\r'),
            (b"PRI * HTTP/", b'2'),
        ] {
            assert_eq!(detect(possible), Detected::NeedMore);
            let whole = [possible, &[impossible]].concat();
            assert_eq!(
                detect(&whole),
                Detected::NotHttp,
                "{}",
                whole.escape_ascii()
            );
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let method = vec![b'A'; METHOD_MAX];
        assert_eq!(detect(&method), Detected::NeedMore);
        assert_eq!(
            detect(&[&method[..], b" / HTTP/1.1"].concat()),
            Detected::Http1
        );
        assert_eq!(detect(&[&method[..], b"A"].concat()), Detected::NotHttp);

        let mut line = b"GET /".to_vec();
        line.resize(LINE_MAX - 1, b'a');
        assert_eq!(detect(&line), Detected::NeedMore);
        line.push(b'a');
        assert_eq!(detect(&line), Detected::NotHttp);
    }

    fn likely() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[A-Z]{1,8} /[a-z]{0,8} HTTP/[12]\\.[01]\r\n".prop_map(String::into_bytes),
            "[ -~\r\n]{0,40}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(bytes in likely(), cuts in proptest::collection::vec(0_usize..40, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut detector = Detector::default();
            let mut answer = Detected::NeedMore;
            for pair in cuts.windows(2) {
                answer = detector.advance(&bytes[pair[0]..pair[1]]);
                prop_assert_eq!(answer, detect(&bytes[..pair[1]]));
            }
            prop_assert_eq!(answer, detect(&bytes));
        }

        #[test]
        fn an_answer_stands(bytes in likely(), more in likely()) {
            let answer = detect(&bytes);
            if answer != Detected::NeedMore {
                prop_assert_eq!(detect(&[bytes, more].concat()), answer);
            }
        }

        #[test]
        fn agrees_with_the_grammar(bytes in likely()) {
            let grammar = regex::bytes::Regex::new(
                r"(?-u)^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32} [^\x00-\x20\x7f]+ HTTP/1\.").unwrap();
            prop_assert_eq!(detect(&bytes) == Detected::Http1, grammar.is_match(&bytes));
        }
    }
}
