//! UDP: everything that an application does with datagrams, over IPv4, IPv6 and
//! IPv4-mapped addresses.
//!
//! A proxy has no part in UDP, so these cases run under the verdicts that the
//! kernel carries out alone.

mod errors;
pub(super) mod far;
mod ground;
mod message;
mod names;
mod options;
mod talk;
mod wait;

use super::Case;
use ground::{Ground, Way};

/// One case for each of the three ways.
macro_rules! each_way {
    ($($name:literal => $run:path),* $(,)?) => {
        &[$(
            Case::datagrams(concat!("udp/", $name), |scene| $run(&Ground::new(scene, Way::V4)?)),
            Case::datagrams(concat!("udp6/", $name), |scene| $run(&Ground::new(scene, Way::V6)?)),
            Case::datagrams(concat!("udp-mapped/", $name), |scene| {
                $run(&Ground::new(scene, Way::Mapped)?)
            }),
        )*]
    };
}

/// What each way does.
pub(super) const CASES: &[Case] = each_way! {
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

/// What has to do with the second device and the routes, which are of IPv4.
pub(super) const ROUTE_CASES: &[Case] = &[
    Case::datagrams("udp/bound-address", |scene| {
        names::bound_address(&Ground::new(scene, Way::V4)?)
    }),
    Case::datagrams("udp/source-by-packet-info", |scene| {
        options::source_by_packet_info(&Ground::new(scene, Way::V4)?)
    }),
    Case::datagrams("udp/devices", |scene| {
        options::devices(&Ground::new(scene, Way::V4)?)
    }),
    Case::datagrams("udp/unreachable", |scene| {
        errors::unreachable(&Ground::new(scene, Way::V4)?)
    }),
    Case::datagrams("udp/time-to-live", |scene| {
        errors::time_to_live(&Ground::new(scene, Way::V4)?)
    }),
    Case::datagrams("udp/mark", |scene| {
        errors::mark(&Ground::new(scene, Way::V4)?)
    }),
];
