//! `MeshConfig`.

use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};

use super::super::name::duration;
use super::super::object::{MeshConfig, ObjectName};
use super::{At, LATER};

/// What `headerTimeout` may be: less would refuse honest clients, more would
/// let a slow one hold its place for good.
const HEADER_TIMEOUT_MS: std::ops::RangeInclusive<u128> = 1..=3_600_000;

pub(super) fn mesh_config(at: &At<'_>, name: ObjectName) -> Option<MeshConfig> {
    let mut fields = at.fields()?;
    let egress = fields.optional("egress").map_or(Some(None), |at| {
        at.word(&[
            ("deny", EgressDefault::Deny),
            ("allow", EgressDefault::Allow),
            ("audit", EgressDefault::Audit),
        ])
        .map(Some)
    });
    let on_proxy_down = fields.optional("onProxyDown").map_or(Some(None), |at| {
        at.word(&[("closed", OnProxyDown::Closed), ("open", OnProxyDown::Open)])
            .map(Some)
    });
    let access_log = fields
        .optional("accessLog")
        .map_or(Some(None), |at| at.boolean().map(Some));
    let header_timeout = fields
        .optional("headerTimeout")
        .map_or(Some(None), |at| header_timeout(&at).map(Some));
    fields.refuse("tracing", LATER);
    fields.finish();
    Some(MeshConfig {
        name,
        egress: egress?,
        on_proxy_down: on_proxy_down?,
        access_log: access_log?,
        header_timeout: header_timeout?,
    })
}

fn header_timeout(at: &At<'_>) -> Option<Duration> {
    at.text("a duration from 1ms to 1h, e.g. `10s` or `500ms`", |text| {
        duration(text).filter(|duration| HEADER_TIMEOUT_MS.contains(&duration.as_millis()))
    })
}
