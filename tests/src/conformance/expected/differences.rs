//! Case by case: what is seen otherwise, exactly.

use super::{Difference, Reason};

const fn proxy(
    reason: Reason,
    case: &'static str,
    what: &'static str,
    without: &'static str,
    with: &'static str,
) -> Difference {
    Difference {
        verdict: "proxy",
        case,
        what,
        without,
        with,
        reason,
    }
}

const fn balance(
    reason: Reason,
    case: &'static str,
    what: &'static str,
    without: &'static str,
    with: &'static str,
) -> Difference {
    Difference {
        verdict: "balance",
        ..proxy(reason, case, what, without, with)
    }
}

/// All of them.
#[rustfmt::skip]
pub const DIFFERENCES: &[Difference] = &[
    proxy(Reason::DeadEndpoint, "dead/closed", "connect", "ECONNREFUSED", "OK"),
    proxy(Reason::DeadEndpoint, "dead/closed", "receive", "ENOTCONN", "ECONNRESET"),
    proxy(Reason::DeadEndpoint, "dead/closed", "getsockname then", "any:port", "own:port"),
    proxy(Reason::DeadEndpoint, "dead/closed-nonblocking", "SO_ERROR", "ECONNREFUSED", "ECONNRESET"),
    proxy(Reason::DeadEndpoint, "dead/unreachable", "connect", "ENETUNREACH", "OK"),
    proxy(Reason::DeadEndpoint, "dead/unreachable", "receive", "ENOTCONN", "ECONNRESET"),
    proxy(Reason::DeadEndpoint, "dead/unreachable", "getsockname then", "any:0", "own:port"),
    proxy(Reason::DeadEndpoint, "dead/time-out", "connect", "ETIMEDOUT", "OK"),
    proxy(Reason::DeadEndpoint, "dead/time-out", "receive", "ENOTCONN", "ECONNRESET"),
    proxy(Reason::DeadEndpoint, "dead/connecting", "poll for OUT", "nothing", "OUT"),
    proxy(Reason::DeadEndpoint, "dead/connecting", "getpeername meanwhile", "ENOTCONN", "blackhole"),
    proxy(Reason::DeadEndpoint, "dead/connecting", "connect, meanwhile", "EALREADY", "OK"),
    proxy(Reason::DeadEndpoint, "uring/closed", "connect", "ECONNREFUSED", "OK"),
    proxy(Reason::DeadEndpoint, "uring/closed", "receive", "FIN", "ECONNRESET"),
    proxy(Reason::TimeOuts, "dead/vanished", "receive", "ETIMEDOUT", "EAGAIN"),
    proxy(Reason::Path, "options/path", "TCP_MAXSEG when connected", "the network's", "larger"),
    proxy(Reason::Path, "options/path", "IP_MTU when connected", "the network's", "larger"),
    proxy(Reason::Path, "options/path", "SO_SNDBUF when connected", "the network's", "larger"),
    proxy(Reason::Path, "options/tcp-info", "tcpi_snd_mss", "the network's", "larger"),
    proxy(Reason::Path, "options/tcp-info", "tcpi_advmss", "the network's", "larger"),
    proxy(Reason::Path, "options/tcp-info", "tcpi_pmtu", "the network's", "larger"),
    proxy(Reason::Route, "route/time-to-live", "connect", "EHOSTUNREACH", "OK"),
    proxy(Reason::Route, "route/time-to-live", "getpeername then", "ENOTCONN", "live"),
    proxy(Reason::Route, "route/time-to-live", "getsockname then", "any:port", "other own:port"),
    proxy(Reason::Route, "route/mark", "connect", "EHOSTUNREACH", "OK"),
    proxy(Reason::Route, "route/mark", "getpeername then", "ENOTCONN", "live"),
    proxy(Reason::Route, "route/mark", "getsockname then", "any:0", "own:port"),
    proxy(Reason::SourcePort, "route/bound-port", "peer sees the port", "the same", "another"),
    proxy(Reason::SharedPort, "route/same-source-port", "connect to second", "OK", "EADDRNOTAVAIL"),
    proxy(Reason::SharedPort, "route/same-source-port", "getpeername of the second", "second", "ENOTCONN"),
    proxy(Reason::SharedPort, "route/same-source-port", "send on the second", "OK", "EPIPE"),
    proxy(Reason::Listed, "names/listed", "remote end in /proc/net/tcp", "live", "a stranger"),
    balance(Reason::Listed, "names/listed", "remote end in /proc/net/tcp", "live", "a stranger"),
    proxy(Reason::Queue, "transfer/queue", "queued", "some", "nothing"),
    proxy(Reason::FastOpen, "connect/fast-open", "data in the SYN with a cookie", "true", "false"),
    proxy(Reason::FastOpen, "connect/fast-open-connect", "getpeername before the first send", "ENOTCONN", "live"),
    proxy(Reason::FastOpen, "connect/fast-open-connect", "data in the SYN", "true", "false"),
    proxy(Reason::Multipath, "connect/multipath", "is Multipath TCP", "1", "0"),
    proxy(Reason::Multipath, "connect/multipath", "getpeername then", "live", "own:port"),
    balance(Reason::Multipath, "connect/multipath", "getpeername then", "live", "a stranger"),
    proxy(Reason::Urgent, "transfer/urgent-received", "poll for PRI", "PRI", "nothing"),
    proxy(Reason::Urgent, "transfer/urgent-received", "MSG_OOB", "\"!\"", "EINVAL"),
    proxy(Reason::Urgent, "transfer/urgent-sent", "peer's urgent byte", "\"!\"", "EINVAL"),
];
