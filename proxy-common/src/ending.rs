//! What `connect` notes on the dialling socket, and what is told of a balanced
//! connection at its end.
//!
//! Owns the counting of bytes: TCP's own counters hold one more for a SYN and
//! for each FIN, and which of them were counted is told by the states that the
//! socket went through. Must stay pure, like everything here.

use crate::accelerate::Handed;
use crate::addr::{Addr, Destination, Port};
use crate::decide::Decision;
use crate::flow::Flow;
use crate::id::{NetnsCookie, RuleId, ServiceId, WorkloadId};

/// The states of TCP that the end of a connection depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// The SYN is not answered yet.
    SynSent,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The end.
    Close,
    /// The peer's FIN is here.
    CloseWait,
    /// Our FIN, after the peer's, is not acknowledged yet.
    LastAck,
    /// Both FINs are sent, ours is not acknowledged yet.
    Closing,
    /// Any other.
    Other,
}

impl TcpState {
    /// The state with the kernel's number for it (`enum` in `net/tcp_states.h`).
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            2 => Self::SynSent,
            5 => Self::FinWait2,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            11 => Self::Closing,
            _ => Self::Other,
        }
    }
}

/// What `connect` notes on the dialling socket; `getpeername` answers from it.
///
/// It holds for one dial. A pod that is not enrolled any more dials again without a
/// hook that could forget it: whoever reads a note asks [`Note::is_of`] first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// What was dialled, and by whom.
    pub flow: Flow,
    /// Where the connection was sent: the endpoint that was chosen, or weir's listener.
    pub to: Addr,
    /// Its port; 0: the connection has ended.
    pub to_port: Port,
    /// Whether the peer's FIN is among the bytes that TCP counts as received.
    fin_received: u8,
    /// 1: some of the connection's bytes may be counted in `HANDED`.
    pub handed: u8,
    /// 1: `to` is an endpoint; 0: it is weir's listener.
    balanced: u8,
    /// 1: the hooks are told when the connection closes.
    watched: u8,
    /// Always 0.
    pub pad2: [u8; 2],
    /// When `connect()` was called, in nanoseconds of the monotonic clock.
    pub started: u64,
    /// What was received when our FIN was acknowledged before the peer's came.
    received_before: u64,
}

/// What TCP counts of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Acknowledged by the peer, SYN and FIN included.
    pub acked: u64,
    /// Received in order, FIN included.
    pub received: u64,
    /// Whether everything that was sent is acknowledged.
    pub all_acked: bool,
}

/// Payload of a connection, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// From the dialling socket, as far as the peer acknowledged it.
    pub sent: u64,
    /// To the dialling socket.
    pub received: u64,
}

impl Payload {
    /// With what never went through TCP.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, handed: Handed) -> Self {
        Self {
            sent: self.sent.wrapping_add(handed.sent),
            received: self.received.wrapping_add(handed.received),
        }
    }
}

impl Note {
    /// The note of a connection that goes to the proxy's `listener`.
    #[inline(always)]
    pub const fn proxied(flow: Flow, listener: Destination) -> Self {
        Self {
            flow,
            to: listener.addr,
            to_port: listener.port,
            fin_received: 0,
            handed: 0,
            balanced: 0,
            watched: 0,
            pad2: [0; 2],
            started: 0,
            received_before: 0,
        }
    }

    /// The note of a connection that goes to `endpoint`, dialled at `started`.
    #[inline(always)]
    pub const fn balanced(
        workload: WorkloadId,
        dialled: Destination,
        decision: &Decision,
        endpoint: Destination,
        started: u64,
    ) -> Self {
        Self {
            balanced: 1,
            started,
            ..Self::proxied(Flow::new(workload, dialled, decision), endpoint)
        }
    }

    /// Whether the connection goes to an endpoint, past the proxy.
    #[inline(always)]
    pub const fn is_balanced(&self) -> bool {
        self.balanced != 0
    }

    /// Whether it tells of a connection to `peer`, which is where the kernel sends it.
    #[inline(always)]
    pub const fn is_of(&self, peer: Destination) -> bool {
        let (own, other) = (self.to.words(), peer.addr.words());
        self.to_port.0 != 0
            && self.to_port.0 == peer.port.0
            && own[3] == other[3]
            && own[2] == other[2]
            && own[1] == other[1]
            && own[0] == other[0]
    }

    /// The hooks will be told when the connection closes.
    #[inline(always)]
    pub const fn watch(&mut self) {
        self.watched = 1;
    }

    /// Whether somebody needs it when the application has closed the socket: who tells
    /// of the end of a balanced connection.
    #[inline(always)]
    pub const fn outlives_its_socket(&self) -> bool {
        self.watched != 0 && self.balanced != 0
    }

    /// The connection has ended: the note is of no other.
    #[inline(always)]
    pub const fn end(&mut self) {
        self.to_port = Port(0);
    }

    /// Notes what a change of state, other than to CLOSE, says about FINs.
    #[inline(always)]
    pub const fn passes(&mut self, new: TcpState, received: u64) {
        match new {
            TcpState::CloseWait | TcpState::Closing => self.fin_received = 1,
            TcpState::FinWait2 => self.received_before = received,
            TcpState::SynSent | TcpState::Close | TcpState::LastAck | TcpState::Other => {}
        }
    }

    /// The payload of an established connection that closes from state `old`.
    ///
    /// Exact, but for one byte where our side had ended its half, got more
    /// bytes, and left or was reset before the peer's FIN: the state alone does
    /// not tell this end from that FIN.
    #[inline(always)]
    pub const fn payload(&self, old: TcpState, counted: Counted) -> Payload {
        let our_fin = match old {
            TcpState::FinWait2 => true,
            TcpState::LastAck | TcpState::Closing => counted.all_acked,
            _ => false,
        };
        let their_fin = self.fin_received != 0
            || (matches!(old, TcpState::FinWait2) && counted.received > self.received_before);
        Payload {
            sent: counted.acked.saturating_sub(1 + our_fin as u64),
            received: counted.received.saturating_sub(their_fin as u64),
        }
    }
}

/// How a balanced connect or connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was established, and has ended.
    Closed,
    /// The endpoint did not answer, or refused.
    Failed,
    /// There was no endpoint to dial.
    NoEndpoint,
}

impl Outcome {
    /// Its number in an [`Ending`].
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed => 1,
            Self::NoEndpoint => 2,
        }
    }
}

/// One record of the `ENDINGS` ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The dialling socket's netns.
    pub netns: NetnsCookie,
    /// From `connect()` to the end, in nanoseconds.
    pub duration: u64,
    /// Payload that the endpoint acknowledged.
    pub sent: u64,
    /// Payload that came from the endpoint.
    pub received: u64,
    /// The dialled address.
    pub addr: Addr,
    /// The endpoint's address, if there was one.
    pub endpoint: Addr,
    /// The dialled port.
    pub port: Port,
    /// The endpoint's port; 0: there was none.
    pub endpoint_port: Port,
    /// An [`Outcome`], as its number.
    pub outcome: u8,
    /// Always 0.
    pub pad: [u8; 3],
    /// Who dialled.
    pub workload: WorkloadId,
    /// The service port that was dialled.
    pub service: ServiceId,
    /// Smoothed round-trip time, in microseconds.
    pub rtt_micros: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// The route rule that chose the endpoint, or none.
    pub rule: RuleId,
    /// Always 0.
    pub pad2: u32,
}

impl Ending {
    /// How it ended; an unknown number is no success.
    pub const fn outcome(&self) -> Outcome {
        match self.outcome {
            0 => Outcome::Closed,
            2 => Outcome::NoEndpoint,
            _ => Outcome::Failed,
        }
    }

    /// What the application dialled.
    pub const fn dialled(&self) -> Destination {
        Destination {
            addr: self.addr,
            port: self.port,
        }
    }

    /// Where the connection went; `None`: nowhere.
    pub const fn endpoint(&self) -> Option<Destination> {
        if self.endpoint_port.0 == 0 {
            None
        } else {
            Some(Destination {
                addr: self.endpoint,
                port: self.endpoint_port,
            })
        }
    }
}

const _: () = {
    assert!(size_of::<Note>() == 72);
    assert!(size_of::<Ending>() == 96);
};

#[cfg(test)]
mod tests {
    use super::*;

    const fn counted(acked: u64, received: u64, all_acked: bool) -> Counted {
        Counted {
            acked,
            received,
            all_acked,
        }
    }

    fn ended(path: &[(TcpState, u64)], old: TcpState, counted: Counted) -> (u64, u64) {
        let mut note = Note::default();
        for (state, received) in path {
            note.passes(*state, *received);
        }
        let payload = note.payload(old, counted);
        (payload.sent, payload.received)
    }

    #[test]
    fn syn_and_fins_are_no_payload() {
        use TcpState::{CloseWait, Closing, FinWait2, LastAck, Other};
        // We close first; the peer's FIN comes later, or with the acknowledgement.
        let ours_first = [(FinWait2, 50)];
        assert_eq!(
            ended(&ours_first, FinWait2, counted(12, 51, true)),
            (10, 50)
        );
        assert_eq!(
            ended(&ours_first, FinWait2, counted(12, 91, true)),
            (10, 90)
        );
        // We close and are gone before the peer's FIN.
        assert_eq!(
            ended(&ours_first, FinWait2, counted(12, 50, true)),
            (10, 50)
        );
        // The peer closes first; or both at once.
        let theirs_first = [(CloseWait, 51)];
        assert_eq!(
            ended(&theirs_first, LastAck, counted(12, 51, true)),
            (10, 50)
        );
        assert_eq!(
            ended(&[(Closing, 51)], Closing, counted(12, 51, true)),
            (10, 50)
        );
        // Resets: no FIN of ours is acknowledged.
        assert_eq!(ended(&[], Other, counted(11, 50, true)), (10, 50));
        assert_eq!(
            ended(&theirs_first, CloseWait, counted(11, 51, true)),
            (10, 50)
        );
        assert_eq!(
            ended(&theirs_first, LastAck, counted(11, 51, false)),
            (10, 50)
        );
    }
}
