//! Envoy: the HTTP connection manager for requests, `tcp_proxy` for bytes.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{Pod, Proc};

use super::{Mode, Port, ports};
use crate::setup::ENVOY;

/// Starts it.
pub(super) fn spawn(client: &Pod, file: &str, threads: usize) -> Result<Proc> {
    let program = ENVOY.find().context("Envoy is missing")?;
    let threads = threads.to_string();
    let args = ["-c", file, "--concurrency", &threads, "-l", "error"];
    client.spawn(
        &program,
        &[&args[..], &["--disable-hot-restart", "--mode", "serve"]].concat(),
    )
}

/// No log, no admin port, no retries.
pub(super) fn config(server: IpAddr) -> String {
    let listeners = ports().map(listener);
    let clusters = ports().map(|port| cluster(port, server));
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } }).to_string()
}

fn name(port: Port) -> String {
    format!("port-{}", port.listen)
}

fn listener(port: Port) -> Value {
    let cluster = name(port);
    let filter = match port.mode {
        Mode::Http => json!({
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": cluster,
                "generate_request_id": false,
                "route_config": {
                    "virtual_hosts": [{
                        "name": cluster,
                        "domains": ["*"],
                        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": cluster } }],
                    }],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": extension("filters.http.router.v3.Router") },
                }],
            },
        }),
        Mode::Bytes => json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": extension("filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": cluster,
                "cluster": cluster,
            },
        }),
    };
    json!({
        "name": cluster,
        "address": address("0.0.0.0", port.listen),
        "filter_chains": [{ "filters": [filter] }],
    })
}

fn cluster(port: Port, server: IpAddr) -> Value {
    let name = name(port);
    let endpoint = json!({ "endpoint": { "address": address(&server.to_string(), port.dial) } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        // Its defaults would refuse what the loads open at one time.
        "circuit_breakers": {
            "thresholds": [{ "max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384 }],
        },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
