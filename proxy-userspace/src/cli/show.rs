//! `weir get`: objects as a table, or as documents.

use serde_json::Value;

use super::args::{GetArgs, Output};
use super::client::Query;
use super::table::Table;
use super::write::object_path;
use super::{Failure, Session};
use crate::admin::wire::List;
use crate::config::{Kind, ObjectName};

/// `weir get`.
pub(super) fn get(session: &mut Session<'_>, args: &GetArgs) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        let object: Value = session.client.get(object_path(
            args.kind,
            &ObjectName::new(&args.namespace, name),
        ))?;
        return match args.output {
            Output::Table => session.print.out(&table(args.kind, &[object], false)),
            output => session.print.structured(&object, output),
        };
    }
    let namespace = (!args.all_namespaces).then_some(&args.namespace);
    let query = Query::new(format!("/v1/{}", args.kind.singular()))
        .with("namespace", namespace)
        .with(
            "labelSelector",
            args.selector.as_ref().map(ToString::to_string),
        );
    let list: List = session.client.get(query)?;
    if args.output != Output::Table {
        return session.print.structured(&list, args.output);
    }
    if list.items.is_empty() {
        let place = match namespace {
            Some(namespace) => format!(" in namespace {namespace}; -A shows every namespace"),
            None => String::new(),
        };
        session
            .print
            .note(&format!("no {}{place}", args.kind.plural()));
        return Ok(());
    }
    session
        .print
        .out(&table(args.kind, &list.items, args.all_namespaces))
}

/// The objects, one a line.
fn table(kind: Kind, objects: &[Value], with_namespace: bool) -> String {
    let columns: &[&str] = match kind {
        Kind::Service => &["ADDRESSES", "PORTS", "SELECTOR"],
        Kind::Workload => &["ADDRESSES", "READY", "ENROLLED", "NODE", "LABELS"],
        Kind::RouteRule => &["DESTINATION", "PRECEDENCE", "MATCH", "ROUTE"],
        Kind::EgressRule => &["DESTINATION", "PORTS", "SOURCE"],
        Kind::MeshConfig => &["EGRESS", "ON-PROXY-DOWN", "ACCESS-LOG", "HEADER-TIMEOUT"],
    };
    let before: &[&str] = if with_namespace {
        &["NAMESPACE", "NAME"]
    } else {
        &["NAME"]
    };
    let mut table = Table::new(&[before, columns].concat());
    for object in objects {
        let metadata = &object["metadata"];
        let mut cells = vec![word(&metadata["name"])];
        if with_namespace {
            cells.insert(0, word(&metadata["namespace"]));
        }
        cells.extend(row(kind, object));
        table.row(cells);
    }
    table.render()
}

fn row(kind: Kind, object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    match kind {
        Kind::Service => vec![
            words(&spec["clusterIPs"]),
            each(&spec["ports"], service_port),
            pairs(&spec["selector"]),
        ],
        Kind::Workload => vec![
            words(&spec["addresses"]),
            word(&spec["ready"]),
            word(&spec["enrolled"]),
            word(&spec["node"]),
            pairs(&object["metadata"]["labels"]),
        ],
        Kind::RouteRule => vec![
            destination(object),
            word(&spec["precedence"]),
            condition(&spec["match"]),
            each(&spec["route"], route),
        ],
        Kind::EgressRule => vec![
            word(&spec["destination"]["service"]),
            each(&spec["ports"], |port| {
                format!("{}/{}", word(&port["port"]), word(&port["protocol"]))
            }),
            source(&spec["source"]),
        ],
        Kind::MeshConfig => ["egress", "onProxyDown", "accessLog", "headerTimeout"]
            .map(|field| word(&spec[field]))
            .into(),
    }
}

/// A string or number as it is; nothing for what is absent.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn words(value: &Value) -> String {
    each(value, word)
}

fn each(value: &Value, show: impl Fn(&Value) -> String) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(show).collect::<Vec<_>>().join(",")
}

fn pairs(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{key}={}", word(value)))
        .collect::<Vec<_>>()
        .join(",")
}

fn service_port(port: &Value) -> String {
    let (number, target) = (word(&port["port"]), word(&port["targetPort"]));
    let protocol = port
        .get("appProtocol")
        .map_or_else(|| "detect".to_owned(), word);
    if target == number || target.is_empty() {
        format!("{number}/{protocol}")
    } else {
        format!("{number}:{target}/{protocol}")
    }
}

/// The service, with its namespace where that is not the rule's own.
fn destination(object: &Value) -> String {
    let destination = &object["spec"]["destination"];
    let (namespace, name) = (&destination["namespace"], word(&destination["name"]));
    if namespace.is_null() || *namespace == object["metadata"]["namespace"] {
        name
    } else {
        format!("{}/{name}", word(namespace))
    }
}

fn condition(value: &Value) -> String {
    let mut parts = vec![source(&value["source"])];
    for (field, compare) in value["request"]["headers"]
        .as_object()
        .into_iter()
        .flatten()
    {
        for (how, text) in compare.as_object().into_iter().flatten() {
            let sign = match how.as_str() {
                "exact" => "=",
                "prefix" => "^=",
                _ => "~=",
            };
            parts.push(format!("{field}{sign}{}", word(text)));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}

fn source(value: &Value) -> String {
    let mut parts = vec![
        word(&value["namespace"]),
        word(&value["name"]),
        pairs(&value["labels"]),
    ];
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        String::new()
    } else {
        format!("from:{}", parts.join("/"))
    }
}

fn route(route: &Value) -> String {
    let labels = pairs(&route["labels"]);
    let weight = route.get("weight").map_or_else(|| "100".to_owned(), word);
    if labels.is_empty() {
        format!("{weight}%")
    } else {
        format!("{weight}%:{labels}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_rule_fits_a_line() {
        let rule = json!({
            "metadata": { "name": "canary", "namespace": "shop" },
            "spec": {
                "destination": { "name": "svcb", "namespace": "shop" },
                "precedence": 2,
                "match": {
                    "source": { "name": "svca", "labels": { "version": "v1" } },
                    "request": { "headers": { "uri": { "prefix": "/pay" }, "cookie": { "regex": "a|b" } } },
                },
                "route": [
                    { "labels": { "version": "v0.1" }, "weight": 50 },
                    { "labels": { "version": "v0.2" }, "weight": 50 },
                ],
            },
        });
        assert_eq!(
            table(Kind::RouteRule, &[rule], true),
            "NAMESPACE   NAME     DESTINATION   PRECEDENCE   MATCH                                        ROUTE\n\
             shop        canary   svcb          2            from:svca/version=v1,cookie~=a|b,uri^=/pay   50%:version=v0.1,50%:version=v0.2\n"
        );
    }

    #[test]
    fn ports_say_where_they_lead_and_how_they_are_treated() {
        let service = json!({
            "metadata": { "name": "svcb" },
            "spec": {
                "clusterIPs": ["10.96.0.2"],
                "ports": [
                    { "port": 80, "targetPort": 8080, "appProtocol": "http" },
                    { "port": 9000, "targetPort": 9000 },
                ],
            },
        });
        let text = table(Kind::Service, &[service], false);
        assert!(
            text.contains("svcb   10.96.0.2   80:8080/http,9000/detect   -\n"),
            "{text}"
        );
    }
}
