//! The cases: each does something with a connection that acceleration is known,
//! or feared, to break. All of them hold on plain TCP.
//!
//! A case is tried on plain TCP first: what does not hold there (a kernel
//! without kTLS) says nothing about acceleration. Must never wait without end.

mod ends;
mod flow;
mod reads;
mod rounds;
mod sends;
mod unusual;

use super::arena::{Family, Fault, Road};

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, for operators and metrics.
    pub name: &'static str,
    /// What must hold.
    pub must: &'static str,
    /// Tries it on a road.
    pub run: fn(Road) -> Result<(), Fault>,
    /// The families that it is tried in.
    pub families: &'static [Family],
    /// Beside what it can run.
    pub effort: Effort,
}

/// What a case does most of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// It waits: it runs beside all others.
    Waits,
    /// A few calls and pauses: it is tried in all families at once.
    Brief,
    /// It needs all CPUs, or much memory: it is tried in one family after another.
    Works,
}

const fn case(name: &'static str, must: &'static str, run: fn(Road) -> Result<(), Fault>) -> Case {
    Case {
        name,
        must,
        run,
        families: Family::ALL,
        effort: Effort::Brief,
    }
}

const fn waiting(case: Case) -> Case {
    Case {
        effort: Effort::Waits,
        ..case
    }
}

const fn working(case: Case) -> Case {
    Case {
        effort: Effort::Works,
        ..case
    }
}

/// Not in every family: it takes long, or much memory.
const fn only(families: &'static [Family], case: Case) -> Case {
    Case { families, ..case }
}

const ONE: &[Family] = &[Family::V4];
const TWO: &[Family] = &[Family::V4, Family::V6];

/// Every case.
pub const CASES: [Case; 36] = [
    case("fin", "the end comes after all bytes", ends::fin),
    case("reset", "a reset stays a reset", ends::reset),
    case(
        "reset-told-once",
        "a writer is told of a reset once, then EPIPE",
        ends::reset_told_once,
    ),
    case(
        "blocked-read",
        "a read that waits ends with what woke it",
        ends::blocked_read,
    ),
    case(
        "reset-unread",
        "closing with unread bytes resets",
        ends::reset_unread,
    ),
    case(
        "unread-after-fin",
        "bytes can be read after both ends closed",
        ends::unread_after_fin,
    ),
    case(
        "unread-after-shutdown",
        "bytes can be read after the own shutdown",
        ends::unread_after_shutdown,
    ),
    case(
        "unread-after-reset",
        "bytes that came before a reset can be read",
        ends::unread_after_reset,
    ),
    case(
        "half-close",
        "the other half goes on, in both orders",
        ends::half_close,
    ),
    case(
        "write-after-close",
        "writing to who is gone fails",
        ends::write_after_close,
    ),
    case("fionread", "FIONREAD counts waiting bytes", reads::fionread),
    case("peek", "MSG_PEEK leaves what it shows", reads::peek),
    case("waitall", "MSG_WAITALL waits for all", reads::waitall),
    case("trunc", "MSG_TRUNC throws bytes away", reads::trunc),
    case("rcvlowat", "SO_RCVLOWAT holds poll back", reads::rcvlowat),
    case(
        "rcvtimeo",
        "a read waits as long as SO_RCVTIMEO says",
        reads::rcvtimeo,
    ),
    case(
        "poll",
        "poll and epoll, edge and level, see bytes and the end",
        reads::wakes,
    ),
    case(
        "splice-out",
        "splice reads from the socket",
        reads::splice_out,
    ),
    case(
        "before-accept",
        "bytes sent before accept are there",
        reads::before_accept,
    ),
    case("tcp-inq", "TCP_INQ tells what is left", reads::inq),
    case(
        "sendfile",
        "sendfile and splice keep the order of writes",
        sends::sendfile,
    ),
    case("oob", "MSG_OOB stays out of band", sends::oob),
    case(
        "zerocopy",
        "MSG_ZEROCOPY reports completion",
        sends::zerocopy,
    ),
    case("outq", "SIOCOUTQ falls to nothing", sends::outq),
    case(
        "nodelay-more",
        "MSG_MORE holds nothing back for ever",
        sends::more,
    ),
    only(
        TWO,
        working(case(
            "burst",
            "8 MiB both ways at once arrive unchanged",
            flow::burst,
        )),
    ),
    only(
        ONE,
        working(case(
            "back-pressure",
            "a slow reader holds its writer back",
            flow::back_pressure,
        )),
    ),
    only(
        ONE,
        working(case(
            "notsent-lowat",
            "a writer that has enough queued is not writable",
            flow::notsent_lowat,
        )),
    ),
    case(
        "memory",
        "unread bytes are charged to the reader",
        flow::memory,
    ),
    only(
        ONE,
        waiting(case(
            "user-timeout",
            "TCP_USER_TIMEOUT ends a stuck connection",
            flow::user_timeout,
        )),
    ),
    waiting(case(
        "early-write",
        "a write may begin before the connection is up",
        unusual::early_write,
    )),
    waiting(case(
        "early-read",
        "a read may begin before the connection is up",
        unusual::early_read,
    )),
    case(
        "uring-multishot",
        "a multishot receive gets all, and the end",
        unusual::multishot,
    ),
    case("ktls", "kTLS set later encrypts", unusual::ktls),
    only(
        TWO,
        working(case(
            "rounds",
            "2 000 connections on two CPUs keep order",
            rounds::rounds,
        )),
    ),
    only(
        TWO,
        working(case(
            "rounds-half-close",
            "2 000 half-closed ones get their answer",
            rounds::half_closed,
        )),
    ),
];
