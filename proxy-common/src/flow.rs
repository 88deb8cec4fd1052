//! What the kernel half hands over about one connection.

use crate::addr::{Addr, Destination, Port};
use crate::decide::{Decision, Reason, Verdict};
use crate::id::{NetnsCookie, RuleId, ServiceId, WorkloadId};
use crate::transport::Transport;

/// One captured connection: what was dialled, by whom, and why it is here.
///
/// `connect` writes it as part of the [`Note`](crate::Note) on the dialling socket, `sock_ops`
/// copies it to `FLOWS` and from there onto the accepted socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The dialled address.
    pub addr: Addr,
    /// The dialled port.
    pub port: Port,
    /// The [`Reason`] of the verdict, as its number.
    pub reason: u8,
    /// Always 0.
    pub pad: u8,
    /// Who dialled.
    pub workload: WorkloadId,
    /// The service port that was dialled, or none.
    pub service: ServiceId,
    /// The egress rule, or of a balanced connection the route rule, that sent it
    /// there, or none.
    pub rule: RuleId,
}

impl Flow {
    /// The flow of a connect of `workload` to `dst` with the verdict `decision`.
    #[inline(always)]
    pub const fn new(workload: WorkloadId, dst: Destination, decision: &Decision) -> Self {
        Self {
            addr: dst.addr,
            port: dst.port,
            reason: decision.reason as u8,
            pad: 0,
            workload,
            service: decision.service,
            rule: decision.rule,
        }
    }

    /// What the application dialled.
    pub const fn destination(&self) -> Destination {
        Destination {
            addr: self.addr,
            port: self.port,
        }
    }
}

/// Key of `FLOWS`: the connection's own tuple, exact within its netns. The
/// listener's port belongs to it: a source port may be shared by connections
/// to different listeners.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Where the socket lives.
    pub netns: NetnsCookie,
    /// Its source address.
    pub addr: Addr,
    /// Its source port.
    pub port: Port,
    /// The port of weir's listener.
    pub listener: Port,
    /// Always 0.
    pub pad: u32,
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connect or a datagram was denied.
    Denied,
    /// One went through that `egress: deny` would have denied.
    Audited,
}

/// One record of the `EVENTS` ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The dialling socket's netns; 0 if it was an unknown one.
    pub netns: NetnsCookie,
    /// The dialled address.
    pub addr: Addr,
    /// The dialled port.
    pub port: Port,
    /// The [`Reason`], as its number.
    pub reason: u8,
    /// The [`Verdict`], as its number.
    pub verdict: u8,
    /// Who dialled; 0 if it was nobody known.
    pub workload: WorkloadId,
    /// The rule that spoke, or none.
    pub rule: RuleId,
    pub(crate) transport: u32,
}

impl Event {
    /// What is to be told of `decision`.
    #[inline(always)]
    pub const fn new(
        netns: NetnsCookie,
        workload: WorkloadId,
        transport: Transport,
        dst: Destination,
        decision: &Decision,
    ) -> Self {
        Self {
            netns,
            addr: dst.addr,
            port: dst.port,
            reason: decision.reason as u8,
            verdict: decision.verdict as u8,
            workload,
            rule: decision.rule,
            transport: transport.number() as u32,
        }
    }

    /// What it was sent by.
    pub const fn transport(&self) -> Transport {
        match Transport::from_protocol(self.transport) {
            Some(Transport::Udp) => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// What happened.
    pub const fn kind(&self) -> EventKind {
        if self.verdict == Verdict::Deny as u8 {
            EventKind::Denied
        } else {
            EventKind::Audited
        }
    }

    /// Why; `None` if the number is none that this version knows.
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_number(self.reason)
    }

    /// What was dialled.
    pub const fn destination(&self) -> Destination {
        Destination {
            addr: self.addr,
            port: self.port,
        }
    }
}

const _: () = {
    assert!(size_of::<Flow>() == 32);
    assert!(size_of::<FlowKey>() == 32);
    assert!(size_of::<Event>() == 40);
};
