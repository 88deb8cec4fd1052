//! UDP: everything that an application does with datagrams, over IPv4, IPv6 and
//! IPv4-mapped addresses.
//!
//! A proxy has no part in UDP, so these cases run under the verdicts that the
//! kernel carries out alone.

pub(super) mod denied;
mod errors;
pub(super) mod far;
mod ground;
mod message;
mod names;
mod options;
mod talk;
mod wait;

use super::Case;

pub(super) use ground::Ground;

/// Cases that stand on a [`Ground`].
macro_rules! on_ground {
    ($($name:literal => $run:path),* $(,)?) => {
        &[$(Case::datagrams(concat!("udp/", $name), |scene| $run(&Ground::new(scene)?))),*]
    };
}

/// What every way does.
pub(super) const CASES: &[Case] = on_ground! {
    "connected" => talk::connected,
    "unconnected" => talk::unconnected,
    "messages" => talk::messages,
    "many" => talk::many,
    "empty" => talk::empty,
    "peek" => talk::peek,
    "large" => talk::large,
    "again" => names::again,
    "bound" => names::bound,
    "bound-while-connected" => names::bound_while_connected,
    "shared-port" => names::shared_port,
    "listed" => names::listed,
    "closed" => errors::closed,
    "closed-unconnected" => errors::closed_unconnected,
    "error-queue" => errors::error_queue,
    "error-queue-connected" => errors::error_queue_connected,
    "poll" => wait::through_life,
    "limits" => wait::limits,
    "epoll-level" => wait::by_level,
    "epoll-edge" => wait::by_edge,
    "shutdown" => wait::shut_down,
    "woken" => wait::woken,
    "packet-info" => options::packet_info,
    "segments" => options::segments,
    "gathered" => options::gathered,
};

/// What has to do with the second device and the routes, over IPv4 alone.
pub(super) const ROUTE_CASES: &[Case] = on_ground! {
    "bound-address" => names::bound_address,
    "source-by-packet-info" => options::source_by_packet_info,
    "devices" => options::devices,
    "unreachable" => errors::unreachable,
    "time-to-live" => errors::time_to_live,
    "mark" => errors::mark,
};
