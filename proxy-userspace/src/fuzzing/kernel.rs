//! What comes from the kernel: reports of the hooks, values of the maps, lists
//! of sockets, type information, lists of mounts and addresses.

use std::sync::LazyLock;

use aya::Pod;
use proxy_common::{
    AddressEntry, AddressKey, EgressDefault, EgressEntry, EgressKey, Ending, EndpointSlot, Event,
    Flow, Lengths, LocalEntry, LocalKey, NetnsCookie, OnProxyDown, Peer, PolicySetId, PortEntry,
    PortKey, Record, Route, RouteKey, ServiceEntry, ServiceKey, Transport, Workload,
};

use super::bytes::Bytes;
use crate::diag;
use crate::kernel::record::{RecordError, decode};
use crate::kernel::{btf as type_info, cgroup};
use crate::report::{self, Known};
use crate::snapshot::Snapshot;
use crate::socket;
use crate::telemetry::{LogSink, Options, Telemetry};

/// Refused by its length, or by what it holds, or taken.
fn decoded<T: Pod + Record>(bytes: &[u8]) -> Option<T> {
    let record = decode::<T>(bytes);
    let is_whole = bytes.len() == size_of::<T>();
    match &record {
        Err(RecordError::Length { found, wanted, .. }) => {
            assert!(!is_whole && *found == bytes.len() && *wanted == size_of::<T>());
        }
        Ok(_) | Err(RecordError::Impossible(_)) => assert!(is_whole),
    }
    record.ok()
}

/// Reports of the hooks, as far as they are told.
pub fn events(bytes: &[u8]) {
    static NOBODY: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
    static TELEMETRY: LazyLock<std::sync::Arc<Telemetry>> = LazyLock::new(|| {
        let options = Options {
            log: LogSink::Off,
            ..Options::default()
        };
        Telemetry::start(&options).expect("nothing is opened")
    });
    thread_local! {
        static REPORTER: crate::telemetry::WorkerTelemetry = TELEMETRY.worker();
    }
    let known = Known {
        now: &NOBODY,
        then: &NOBODY,
    };
    if let Some(event) = decoded::<Event>(bytes) {
        assert!(event.reason().is_some());
        REPORTER.with(|reporter| report::denial(reporter, known, &event));
    }
    if let Some(ending) = decoded::<Ending>(bytes) {
        assert_eq!(ending.outcome().number(), ending.outcome);
        REPORTER.with(|reporter| report::ending(reporter, known, &ending));
    }
}

/// Keys and values of the maps that the daemon reads. Where a number is none that
/// is written, the strictest meaning holds, for the hooks too.
pub fn map_values(bytes: &[u8]) {
    decoded::<NetnsCookie>(bytes);
    decoded::<LocalEntry>(bytes);
    decoded::<LocalKey>(bytes);
    decoded::<AddressKey>(bytes);
    decoded::<AddressEntry>(bytes);
    decoded::<ServiceKey>(bytes);
    decoded::<EgressEntry>(bytes);
    decoded::<PortKey>(bytes);
    decoded::<PortEntry>(bytes);
    decoded::<Flow>(bytes);
    decoded::<EndpointSlot>(bytes);
    decoded::<RouteKey>(bytes);
    if let Some(route) = decoded::<Route>(bytes) {
        let block = route.block;
        assert!(block.len == 0 || block.offset.checked_add(block.len).is_some());
    }
    if let Some(peer) = decoded::<Peer>(bytes) {
        assert!(peer.endpoint.destination().is_some());
    }
    if let Some(entry) = decoded::<ServiceEntry>(bytes) {
        let _block = entry.own_block();
    }
    if let Some(key) = decoded::<EgressKey>(bytes) {
        assert_eq!(key.addr.prefix(key.bits), key.addr);
    }
    if let Some(lengths) = decoded::<Lengths>(bytes) {
        assert_eq!(lengths, Lengths::new(lengths.v4(), lengths.v6()));
    }
    decoded::<PolicySetId>(bytes);
    if let Some(workload) = Bytes::new(bytes).value::<Workload>() {
        let (egress, down) = (workload.egress_default(), workload.on_proxy_down());
        assert!(workload.egress_default <= 2 || egress == EgressDefault::Deny);
        assert!(workload.on_proxy_down == 1 || down == OnProxyDown::Closed);
        if workload.check().is_ok() {
            let port = workload.listeners[0].port;
            assert_eq!(workload.listeners_len > 0, workload.is_listener_port(port));
        }
    }
}

/// The kernel's answers about sockets.
pub fn netlink(bytes: &[u8]) {
    for (kind, body) in diag::messages(bytes) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let _entry = diag::entry(transport, body);
        }
        if kind == diag::ERROR
            && let Err(error) = diag::refused(body)
        {
            let _text = error.to_string();
        }
    }
}

/// The kernel's type information.
pub fn btf(bytes: &[u8]) {
    for (name, member) in [("tcp", "write"), ("tcp_sock", "write_seq"), ("", "")] {
        let _offset = type_info::find(bytes, name, member);
    }
}

/// Lines of files in `/proc`.
pub fn proc_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _root = cgroup::mount_point(&text);
    for line in text.lines() {
        let _state = socket::v6_state(line);
    }
}
