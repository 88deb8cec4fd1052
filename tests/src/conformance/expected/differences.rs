//! Case by case: what is seen otherwise, exactly.

use super::{Difference, Reason};
use crate::conformance::Way;

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
        ways: Way::ALL,
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

/// In these ways alone.
const fn over(ways: &'static [Way], difference: Difference) -> Difference {
    Difference { ways, ..difference }
}

/// What travels as IPv4.
const FOUR: &[Way] = &[Way::V4, Way::Mapped];
/// What travels as IPv6.
const SIX: &[Way] = &[Way::V6];

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
    over(FOUR, proxy(Reason::TimeOuts, "dead/vanished", "receive", "ETIMEDOUT", "EAGAIN")),
    over(SIX, proxy(Reason::TimeOuts, "dead/vanished", "receive", "EINVAL", "EAGAIN")),
    over(FOUR, proxy(Reason::TimeOuts, "dead/probed", "receive", "ETIMEDOUT", "EAGAIN")),
    over(SIX, proxy(Reason::TimeOuts, "dead/probed", "receive", "EINVAL", "EAGAIN")),
    proxy(Reason::Path, "options/path", "TCP_MAXSEG when connected", "the network's", "larger"),
    proxy(Reason::Path, "options/path", "MTU when connected", "the network's", "larger"),
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
    proxy(Reason::Listed, "names/listed", "remote end in the kernel's table", "live", "a stranger"),
    balance(Reason::Listed, "names/listed", "remote end in the kernel's table", "live", "a stranger"),
    balance(Reason::Listed, "udp/listed", "remote end in the kernel's table", "live", "a stranger"),
    over(FOUR, balance(Reason::ErrorQueue, "udp/error-queue", "MSG_ERRQUEUE then", "\"lost\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by live's host", "\"lost\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by the endpoint's host")),
    over(SIX, balance(Reason::ErrorQueue, "udp/error-queue", "MSG_ERRQUEUE then", "\"lost\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by live's host", "\"lost\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by the endpoint's host")),
    over(FOUR, balance(Reason::ErrorQueue, "udp/error-queue", "MSG_ERRQUEUE at last", "\"lost too\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by live's host", "\"lost too\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by the endpoint's host")),
    over(SIX, balance(Reason::ErrorQueue, "udp/error-queue", "MSG_ERRQUEUE at last", "\"lost too\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by live's host", "\"lost too\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by the endpoint's host")),
    over(FOUR, balance(Reason::ErrorQueue, "udp/error-queue-connected", "MSG_ERRQUEUE then", "\"lost\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by live's host", "\"lost\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 2, type 3, code 3, told by the endpoint's host")),
    over(SIX, balance(Reason::ErrorQueue, "udp/error-queue-connected", "MSG_ERRQUEUE then", "\"lost\" from closed, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by live's host", "\"lost\" from a stranger, MSG_ERRQUEUE, ECONNREFUSED of origin 3, type 1, code 4, told by the endpoint's host")),
    over(&[Way::V4], balance(Reason::ErrorQueue, "udp/time-to-live", "MSG_ERRQUEUE then", "\"?\" from live, MSG_ERRQUEUE, EHOSTUNREACH of origin 2, type 11, code 0, told by a stranger", "\"?\" from a stranger, MSG_ERRQUEUE, EHOSTUNREACH of origin 2, type 11, code 0, told by a stranger")),
    proxy(Reason::Queue, "transfer/queue", "queued", "some", "nothing"),
    proxy(Reason::Multipath, "connect/multipath", "is Multipath TCP", "1", "0"),
    proxy(Reason::Urgent, "transfer/urgent-received", "poll for PRI", "PRI", "nothing"),
    proxy(Reason::Urgent, "transfer/urgent-received", "MSG_OOB", "\"!\"", "EINVAL"),
    proxy(Reason::Urgent, "transfer/urgent-sent", "peer's urgent byte", "\"!\"", "EINVAL"),
];
