//! What every document has around its kind: `apiVersion`, `kind`, and the
//! decision whether it is ours at all.

use std::sync::Arc;

use super::super::Kind;
use super::super::node::Node;
use super::super::object::Object;
use super::super::store::ResourceVersion;
use super::metadata::{Scope, metadata};
use super::{At, Fields, LATER, Report, egress, mesh, route, service, workload};

/// An object, and where it was found.
pub(in super::super) struct Found {
    pub(in super::super) object: Object,
    pub(in super::super) version: Option<ResourceVersion>,
    /// Within its document; a `List` holds many.
    pub(in super::super) path: String,
}

/// Items of a `List`: as many as there may be workloads.
const LIST_MAX: usize = 100_000;

/// How deep one `List` may hold another.
const LISTS_MAX: usize = 3;

const WEIR: &str = "weir.dev/v1";
const ISTIO: &str = "config.istio.io/v1alpha2";

/// Decodes one document: an object, a list of them, or something that is not ours.
pub(in super::super) fn document(node: &Node, report: &Report) -> Vec<Found> {
    let mut found = Vec::new();
    item(&At::root(node, report), LISTS_MAX, &mut found);
    found
}

fn item(at: &At<'_>, lists: usize, found: &mut Vec<Found>) {
    if !matches!(at.node, Node::Map(_)) {
        at.wrong::<()>("a map with apiVersion, kind, metadata and spec");
        return;
    }
    let api_version = at
        .node
        .get("apiVersion")
        .and_then(Node::as_str)
        .unwrap_or_default();
    let kind = at
        .node
        .get("kind")
        .and_then(Node::as_str)
        .unwrap_or_default();
    match classify(api_version, kind) {
        Class::List if lists > 0 => list(at, lists - 1, found),
        Class::List => drop(at.wrong::<()>("lists within lists only three deep")),
        Class::Foreign => at.warn(format!("{kind} of {api_version} is not weir's, left out")),
        Class::Later => {
            let kind = at.node.get("kind").unwrap_or(at.node);
            at.field("kind", kind)
                .wrong::<()>(format!("no DestinationPolicy: {LATER}"));
        }
        Class::Ours(kind) => ours(at, kind, found),
        Class::Unclear => unclear(at),
    }
}

enum Class {
    List,
    /// Not weir's; an apply of a whole folder must be able to pass it by.
    Foreign,
    /// Of the design, not of this version.
    Later,
    Ours(Kind),
    /// Meant for weir, as it seems, but not by a name that it knows.
    Unclear,
}

fn classify(api_version: &str, kind: &str) -> Class {
    let ours = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let known_group = matches!(group, "weir.dev" | "config.istio.io");
    match (kind, ours) {
        _ if api_version.is_empty() || kind.is_empty() => Class::Unclear,
        ("List" | "ServiceList", _) if api_version == "v1" => Class::List,
        ("DestinationPolicy", _) => Class::Later,
        // Others have kinds of these names too.
        (_, Some(Kind::Service | Kind::Workload)) if !group.is_empty() && !known_group => {
            Class::Foreign
        }
        (_, Some(ours)) => Class::Ours(ours),
        _ if group == "weir.dev" => Class::Unclear,
        _ => Class::Foreign,
    }
}

fn list(at: &At<'_>, lists: usize, found: &mut Vec<Found>) {
    let Some(mut fields) = at.fields() else {
        return;
    };
    fields.optional("apiVersion");
    fields.optional("kind");
    // What a server says about the list as a whole.
    fields.optional("metadata");
    let items = fields
        .optional("items")
        .and_then(|items| items.items(LIST_MAX));
    fields.finish();
    for at in items.unwrap_or_default() {
        item(&at, lists, found);
    }
}

fn unclear(at: &At<'_>) {
    let Some(mut fields) = at.fields() else {
        return;
    };
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    let expected = format!("one of {}", kinds.join(", "));
    let api_version = fields.required(
        "apiVersion",
        "`weir.dev/v1`, `config.istio.io/v1alpha2`, or `v1` for a Service",
    );
    let kind = fields.required("kind", &expected);
    if let (Some(api_version), Some(kind)) = (&api_version, &kind)
        && api_version.string().is_some_and(|text| !text.is_empty())
    {
        kind.wrong::<()>(expected);
    }
}

fn ours(at: &At<'_>, kind: Kind, found: &mut Vec<Found>) {
    let Some(mut fields) = at.fields() else {
        return;
    };
    let before = at.report.mistakes.borrow().len();
    api_version(&mut fields, kind);
    fields.optional("kind");
    let scope = match kind {
        Kind::Service => Scope::Label,
        Kind::Workload => Scope::Labelled,
        Kind::RouteRule | Kind::EgressRule => Scope::Rule,
        Kind::MeshConfig => Scope::Node,
    };
    let metadata = fields
        .required("metadata", "a map with at least a name")
        .and_then(|at| metadata(&at, scope));
    let spec = fields.required("spec", "a map");
    fields.ignore(&["status"], "server-side state");
    fields.finish();
    let (Some(metadata), Some(spec)) = (metadata, spec) else {
        return;
    };
    let version = metadata.version;
    let object = match kind {
        Kind::Service => service::service(&spec, metadata)
            .map(Arc::new)
            .map(Object::Service),
        Kind::Workload => workload::workload(&spec, metadata)
            .map(Arc::new)
            .map(Object::Workload),
        Kind::RouteRule => route::route_rule(&spec, metadata.name)
            .map(Arc::new)
            .map(Object::RouteRule),
        Kind::EgressRule => egress::egress_rule(&spec, metadata.name)
            .map(Arc::new)
            .map(Object::EgressRule),
        Kind::MeshConfig => mesh::mesh_config(&spec, metadata.name)
            .map(Arc::new)
            .map(Object::MeshConfig),
    };
    debug_assert!(
        object.is_some() || at.report.mistakes.borrow().len() > before,
        "a refusal says why"
    );
    if let Some(object) = object {
        found.push(Found {
            object,
            version,
            path: at.path.text(),
        });
    }
}

fn api_version(fields: &mut Fields<'_>, kind: Kind) {
    let accepted: &[&str] = match kind {
        Kind::Service => &["v1"],
        Kind::RouteRule | Kind::EgressRule => &[WEIR, ISTIO],
        Kind::Workload | Kind::MeshConfig => &[WEIR],
    };
    let expected = format!("{} for a {kind}", accepted.join(" or "));
    if let Some(at) = fields.required("apiVersion", &expected) {
        at.text(&expected, |text| accepted.contains(&text).then_some(()));
    }
}
