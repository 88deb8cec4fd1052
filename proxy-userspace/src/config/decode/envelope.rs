//! What every document has around its kind: `apiVersion`, `kind`, and the
//! decision whether it is ours at all.

use std::hash::BuildHasher as _;
use std::sync::{Arc, LazyLock};

use hashbrown::DefaultHashBuilder;

use super::metadata::{Metadata, Scope, metadata};
use super::{At, Fields, LATER, Read, Report, Wrong, egress, mesh, route, service, workload};
use crate::config::Kind;
use crate::config::node::Node;
use crate::config::object::Object;
use crate::config::store::ResourceVersion;

/// An object, and where it was found.
pub(in crate::config) struct Found {
    pub(in crate::config) object: Object,
    /// Of its kind and name. Taken here, where they are at hand: to whoever looks
    /// at a hundred thousand objects after another, each is far away.
    pub(in crate::config) hash: u64,
    pub(in crate::config) version: Option<ResourceVersion>,
    /// Within its document; a `List` holds many.
    pub(in crate::config) path: String,
}

/// The objects of one document. Nearly all hold one: that one takes no list.
#[derive(Default)]
pub(in crate::config) struct Objects {
    first: Option<Found>,
    others: Vec<Found>,
}

impl Objects {
    fn push(&mut self, found: Found) {
        if self.first.is_none() {
            self.first = Some(found);
        } else {
            self.others.push(found);
        }
    }
}

impl IntoIterator for Objects {
    type Item = Found;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Found>, std::vec::IntoIter<Found>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.others)
    }
}

/// Items of a `List`: as many as there may be workloads.
const LIST_MAX: usize = 250_000;

/// How deep one `List` may hold another.
const LISTS_MAX: usize = 3;

/// One for all of [`Found::hash`], seeded anew in each process.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

const WEIR: &str = "weir.dev/v1";
const ISTIO: &str = "config.istio.io/v1alpha2";

/// Decodes one document: an object, a list of them, or something that is not ours.
pub(in crate::config) fn document(node: &Node<'_>, report: &Report) -> Objects {
    let mut found = Objects::default();
    item(&At::root(node, report), LISTS_MAX, &mut found);
    found
}

fn item(at: &At<'_>, lists: usize, found: &mut Objects) {
    if !matches!(at.node, Node::Map(_)) {
        return at.complain("a map with apiVersion, kind, metadata and spec");
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
        Class::List => at.complain("lists within lists only three deep"),
        Class::Foreign => at.warn(format!("{kind} of {api_version} is not weir's, left out")),
        Class::Later => at
            .field("kind", at.node.get("kind").unwrap_or(at.node))
            .complain(format!("no {kind}: {LATER}")),
        Class::Ours(kind) => {
            if let Ok(ours) = ours(at, kind) {
                found.push(ours);
            }
        }
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

fn list(at: &At<'_>, lists: usize, found: &mut Objects) {
    let Ok(mut fields) = at.fields() else { return };
    // What a server says about the list as a whole means nothing here.
    for name in ["apiVersion", "kind", "metadata"] {
        fields.find(name);
    }
    if let Some(items) = fields.find("items") {
        let _reported = items.items(LIST_MAX, |at| {
            item(at, lists, found);
            Ok(())
        });
    }
    fields.finish();
}

/// A document that names no kind, or a kind of weir's that there is not.
fn unclear(at: &At<'_>) {
    let Ok(mut fields) = at.fields() else { return };
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    let expected = format!("one of {}", kinds.join(", "));
    let versions = format!("`{WEIR}`, `{ISTIO}`, or `v1` for a Service");
    let given =
        |at: &At<'_>, expected: &str| at.text(expected, |text| (!text.is_empty()).then_some(()));
    let api_version = fields.required("apiVersion", &versions, |at| given(at, &versions));
    let _reported = fields.required("kind", &expected, |at| match api_version {
        Ok(()) => at.wrong(&*expected),
        Err(Wrong) => given(at, &expected),
    });
}

fn ours(at: &At<'_>, kind: Kind) -> Read<Found> {
    let mut fields = at.fields()?;
    let api_version = api_version(&mut fields, kind);
    fields.find("kind");
    let scope = match kind {
        Kind::Service => Scope::Label,
        Kind::Workload | Kind::RouteRule | Kind::EgressRule => Scope::Subdomain,
        Kind::MeshConfig => Scope::Node,
    };
    let metadata = fields.required("metadata", "a map with at least a name", |at| {
        metadata(at, scope)
    });
    // Mistakes in the spec are reported even where the name is one.
    let version = metadata.as_ref().map_or(None, |metadata| metadata.version);
    let nameless = metadata.is_err();
    let metadata = metadata.unwrap_or_else(|Wrong| Metadata::nameless());
    let spec = fields.required("spec", "a map", |at| match kind {
        Kind::Service => service::service(at, metadata)
            .map(Arc::new)
            .map(Object::Service),
        Kind::Workload => workload::workload(at, metadata)
            .map(Arc::new)
            .map(Object::Workload),
        Kind::RouteRule => route::route_rule(at, metadata)
            .map(Arc::new)
            .map(Object::RouteRule),
        Kind::EgressRule => egress::egress_rule(at, metadata)
            .map(Arc::new)
            .map(Object::EgressRule),
        Kind::MeshConfig => mesh::mesh_config(at, metadata)
            .map(Arc::new)
            .map(Object::MeshConfig),
    });
    fields.ignore(&["status"], "server-side state");
    fields.finish();
    api_version?;
    let object = spec?;
    if nameless {
        Err(Wrong)
    } else {
        Ok(Found {
            hash: HASHER.hash_one((object.kind(), object.name())),
            object,
            version,
            path: at.path().text(),
        })
    }
}

fn api_version(fields: &mut Fields<'_>, kind: Kind) -> Read<()> {
    let (accepted, expected): (&[&str], _) = match kind {
        Kind::Service => (&["v1"], "v1 for a Service"),
        Kind::RouteRule => (
            &[WEIR, ISTIO],
            "weir.dev/v1 or config.istio.io/v1alpha2 for a RouteRule",
        ),
        Kind::EgressRule => (
            &[WEIR, ISTIO],
            "weir.dev/v1 or config.istio.io/v1alpha2 for a EgressRule",
        ),
        Kind::Workload => (&[WEIR], "weir.dev/v1 for a Workload"),
        Kind::MeshConfig => (&[WEIR], "weir.dev/v1 for a MeshConfig"),
    };
    fields.required("apiVersion", expected, |at| {
        at.text(expected, |text| accepted.contains(&text).then_some(()))
    })
}
