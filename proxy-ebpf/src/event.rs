//! Tells the daemon of denials and audits through the ring buffer. A full
//! buffer costs the log line, never the denial; lost lines are counted.

use proxy_common::{Counter, Decision, Destination, Event, NetnsCookie, WorkloadId};

use crate::maps::{self, count};

/// Reports `decision`.
#[inline(always)]
pub fn report(netns: NetnsCookie, workload: WorkloadId, dst: Destination, decision: &Decision) {
    let Some(mut entry) = maps::EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return;
    };
    entry.write(Event {
        netns,
        addr: dst.addr,
        port: dst.port,
        reason: decision.reason as u8,
        verdict: decision.verdict as u8,
        workload,
        rule: decision.rule,
        pad: 0,
    });
    entry.submit(0);
}
