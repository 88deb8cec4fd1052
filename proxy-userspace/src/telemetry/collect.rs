//! The names, help texts and labels of all metrics, and their values at a scrape.

use std::fmt::Error;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;
use proxy_common::Counter;

use super::cells::{
    BOUNDS, ConnectionSum, LIFE_BOUNDS, PathSum, RTT_BOUNDS, RequestSum, StreamSum,
};
use super::labels::{ends, refused, request, traffic, with};
use super::out::Out;
use super::process::Process;
use super::series::Labels;
use super::{KernelTotals, State};

type Rows<S> = Vec<(Labels, S)>;

impl Collector for State {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out::new(encoder);
        out.requests(&self.requests.sums())?;
        out.connections(&self.connections.sums())?;
        out.streams(&self.streams.sums())?;
        out.paths(&self.paths.sums())?;
        out.policy(
            &self.denials.sums(),
            &self.audits.sums(),
            &self.rejections.sums(),
        )?;
        if let Some(kernel) = self.kernel.get() {
            out.kernel(&kernel())?;
        }
        out.state(self)?;
        out.process(&Process::read())
    }
}

impl Out<'_> {
    fn requests(&mut self, rows: &Rows<RequestSum>) -> Result<(), Error> {
        let counters = |value: fn(&RequestSum) -> u64| {
            rows.iter()
                .map(move |(labels, sum)| (request(labels.key()), value(sum)))
        };
        self.counter(
            "weir_requests",
            "HTTP requests that were answered, by an endpoint or by weir",
            None,
            counters(RequestSum::count),
        )?;
        self.durations(rows)?;
        self.counter(
            "weir_request",
            "Body bytes from clients",
            Some(&Unit::Bytes),
            counters(|sum| sum.request_bytes),
        )?;
        self.counter(
            "weir_response",
            "Body bytes to clients",
            Some(&Unit::Bytes),
            counters(|sum| sum.response_bytes),
        )?;
        self.counter(
            "weir_request_retries",
            "Further endpoints that were tried for a request",
            None,
            counters(|sum| sum.retries).filter(|(_, retries)| *retries > 0),
        )
    }

    fn durations(&mut self, rows: &Rows<RequestSum>) -> Result<(), Error> {
        self.histogram(
            "weir_request_duration",
            "From the whole request head to the last byte of the answer",
            &BOUNDS,
            rows.iter().map(|(labels, sum)| {
                let buckets: &[u64] = &sum.buckets;
                (request(labels.key()), buckets, sum.micros)
            }),
        )
    }

    fn connections(&mut self, rows: &Rows<ConnectionSum>) -> Result<(), Error> {
        let counters = |value: fn(&ConnectionSum) -> u64| {
            rows.iter()
                .map(move |(labels, sum)| (ends(labels.key()), value(sum)))
        };
        self.counter(
            "weir_connections_opened",
            "Captured connections that were accepted by weir, or by the endpoint that the kernel chose",
            None,
            counters(|sum| sum.opened),
        )?;
        self.counter(
            "weir_connections_closed",
            "Captured connections that have ended",
            None,
            counters(|sum| sum.closed),
        )?;
        self.gauge(
            "weir_connections_active",
            "Captured connections at the moment",
            None,
            counters(|sum| sum.opened.saturating_sub(sum.closed)),
        )
    }

    fn streams(&mut self, rows: &Rows<StreamSum>) -> Result<(), Error> {
        self.counter(
            "weir_tcp_connections",
            "Connections whose bytes were passed through, counted at their end",
            None,
            rows.iter()
                .map(|(labels, sum)| (traffic(labels.key()), sum.connections())),
        )?;
        self.histogram(
            "weir_tcp_connection_duration",
            "From the dial, or its acceptance by weir, to the end of each connection whose bytes were passed through",
            &LIFE_BOUNDS,
            rows.iter().map(|(labels, sum)| {
                let buckets: &[u64] = &sum.buckets;
                (traffic(labels.key()), buckets, sum.micros)
            }),
        )?;
        self.counter(
            "weir_tcp",
            "Bytes that were passed through, counted at the end of the connection",
            Some(&Unit::Bytes),
            rows.iter().flat_map(|(labels, sum)| {
                let labels = traffic(labels.key());
                [
                    (with(labels.clone(), "direction", "sent"), sum.sent),
                    (with(labels, "direction", "received"), sum.received),
                ]
            }),
        )
    }

    fn paths(&mut self, rows: &Rows<PathSum>) -> Result<(), Error> {
        let measured = rows.iter().filter(|(_, sum)| sum.measured() > 0);
        self.histogram(
            "weir_tcp_rtt",
            "TCP's smoothed round-trip time, of connections that the kernel balanced, at their end",
            &RTT_BOUNDS,
            measured.map(|(labels, sum)| {
                let buckets: &[u64] = &sum.buckets;
                (ends(labels.key()), buckets, sum.micros)
            }),
        )?;
        self.counter(
            "weir_tcp_retransmits",
            "Segments that were sent again, of connections that the kernel balanced, SYNs included",
            None,
            rows.iter()
                .map(|(labels, sum)| (ends(labels.key()), sum.retransmits)),
        )
    }

    fn policy(
        &mut self,
        denials: &Rows<u64>,
        audits: &Rows<u64>,
        rejections: &Rows<u64>,
    ) -> Result<(), Error> {
        self.counter(
            "weir_denials",
            "Connections and requests that policy refused",
            None,
            denials
                .iter()
                .map(|(labels, sum)| (refused(labels.key()), *sum)),
        )?;
        self.counter(
            "weir_egress_audited",
            "Connections and requests that policy let through only because it audits",
            None,
            audits
                .iter()
                .map(|(labels, sum)| (refused(labels.key()), *sum)),
        )?;
        self.counter(
            "weir_rejected_connections",
            "Connections that were turned away for another reason than policy",
            None,
            rejections
                .iter()
                .map(|(labels, sum)| (vec![("reason", labels.key().reason.into())], *sum)),
        )
    }

    fn kernel(&mut self, totals: &KernelTotals) -> Result<(), Error> {
        let total = |counter: Counter| totals[counter as usize];
        let outcomes = [
            Counter::Direct,
            Counter::Proxied,
            Counter::Denied,
            Counter::QuotaExceeded,
            Counter::TableFull,
            Counter::ProxyDownClosed,
            Counter::ProxyDownOpen,
            Counter::ProxyHungClosed,
            Counter::ProxyHungOpen,
            Counter::Balanced,
            Counter::NoEndpoint,
            Counter::ServiceChanged,
        ];
        self.counter(
            "weir_kernel_connects",
            "Connects of enrolled workloads, by what the kernel half did with them",
            None,
            outcomes.map(|counter| (vec![("outcome", counter.name().into())], total(counter))),
        )?;
        let datagrams = [
            ("direct", Counter::UdpDirect),
            ("balanced", Counter::UdpBalanced),
            ("denied", Counter::UdpDenied),
            ("no_endpoint", Counter::UdpNoEndpoint),
        ];
        self.counter(
            "weir_kernel_udp",
            "UDP connects, and datagrams that name their destination, of enrolled workloads, by what the kernel half did with them",
            None,
            datagrams.map(|(outcome, counter)| (vec![("outcome", outcome.into())], total(counter))),
        )?;
        let accelerated = [
            ("accelerated", Counter::Accelerated),
            ("passed", Counter::AccelerationPassed),
            ("refused", Counter::AccelerationRefused),
        ];
        self.counter(
            "weir_acceleration",
            "Connections of workloads that accelerate: socket to socket, left to TCP, refused by the kernel",
            None,
            accelerated.map(|(outcome, counter)| (vec![("outcome", outcome.into())], total(counter))),
        )?;
        self.kernel_losses(totals)
    }

    /// What should not happen, or not often.
    fn kernel_losses(&mut self, totals: &KernelTotals) -> Result<(), Error> {
        for (name, help, counter) in [
            (
                "weir_kernel_udp_forgotten",
                "Endpoints that a UDP socket had to forget for newer ones: it talks with too many services",
                Counter::UdpForgotten,
            ),
            (
                "weir_kernel_udp_unwatched",
                "Connected UDP sockets that were too many to be woken when their endpoint dies",
                Counter::UdpUnwatched,
            ),
            (
                "weir_flow_write_failures",
                "Flows that could not be written down; their connections were reset",
                Counter::FlowWriteFailed,
            ),
            (
                "weir_kernel_events_lost",
                "Denials whose event was lost: they held, but have no log line",
                Counter::EventsLost,
            ),
            (
                "weir_kernel_endings_lost",
                "Balanced connections whose end was lost: no metric and no log line holds them",
                Counter::EndingsLost,
            ),
        ] {
            self.counter(name, help, None, [(vec![], totals[counter as usize])])?;
        }
        Ok(())
    }

    fn state(&mut self, state: &State) -> Result<(), Error> {
        let load = |value: &std::sync::atomic::AtomicU64| {
            [(vec![], value.load(std::sync::atomic::Ordering::Relaxed))]
        };
        self.gauge(
            "weir_config_generation",
            "The generation of the rules in force",
            None,
            load(&state.generation),
        )?;
        self.gauge(
            "weir_config_revision",
            "The revision of the inventory in force",
            None,
            load(&state.revision),
        )?;
        self.gauge(
            "weir_workloads",
            "Enrolled workloads",
            None,
            load(&state.workloads),
        )?;
        let version = vec![("version", env!("CARGO_PKG_VERSION").into())];
        self.gauge(
            "weir_build_info",
            "Which weir this is",
            None,
            [(version, 1_u64)],
        )?;
        self.counter(
            "weir_flow_misses",
            "Accepted connections that no flow was found for",
            None,
            load(&state.flow_misses),
        )?;
        let (written, dropped) = state.log.totals();
        self.counter(
            "weir_log_lines",
            "Log lines written",
            None,
            [(vec![], written)],
        )?;
        self.counter(
            "weir_log_lines_dropped",
            "Log lines lost: the sink was too slow or refused them, or a source had too many denials",
            None,
            [(vec![], dropped)],
        )?;
        self.counter(
            "weir_series_folded",
            "Label sets that were counted as other because their family was full",
            None,
            folded(state).map(|(family, count)| (vec![("family", family.into())], count)),
        )?;
        let started = state.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge(
            "process_start_time",
            "When the process began, in seconds since 1970",
            Some(&Unit::Seconds),
            [(vec![], started.as_secs_f64())],
        )
    }

    fn process(&mut self, process: &Process) -> Result<(), Error> {
        if let Some(seconds) = process.cpu_seconds {
            self.counter(
                "process_cpu",
                "User and system time",
                Some(&Unit::Seconds),
                [(vec![], seconds)],
            )?;
        }
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Resident memory",
                Some(&Unit::Bytes),
                process.resident_bytes,
            ),
            (
                "process_open_fds",
                "Open file descriptors",
                None,
                process.open_fds,
            ),
            (
                "process_max_fds",
                "How many it may open",
                None,
                process.max_fds,
            ),
        ] {
            if let Some(value) = value {
                self.gauge(name, help, unit, [(vec![], value)])?;
            }
        }
        Ok(())
    }
}

/// How often each family folded a label set.
fn folded(state: &State) -> [(&'static str, u64); 7] {
    [
        ("requests", state.requests.folded()),
        ("connections", state.connections.folded()),
        ("tcp", state.streams.folded()),
        ("tcp_paths", state.paths.folded()),
        ("denials", state.denials.folded()),
        ("audited", state.audits.folded()),
        ("rejected", state.rejections.folded()),
    ]
}
