//! Tells the daemon how balanced connections went, from TCP's own counters and
//! what was handed over past TCP: no userspace is on their path. A full ring costs the record, never the
//! connection; lost records are counted.
//!
//! ```text
//! tcp_set_state → STATE_CB     which FINs TCP has counted: into the note
//!               → CLOSE        bytes, time, round trips: into ENDINGS
//! ```

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_ns};
use aya_ebpf::programs::SockOpsContext;
use proxy_common::{
    Counted, Counter, Decision, Destination, Ending, Handed, NetnsCookie, Note, Outcome, Payload,
    TcpState, Workload,
};

use crate::context::cookie;
use crate::maps::{self, count};

/// TCP keeps its smoothed round-trip time in eighths of a microsecond.
const RTT_SHIFT: u32 = 3;

/// Handles a change of state of a balanced socket.
#[inline(always)]
pub fn moved(ctx: &SockOpsContext, note: &mut Note, old: TcpState, new: TcpState) {
    if new != TcpState::Close {
        note.passes(new, counted(ctx).received);
        return;
    }
    match old {
        TcpState::SynSent => finish(ctx, note, Outcome::Failed, old),
        _ => finish(ctx, note, Outcome::Closed, old),
    }
}

#[inline(always)]
fn finish(ctx: &SockOpsContext, note: &Note, outcome: Outcome, old: TcpState) {
    let handed = if note.handed == 0 {
        Handed::default()
    } else {
        take_handed(ctx)
    };
    let payload = match outcome {
        Outcome::Closed => note.payload(old, counted(ctx)).and(handed),
        Outcome::Failed | Outcome::NoEndpoint => Payload::default(),
    };
    let ops = ctx.ops;
    // SAFETY: a valid context, each field in its own width; any context is a
    // valid argument of the first helper, the second takes none.
    let (netns, now, rtt, retransmits) = unsafe {
        (
            bpf_get_netns_cookie(ctx.as_ptr()),
            bpf_ktime_get_ns(),
            (&raw const (*ops).srtt_us).read_volatile(),
            (&raw const (*ops).total_retrans).read_volatile(),
        )
    };
    report(Ending {
        netns: NetnsCookie(netns),
        duration: now.saturating_sub(note.started),
        sent: payload.sent,
        received: payload.received,
        addr: note.flow.addr,
        endpoint: note.to,
        port: note.flow.port,
        endpoint_port: note.to_port,
        outcome: outcome.number(),
        pad: [0; 3],
        workload: note.flow.workload,
        service: note.flow.service,
        rtt_micros: rtt >> RTT_SHIFT,
        retransmits,
        rule: note.flow.rule,
        pad2: 0,
    });
}

/// What went past TCP. The connection's place is given up.
#[inline(always)]
fn take_handed(ctx: &SockOpsContext) -> Handed {
    let cookie = cookie(ctx);
    // SAFETY: copied at once.
    let handed = unsafe { maps::HANDED.get(cookie) }.copied();
    let _gone = maps::HANDED.remove(cookie);
    handed.unwrap_or_default()
}

#[inline(always)]
fn counted(ctx: &SockOpsContext) -> Counted {
    let ops = ctx.ops;
    // SAFETY: a valid context. Volatile, so that each field is read in its own
    // width, which is all that the verifier allows.
    unsafe {
        Counted {
            acked: (&raw const (*ops).bytes_acked).read_volatile(),
            received: (&raw const (*ops).bytes_received).read_volatile(),
            all_acked: (&raw const (*ops).snd_una).read_volatile()
                == (&raw const (*ops).snd_nxt).read_volatile(),
        }
    }
}

/// Tells of a connect or datagram that no endpoint was ready for.
#[inline(always)]
pub fn no_endpoint(netns: NetnsCookie, workload: &Workload, dst: Destination, decision: &Decision) {
    report(Ending {
        netns,
        addr: dst.addr,
        port: dst.port,
        outcome: Outcome::NoEndpoint.number(),
        workload: workload.id,
        service: decision.service,
        rule: decision.rule,
        ..Ending::default()
    });
}

/// Puts one record into the ring.
#[inline(always)]
fn report(ending: Ending) {
    let Some(mut entry) = maps::ENDINGS.reserve(0) else {
        count(Counter::EndingsLost);
        return;
    };
    entry.write(ending);
    entry.submit(0);
}
