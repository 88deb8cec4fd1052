//! nginx: a process for each thread that the others have, below one that only waits.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use testbed::{Pod, Proc};

use super::{Mode, Port, ports};
use crate::workspace;

/// Where Debian's package puts the module that proxies bytes.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Starts it.
pub(super) fn spawn(client: &Pod, file: &str) -> Result<Proc> {
    let program = workspace::command_path("nginx").context("nginx is missing")?;
    client.spawn(&program, &["-c", file])
}

/// Upstream connections kept, no log.
pub(super) fn config(server: IpAddr, threads: usize, dir: &Path) -> String {
    let dir = dir.display();
    let of = |wanted: Mode| {
        let ports = ports().into_iter().filter(move |port| port.mode == wanted);
        ports
            .map(|Port { listen, dial, .. }| match wanted {
                Mode::Http => format!(
                    "    upstream u{listen} {{ server {server}:{dial}; keepalive 256; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://u{listen};
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
"
                ),
                Mode::Bytes => {
                    format!("    server {{ listen {listen}; proxy_pass {server}:{dial}; proxy_half_close on; }}\n")
                }
            })
            .collect::<String>()
    };
    format!(
        "load_module {STREAM};
daemon off;
worker_processes {threads};
pid {dir}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
{http}}}
stream {{
{bytes}}}
",
        http = of(Mode::Http),
        bytes = of(Mode::Bytes),
    )
}
