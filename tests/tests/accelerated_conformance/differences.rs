//! What an application sees otherwise where its connection is accelerated, and why.

/// Why something is seen otherwise.
#[derive(Clone, Copy)]
pub enum Because {
    /// This case of the self-test is broken on the kernel.
    Broken(&'static str),
    /// docs/acceleration.md says so, of every kernel.
    Said(&'static str),
}

use Because::{Broken, Said};

/// One thing that is seen otherwise where a connection is accelerated.
pub struct Difference {
    /// Under which verdicts.
    pub verdicts: &'static [&'static str],
    pub case: &'static str,
    /// What the case notes.
    pub what: &'static str,
    pub without: &'static str,
    pub with: &'static str,
    pub because: Because,
    /// Whether it is seen every time: some need a read that waits already.
    pub is_sure: bool,
}

type Text = &'static str;

#[rustfmt::skip]
const fn sure(verdicts: &'static [Text], because: Because, case: Text, what: Text, without: Text, with: Text) -> Difference {
    Difference { verdicts, case, what, without, with, because, is_sure: true }
}

#[rustfmt::skip]
const fn maybe(because: Because, case: Text, what: Text, without: Text, with: Text) -> Difference {
    Difference { is_sure: false, ..sure(PROXY, because, case, what, without, with) }
}

const BOTH: &[&str] = &["proxy", "balance"];
const PROXY: &[&str] = &["proxy"];
const BALANCE: &[&str] = &["balance"];

/// All that may differ, but for [`super::WOKEN`].
#[rustfmt::skip]
pub const DIFFERENCES: &[Difference] = &[
    // Nothing holds the writer back, so its FIN does not wait behind what is unread.
    sure(BOTH, Broken("back-pressure"), "close/half-by-the-application", "peer's poll before it reads", "IN", "IN RDHUP"),
    sure(BOTH, Broken("back-pressure"), "close/half-by-the-peer", "poll before it reads", "IN", "IN RDHUP"),
    sure(BOTH, Broken("reset-told-once"), "close/reset-by-the-peer", "send, once more", "EPIPE", "ECONNRESET"),
    sure(BOTH, Broken("reset-told-once"), "close/reset-by-the-peer", "receive", "FIN", "ECONNRESET"),
    sure(BOTH, Broken("reset-unread"), "close/unread-by-the-application", "peer receives", r#""" ECONNRESET"#, r#""" FIN"#),
    sure(BOTH, Broken("reset-unread"), "close/unread-by-the-peer", "poll for IN", "IN ERR HUP", "IN"),
    sure(BOTH, Broken("reset-unread"), "close/unread-by-the-peer", "receive", "ECONNRESET", "FIN"),
    sure(BOTH, Broken("blocked-read"), "events/woken", "receive", "FIN", "EAGAIN"),
    sure(BOTH, Broken("rcvlowat"), "transfer/low-water", "poll, with few", "nothing", "IN"),
    sure(BOTH, Broken("trunc"), "transfer/peek", "MSG_TRUNC", r#""\0\0""#, r#""lo""#),
    sure(BOTH, Broken("splice-out"), "transfer/splice", "splice in", "1000", "EAGAIN"),
    sure(BOTH, Broken("waitall"), "transfer/wait-all", "MSG_WAITALL", r#""abcdef""#, r#""ab""#),
    sure(BOTH, Broken("waitall"), "transfer/wait-all", "MSG_WAITALL at the end", r#""gh""#, r#""cd""#),
    sure(BOTH, Broken("oob"), "transfer/urgent-sent", "peer receives", r#""beforeafter" FIN"#, r#""efore!after" FIN"#),
    sure(BOTH, Broken("oob"), "transfer/urgent-received", "receive", r#""beforeafter" FIN"#, r#""efore!after" FIN"#),
    sure(BALANCE, Broken("oob"), "transfer/urgent-sent", "peer's urgent byte", r#""!""#, r#""b""#),
    sure(BALANCE, Broken("oob"), "transfer/urgent-received", "MSG_OOB", r#""!""#, r#""b""#),
    sure(BALANCE, Broken("oob"), "transfer/urgent-received", "poll for PRI", "PRI", "nothing"),
    sure(PROXY, Broken("oob"), "transfer/urgent-sent", "peer's urgent byte", "EINVAL", r#""b""#),
    sure(PROXY, Broken("oob"), "transfer/urgent-received", "MSG_OOB", "EINVAL", r#""b""#),
    sure(BALANCE, Broken("user-timeout"), "dead/vanished", "receive", "ETIMEDOUT", "EAGAIN"),
    sure(BALANCE, Said("`ss` shows none"), "transfer/queue", "queued", "some", "nothing"),
    sure(BOTH, Said("TCP_INFO does not count them"), "options/tcp-info", "tcpi_snd_cwnd", "12", "10"),
    // Who was told EAGAIN instead of the reset meets it in the next call.
    maybe(Broken("blocked-read"), "close/reset-by-the-application", "peer sends", "EPIPE", "ECONNRESET"),
    maybe(Broken("blocked-read"), "dead/closed", "send", "EPIPE", "ECONNRESET"),
    maybe(Broken("blocked-read"), "dead/time-out", "send", "EPIPE", "ECONNRESET"),
    maybe(Broken("blocked-read"), "dead/unreachable", "send", "EPIPE", "ECONNRESET"),
];
