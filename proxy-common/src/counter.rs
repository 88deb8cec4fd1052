//! The kernel half's own counters, one per early exit.

/// An index into the per-CPU `COUNTERS` array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connects of enrolled workloads that were let through untouched.
    Direct,
    /// Connects sent to the proxy.
    Proxied,
    /// Connects denied by policy (EPERM).
    Denied,
    /// Connects refused because the workload had too many pending flows (ECONNREFUSED).
    QuotaExceeded,
    /// Connects refused because the flow table was full (ECONNREFUSED).
    TableFull,
    /// Connects refused because the proxy was dead (ECONNREFUSED).
    ProxyDownClosed,
    /// Connects let through because the proxy was dead and the workload is `open`.
    ProxyDownOpen,
    /// Connects refused because a worker of the proxy hung (ECONNREFUSED).
    ProxyHungClosed,
    /// Connects let through because a worker of the proxy hung and the workload is `open`.
    ProxyHungOpen,
    /// Events that found the ring buffer full: the denial held, its log line is missing.
    EventsLost,
    /// Flow entries that could not be written; the proxy resets such a connection.
    FlowWriteFailed,
    /// Connects sent to an endpoint of a balanced service port.
    Balanced,
    /// Connects refused because no endpoint was ready for them (ECONNREFUSED).
    NoEndpoint,
    /// Connects refused because the service changed twice while it was read (ECONNREFUSED).
    ServiceChanged,
    /// Balanced connects and connections whose end found its ring buffer full:
    /// they are missing in the metrics of connections and in the log.
    EndingsLost,
    /// UDP connects and addressed datagrams of enrolled workloads that were let through untouched.
    UdpDirect,
    /// The same, sent to an endpoint of a service port.
    UdpBalanced,
    /// The same, denied by policy (EPERM).
    UdpDenied,
    /// The same, refused because no endpoint was ready for them (ECONNREFUSED).
    UdpNoEndpoint,
    /// Talks of UDP sockets that were forgotten for newer ones of the same socket.
    UdpForgotten,
    /// Connected UDP sockets that found the table of them full: they are not woken
    /// when their endpoint dies.
    UdpUnwatched,
    /// Connections on this node whose two sockets hand bytes to each other.
    Accelerated,
    /// Connections of workloads that accelerate which TCP carries, whole or one way:
    /// their other end is elsewhere or does not take part, or bytes came too early.
    AccelerationPassed,
    /// Sockets that the kernel did not let take part.
    AccelerationRefused,
}

impl Counter {
    /// Every counter, in index order.
    pub const ALL: [Self; 24] = [
        Self::Direct,
        Self::Proxied,
        Self::Denied,
        Self::QuotaExceeded,
        Self::TableFull,
        Self::ProxyDownClosed,
        Self::ProxyDownOpen,
        Self::ProxyHungClosed,
        Self::ProxyHungOpen,
        Self::EventsLost,
        Self::FlowWriteFailed,
        Self::Balanced,
        Self::NoEndpoint,
        Self::ServiceChanged,
        Self::EndingsLost,
        Self::UdpDirect,
        Self::UdpBalanced,
        Self::UdpDenied,
        Self::UdpNoEndpoint,
        Self::UdpForgotten,
        Self::UdpUnwatched,
        Self::Accelerated,
        Self::AccelerationPassed,
        Self::AccelerationRefused,
    ];

    /// The label value of this counter in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxied => "proxied",
            Self::Denied => "denied",
            Self::QuotaExceeded => "quota_exceeded",
            Self::TableFull => "table_full",
            Self::ProxyDownClosed => "proxy_down_closed",
            Self::ProxyDownOpen => "proxy_down_open",
            Self::ProxyHungClosed => "proxy_hung_closed",
            Self::ProxyHungOpen => "proxy_hung_open",
            Self::EventsLost => "events_lost",
            Self::FlowWriteFailed => "flow_write_failed",
            Self::Balanced => "balanced",
            Self::NoEndpoint => "no_endpoint",
            Self::ServiceChanged => "service_changed",
            Self::EndingsLost => "endings_lost",
            Self::UdpDirect => "udp_direct",
            Self::UdpBalanced => "udp_balanced",
            Self::UdpDenied => "udp_denied",
            Self::UdpNoEndpoint => "udp_no_endpoint",
            Self::UdpForgotten => "udp_forgotten",
            Self::UdpUnwatched => "udp_unwatched",
            Self::Accelerated => "accelerated",
            Self::AccelerationPassed => "acceleration_passed",
            Self::AccelerationRefused => "acceleration_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_index_order() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
        }
    }
}
