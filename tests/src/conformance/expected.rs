//! The verdicts, and what an application may see of each.
//!
//! Owns the list of differences: `docs/conformance.md` shows it, and every run
//! of the suite is held against it. Must never list what weir could keep equal
//! without saying so in the reason.

mod denied;
mod differences;

use std::collections::BTreeSet;
use std::fmt::Write as _;

pub use denied::{DENIED, denied_as_markdown};
pub use differences::DIFFERENCES;

use super::{Way, name_in};

/// What weir does with the connections of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// Whom the run dials, which makes it that verdict.
    pub dial: Dial,
    /// What the hooks count it as.
    pub outcome: &'static str,
}

impl Verdict {
    /// Whether the proxy has a part in it.
    pub(super) fn is_proxy(&self) -> bool {
        self.name == PROXY
    }
}

/// The name of the one that needs the proxy.
const PROXY: &str = "proxy";

/// An address that makes a verdict.
#[derive(Debug)]
pub enum Dial {
    /// The peer's own.
    Workload,
    /// A service's; the names of its ports begin with this.
    Service(&'static str),
}

/// Every verdict that lets a connection through.
#[rustfmt::skip]
pub const VERDICTS: &[Verdict] = &[
    Verdict { name: "direct", dial: Dial::Workload, outcome: "direct" },
    // The prefix is no protocol's name, so the protocol is detected.
    Verdict { name: PROXY, dial: Dial::Service("any"), outcome: "proxied" },
    Verdict { name: "balance", dial: Dial::Service("tcp"), outcome: "balanced" },
];

/// Why a difference is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The endpoint is dialled once the application is connected.
    DeadEndpoint,
    /// The application's own time-outs watch its connection to the proxy.
    TimeOuts,
    /// The connection ends in the pod, so it knows the loopback's sizes.
    Path,
    /// The connection ends in the pod, so routes are those of the proxy's own.
    Route,
    /// The endpoint is dialled from a port of its own.
    SourcePort,
    /// Every proxied connection of a pod has the same remote end.
    SharedPort,
    /// The kernel's tables show that end.
    Listed,
    /// The kernel notes whom a datagram really went to.
    ErrorQueue,
    /// Bytes are taken by the proxy.
    Queue,
    /// The listener speaks plain TCP.
    Multipath,
    /// TCP's urgent pointer is not passed on.
    Urgent,
}

impl Reason {
    /// A heading and the reason itself, for the documentation.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::DeadEndpoint => (
                "A dead endpoint is met after the connect",
                "weir accepts in the pod before it knows the bytes, and so the endpoint. A connect to an \
                 endpoint that does not answer succeeds, and the connection is reset at the first read \
                 or write.",
            ),
            Self::TimeOuts => (
                "Time-outs of TCP watch the connection to weir",
                "`TCP_USER_TIMEOUT` and keep-alive probes are answered by weir, in the pod. An endpoint \
                 that is gone without a word is noticed by weir's own connection: within two minutes by \
                 probes of its own, or when the kernel gives up sending what is under way.",
            ),
            Self::Path => (
                "Sizes are those of the loopback",
                "The application's connection ends in its own pod. What TCP derives from the path \
                 (segment size, path MTU, the send buffer that grows with them) is the loopback's.",
            ),
            Self::Route => (
                "Hop limits and marks end in the pod",
                "The way to the endpoint is taken by weir's socket, which has the defaults: `IP_TTL` and \
                 `SO_MARK` of the application's socket choose no route.",
            ),
            Self::SourcePort => (
                "The endpoint sees another source port",
                "The endpoint sees the pod's address, but the port of weir's socket: the application's \
                 own is taken by its connection to weir.",
            ),
            Self::SharedPort => (
                "One source port reaches one proxied destination",
                "Every proxied connection of a pod's address goes to one listener, so two of them cannot have \
                 one source port, whatever they dialled. An application that binds a port with \
                 `SO_REUSEADDR` before it connects notices, and so would one with more connections at once \
                 than there are ephemeral ports.",
            ),
            Self::Listed => (
                "Tables of sockets show whom weir dialled",
                "`getpeername()` answers with what was dialled; `/proc/net/tcp`, `/proc/net/udp`, `ss` and their \
                 like read the kernel's socket and show weir's listener, or the endpoint of a balanced connect.",
            ),
            Self::ErrorQueue => (
                "The error queue of a UDP socket names the endpoint",
                "A socket that asks for `IP_RECVERR` finds datagrams that were lost in its error queue, as they \
                 were on the wire. No hook sees a read with `MSG_ERRQUEUE`, so the name beside the datagram is \
                 the endpoint's, not the service's, and the host that tells of the error is the real one. \
                 Bytes, error and kind are the same.",
            ),
            Self::Queue => (
                "Sent bytes are taken by weir",
                "What weir has read counts as taken: `SIOCOUTQ`, and the send queue in `/proc/net/tcp`, \
                 say nothing of what the endpoint has.",
            ),
            Self::Multipath => (
                "Multipath TCP is proxied as TCP",
                "weir's listener speaks TCP, which Multipath TCP falls back to.",
            ),
            Self::Urgent => (
                "Urgent data is dropped",
                "weir moves the stream; the byte that `MSG_OOB` takes out of it is not passed on, in \
                 neither direction.",
            ),
        }
    }
}

/// What must be seen without weir in every way, or the case shows nothing.
pub const PREMISES: &[(&str, &str, &str)] = &[
    ("connect/fast-open", "data in the SYN with a cookie", "true"),
    (
        "close/half-by-the-application",
        "peer's poll before it reads",
        "IN",
    ),
    (
        "close/half-by-the-application",
        "poll before it reads",
        "IN",
    ),
    ("close/half-by-the-peer", "poll before it reads", "IN"),
];

/// One thing that an application sees otherwise under a verdict.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The verdict.
    pub verdict: &'static str,
    /// The case.
    pub case: &'static str,
    /// In which ways.
    pub ways: &'static [Way],
    /// What the case notes.
    pub what: &'static str,
    /// What it is without weir.
    pub without: &'static str,
    /// What it is under the verdict.
    pub with: &'static str,
    /// Why.
    pub reason: Reason,
}

impl Difference {
    /// The case in each of the ways, as a run calls it.
    pub(super) fn cases(&self) -> impl Iterator<Item = String> {
        self.ways.iter().map(|way| name_in(self.case, *way))
    }

    /// What the documentation says of the ways: nothing, if it is so in each.
    fn over(&self) -> String {
        if self.ways == Way::ALL {
            return String::new();
        }
        let ways: Vec<&str> = self.ways.iter().map(|way| way.text()).collect();
        format!(" ({})", ways.join(", "))
    }
}

/// The list as the documentation shows it.
pub fn as_markdown() -> String {
    let reasons: BTreeSet<Reason> = DIFFERENCES
        .iter()
        .map(|difference| difference.reason)
        .collect();
    let mut text = String::new();
    for reason in reasons {
        let (heading, why) = reason.text();
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(
            text,
            "### {heading}\n\n{why}\n\n| verdict | case | observation | without weir | with weir |\n\
             | --- | --- | --- | --- | --- |\n"
        );
        for row in DIFFERENCES.iter().filter(|row| row.reason == reason) {
            let Difference {
                verdict,
                case,
                ways: _,
                what,
                without,
                with,
                reason: _,
            } = row;
            let over = row.over();
            let _: std::fmt::Result = writeln!(
                text,
                "| {verdict} | `{case}`{over} | {what} | `{without}` | `{with}` |"
            );
        }
        text.push('\n');
    }
    text
}
