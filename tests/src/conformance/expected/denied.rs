//! What a denied call says, in every way.

use std::fmt::Write as _;

/// Case, observation, and what is seen.
#[rustfmt::skip]
pub const DENIED: &[(&str, &str, &str)] = &[
    ("denied/blocking", "connect", "EPERM"),
    ("denied/blocking", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/blocking", "connect, once more", "EPERM"),
    ("denied/blocking", "receive", "ENOTCONN"),
    ("denied/blocking", "send", "EPIPE"),
    ("denied/blocking", "connect to live then", "OK"),
    ("denied/blocking", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/nonblocking", "connect", "EPERM"),
    ("denied/nonblocking", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/nonblocking", "connect, once more", "EPERM"),
    ("denied/nonblocking", "connect to live then", "OK"),
    ("denied/nonblocking", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/reconnect", "connect while connected", "EISCONN"),
    ("denied/reconnect", "while connected, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/reconnect", "connect", "EPERM"),
    ("denied/reconnect", "what is left", "no error, getpeername ENOTCONN, getsockname any:port, poll OUT HUP"),
    ("denied/reconnect", "connect, once more", "EPERM"),
    ("denied/reconnect", "connect to live then", "OK"),
    ("denied/reconnect", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/fast-open", "sendto", "EPERM"),
    ("denied/fast-open", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/fast-open", "sendto live then", "4"),
    ("denied/fast-open", "peer receives", "\"fast\""),
    ("denied/fast-open", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/fast-open-connect", "connect", "EPERM"),
    ("denied/fast-open-connect", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/fast-open-connect", "connect, once more", "EPERM"),
    ("denied/fast-open-connect", "connect to live then", "OK"),
    ("denied/fast-open-connect", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/multipath", "connect", "EPERM"),
    ("denied/multipath", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/multipath", "connect, once more", "EPERM"),
    ("denied/multipath", "connect to live then", "OK"),
    ("denied/multipath", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/uring", "connect", "EPERM"),
    ("denied/uring", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT HUP"),
    ("denied/uring", "connect to live then", "OK"),
    ("denied/uring", "send", "5"),
    ("denied/uring", "peer receives", "\"ping?\""),
    ("denied/uring", "at last, it talks", "from own:port with live: OK, \"ping\", \"pong\""),
    ("denied/connected-datagrams", "connect", "EPERM"),
    ("denied/connected-datagrams", "what is left", "no error, getpeername ENOTCONN, getsockname any:0, poll OUT"),
    ("denied/connected-datagrams", "send", "EDESTADDRREQ"),
    ("denied/connected-datagrams", "connect to live then", "OK"),
    ("denied/connected-datagrams", "then, it talks", "from own:port with live: 4, \"ping\" from own:port, \"pong\""),
    ("denied/connected-datagrams", "connect while connected", "EPERM"),
    ("denied/connected-datagrams", "at last, it talks", "from own:port with live: 4, \"ping\" from own:port, \"pong\""),
    ("denied/sendto", "sendto", "EPERM"),
    ("denied/sendto", "what is left", "no error, getpeername ENOTCONN, getsockname any:port, poll OUT"),
    ("denied/sendto", "sendmsg", "EPERM"),
    ("denied/sendto", "sendto live then", "1"),
    ("denied/sendto", "peer receives", "\"?\" from own:port"),
    ("denied/sendto", "recvfrom", "\"!\" from live"),
    ("denied/sendto", "sendto while connected", "EPERM"),
    ("denied/sendto", "at last, it talks", "from own:port with live: 4, \"ping\" from own:port, \"pong\""),
    ("denied/sendmmsg", "sendmmsg of three, the second denied", "1"),
    ("denied/sendmmsg", "peer receives the first", "\"one\" from own:port"),
    ("denied/sendmmsg", "sendmmsg of two, the first denied", "EPERM"),
    ("denied/sendmmsg", "what is left", "no error, getpeername ENOTCONN, getsockname any:port, poll OUT"),
    ("denied/sendmmsg", "sendmmsg of the last", "1"),
    ("denied/sendmmsg", "peer receives the last", "\"three\" from own:port"),
];

/// The list as the documentation shows it: what is the same in several cases once.
pub fn denied_as_markdown() -> String {
    let mut rows: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for (case, what, seen) in DENIED {
        let known = rows.iter_mut().find(|row| (row.0, row.1) == (*what, *seen));
        match known {
            Some((_, _, cases)) => cases.push(case),
            None => rows.push((what, seen, vec![case])),
        }
    }
    let mut text = "| observation | seen | cases |\n| --- | --- | --- |\n".to_owned();
    for (what, seen, cases) in rows {
        let cases: Vec<String> = cases.iter().map(|case| format!("`{case}`")).collect();
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(text, "| {what} | `{seen}` | {} |", cases.join(", "));
    }
    text
}
