//! The `spec` of services and workloads.

use std::borrow::Cow;
use std::net::IpAddr;

use proxy_common::Acceleration;
use serde::Serialize;

use crate::config::object::{AppProtocol, Labels, Service, ServicePort, Workload};

#[derive(Serialize)]
pub(super) struct ServiceSpec<'a> {
    #[serde(rename = "clusterIPs", skip_serializing_if = "<[_]>::is_empty")]
    cluster_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    ports: Vec<PortOfService<'a>>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    selector: &'a Labels,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PortOfService<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    port: u16,
    target_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_protocol: Option<&'a str>,
}

impl<'a> ServiceSpec<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        let Service {
            name: _,
            labels: _,
            cluster_ips,
            network,
            ports,
            selector,
        } = service;
        Self {
            cluster_ips,
            network,
            ports: ports.iter().map(PortOfService::of).collect(),
            selector,
        }
    }
}

impl<'a> PortOfService<'a> {
    fn of(port: &'a ServicePort) -> Self {
        let ServicePort {
            name,
            port,
            target_port,
            protocol,
        } = port;
        let (protocol, app_protocol) = match protocol {
            AppProtocol::Detect => (None, None),
            AppProtocol::Http => (None, Some("http")),
            AppProtocol::Tcp => (None, Some("tcp")),
            AppProtocol::Udp => (Some("UDP"), None),
        };
        Self {
            name: name.as_deref(),
            port: port.0,
            target_port: target_port.0,
            protocol,
            app_protocol,
        }
    }
}

#[derive(Serialize)]
pub(super) struct WorkloadSpec<'a> {
    addresses: &'a [IpAddr],
    ready: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accelerate: Option<&'a str>,
}

impl<'a> WorkloadSpec<'a> {
    pub(super) fn of(workload: &'a Workload) -> Self {
        let Workload {
            name: _,
            labels: _,
            addresses,
            ready,
            network,
            node,
            local,
            accelerate,
        } = workload;
        let local = local.as_ref();
        Self {
            addresses,
            ready: *ready,
            network,
            node: node.as_deref(),
            netns: local.map(|local| local.netns.to_string_lossy()),
            cgroup: local.map(|local| local.cgroup.to_string_lossy()),
            enrolled: local.map(|local| local.enrolled),
            accelerate: accelerate.map(Acceleration::name),
        }
    }
}
