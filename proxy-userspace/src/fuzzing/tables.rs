//! What the hooks read, whatever stands in their maps: they cannot refuse it.

use proxy_common::{
    Addr, AddressEntry, AddressKey, Block, Destination, EgressEntry, EndpointSlot, LocalEntry,
    LocalKey, NetnsCookie, Note, PolicySetId, PortEntry, PortKey, Route, RouteKey, ServiceEntry,
    ServiceKey, Tables, Talking, Target, TcpState, Transport, Verdict, Workload, choose, decide,
};

use super::bytes::{Bytes, Memory};

/// Tables that hold the next bytes, wherever one looks.
impl Tables for Bytes<'_> {
    fn is_local(&self, _: &LocalKey) -> bool {
        self.maybe::<LocalEntry>().is_some()
    }

    fn address(&self, _: &AddressKey) -> Option<AddressEntry> {
        self.maybe()
    }

    fn service(&self, _: &ServiceKey) -> Option<ServiceEntry> {
        self.maybe()
    }

    fn route(&self, _: &RouteKey) -> Option<Route> {
        self.maybe()
    }

    fn endpoint(&self, _: u32) -> Option<EndpointSlot> {
        self.maybe()
    }

    fn egress(&self, _: PolicySetId, _: &Addr) -> Option<EgressEntry> {
        self.maybe()
    }

    fn egress_port(&self, _: &PortKey) -> Option<PortEntry> {
        self.maybe()
    }
}

/// Any workload dials anything, by tables of anything.
pub fn decisions(bytes: &[u8]) {
    // `None`: the input ends here.
    let _ended = decided(&Bytes::new(bytes));
    let _ended = talked(&Bytes::new(bytes));
    let _ended = closed(&Bytes::new(bytes));
}

fn decided(bytes: &Bytes<'_>) -> Option<()> {
    let workload: Workload = bytes.value()?;
    let dialled: Target = bytes.value()?;
    let dst = Destination {
        addr: dialled.addr,
        port: dialled.port,
    };
    let random = bytes.value()?;
    for transport in [Transport::Tcp, Transport::Udp] {
        let netns: NetnsCookie = bytes.value()?;
        let decision = decide(bytes, &workload, netns, transport, dst);
        if decision.verdict == Verdict::Proxy {
            // Without any listener, the hook takes the proxy for dead.
            let is_down = workload.listeners_len == 0;
            assert!(is_down || workload.listens_for(&dst.addr));
            assert_eq!(transport, Transport::Tcp);
        }
        let drawn = choose(bytes, &workload, transport, dst, decision.block, random);
        assert!(!drawn.stale || drawn.target == Target::NOBODY);
    }
    Some(())
}

fn talked(bytes: &Bytes<'_>) -> Option<()> {
    let mut talking = Talking::default();
    let cells = Memory::default();
    loop {
        let (dialled, endpoint): (Target, Target) = (bytes.value()?, bytes.value()?);
        let block = bytes.value::<Route>()?.block;
        let talks = &mut talking.talks;
        talks.endpoint(bytes, &cells, block, &dialled);
        talks.note(&cells, dialled, endpoint, block.generation);
        assert_eq!(
            talks.endpoint(bytes, &cells, Block { len: 0, ..block }, &dialled),
            endpoint
        );
        talks.seen_as(&cells, &endpoint);
    }
}

fn closed(bytes: &Bytes<'_>) -> Option<()> {
    let mut note: Note = bytes.value()?;
    loop {
        let counted = proxy_common::Counted {
            acked: bytes.value()?,
            received: bytes.value()?,
            all_acked: bytes.value::<u8>()? & 1 == 1,
        };
        let state = TcpState::from_number(bytes.value()?);
        let payload = note.payload(state, counted);
        assert!(payload.sent <= counted.acked && payload.received <= counted.received);
        note.passes(state, counted.received);
    }
}
