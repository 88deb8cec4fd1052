//! `RouteRule`.

use super::metadata::{Metadata, label, labels};
use super::{At, LATER, Read, Wrong, all};
use crate::config::name::header_name;
use crate::config::object::{ObjectName, RequestField, Route, RouteRule, SourceMatch, StringMatch};

/// Routes of one rule: more than one percent each cannot be.
const ROUTES_MAX: usize = 100;

/// Headers that one rule may look at.
const HEADERS_MAX: usize = 32;

/// Bytes of a value to compare with.
const VALUE_MAX: usize = 4096;

/// Fields of the design that come later.
pub(super) const REFUSED: &[&str] = &[
    "redirect",
    "rewrite",
    "httpReqTimeout",
    "httpReqRetries",
    "httpFault",
    "l4Fault",
    "mirror",
    "corsPolicy",
    "appendHeaders",
    "websocketUpgrade",
];

pub(super) fn route_rule(at: &At<'_>, metadata: Metadata) -> Read<RouteRule> {
    let Metadata { name, labels, .. } = metadata;
    let mut fields = at.fields()?;
    let own = name.namespace();
    let target = fields.required("destination", "a map with the name of a Service", |at| {
        destination(at, own)
    });
    let precedence = fields.optional("precedence", |at| {
        at.integer(i64::from(i32::MIN)..=i64::from(i32::MAX))
    });
    let condition = fields.optional("match", |at| condition(at, own));
    for refused in REFUSED {
        fields.refuse(refused, LATER);
    }
    let routes = fields.required("route", "a list of labels and weight", |at| {
        routes(at, own, target.as_ref())
    });
    fields.finish();
    let Condition { source, request } = condition?.unwrap_or_default();
    let (destination, precedence, routes) = (target?, precedence?.unwrap_or(0), routes?);
    Ok(RouteRule {
        name,
        labels,
        destination,
        precedence,
        source,
        request,
        routes,
    })
}

fn destination(at: &At<'_>, own_namespace: &str) -> Read<ObjectName> {
    let mut fields = at.fields()?;
    let name = fields.required("name", "the name of a Service", label);
    let namespace = fields.optional("namespace", label);
    fields.refuse(
        "labels",
        "which endpoints get a share is said by `route[].labels`",
    );
    for other in ["domain", "service"] {
        fields.refuse(other, "a Service is given by name and namespace");
    }
    fields.finish();
    Ok(ObjectName::new(namespace?.unwrap_or(own_namespace), name?))
}

#[derive(Default)]
struct Condition {
    source: Option<SourceMatch>,
    request: Vec<(RequestField, StringMatch)>,
}

fn condition(at: &At<'_>, own_namespace: &str) -> Read<Condition> {
    let mut fields = at.fields()?;
    let source = fields.optional("source", |at| source(at, own_namespace));
    let request = fields.optional("request", request);
    for refused in ["tcp", "udp"] {
        fields.refuse(refused, LATER);
    }
    fields.finish();
    Ok(Condition {
        source: source?.flatten(),
        request: request?.unwrap_or_default(),
    })
}

/// `None` if it asks for nothing.
fn source(at: &At<'_>, own_namespace: &str) -> Read<Option<SourceMatch>> {
    let mut fields = at.fields()?;
    let name = fields.optional("name", label);
    let labels = fields.optional("labels", labels);
    for other in ["namespace", "domain", "service"] {
        fields.refuse(
            other,
            "a source is a Service of the rule's namespace, given by name, or labels",
        );
    }
    fields.finish();
    let service = name?.map(|name| ObjectName::new(own_namespace, name));
    let labels = labels?.unwrap_or_default();
    Ok((service.is_some() || !labels.is_empty()).then_some(SourceMatch { service, labels }))
}

fn request(at: &At<'_>) -> Read<Vec<(RequestField, StringMatch)>> {
    let mut fields = at.fields()?;
    let headers = fields.optional("headers", headers);
    fields.finish();
    Ok(headers?.unwrap_or_default())
}

/// In the order of the fields, so that two spellings of one rule are equal.
fn headers(at: &At<'_>) -> Read<Vec<(RequestField, StringMatch)>> {
    let matches = at.entries(HEADERS_MAX)?.map(|(key, at)| {
        let field = request_field(key).map_or_else(
            || at.wrong("`uri`, `method`, `authority`, `scheme` or the name of a header"),
            Ok,
        );
        let value = string_match(&at);
        Ok((field?, value?))
    });
    let mut matches: Vec<_> = all(matches)?;
    matches.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = matches.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        at.complain(format!(
            "each header once, in any case; `{}` is there twice",
            pair[0].0
        ));
    }
    Ok(matches)
}

fn request_field(key: &str) -> Option<RequestField> {
    let name = header_name(key)?;
    Some(match name.as_str() {
        "uri" => RequestField::Uri,
        "method" => RequestField::Method,
        "authority" => RequestField::Authority,
        "scheme" => RequestField::Scheme,
        _ => RequestField::Header(name),
    })
}

fn string_match(at: &At<'_>) -> Read<StringMatch> {
    let mut fields = at.fields()?;
    let given: Vec<_> = ["exact", "prefix", "regex"]
        .into_iter()
        .filter_map(|key| Some((key, fields.find(key)?)))
        .collect();
    fields.finish();
    let [(key, at)] = given.as_slice() else {
        return at.wrong("one of `exact`, `prefix`, `regex`, with a string");
    };
    let short = |text| Some(text).filter(|text: &&str| text.len() <= VALUE_MAX);
    let text = at.text(&format!("a string of at most {VALUE_MAX} bytes"), short)?;
    match *key {
        "exact" => Ok(StringMatch::Exact(text.to_owned())),
        "prefix" => Ok(StringMatch::Prefix(text.to_owned())),
        _ => StringMatch::regex(text).or_else(|error| at.wrong(regex_expected(&error))),
    }
}

fn regex_expected(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            "a regular expression that compiles to at most 256 KiB".into()
        }
        // The library draws the pattern and an arrow; its last line says what is wrong.
        other => {
            let text = other.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            format!("a regular expression (RE2 syntax): {reason}")
        }
    }
}

fn routes(at: &At<'_>, own_namespace: &str, to: Result<&ObjectName, &Wrong>) -> Read<Vec<Route>> {
    let sole = matches!(at.node, super::Node::List(items) if items.len() == 1);
    let routes = at.items(ROUTES_MAX, |at| route(at, sole, own_namespace, to))?;
    if routes.is_empty() {
        return at.wrong("at least one route");
    }
    let sum: u32 = routes.iter().map(|route| route.weight).sum();
    if sum != 100 {
        at.mistake(
            &at.path(),
            format!("weights that sum to {sum}"),
            "weights that sum to 100".into(),
        );
        return Err(Wrong);
    }
    Ok(routes)
}

fn route(
    at: &At<'_>,
    sole: bool,
    own_namespace: &str,
    to: Result<&ObjectName, &Wrong>,
) -> Read<Route> {
    let mut fields = at.fields()?;
    let labels = fields.optional("labels", labels);
    let weight = if sole {
        fields
            .optional("weight", percent)
            .map(|weight| weight.unwrap_or(100))
    } else {
        fields.required("weight", PERCENT, percent)
    };
    let elsewhere = fields.optional("destination", |at| {
        let named = destination(at, own_namespace)?;
        if to.is_ok_and(|to| *to != named) {
            at.complain(format!("no other destination than the rule's: {LATER}"));
        }
        Ok(())
    });
    fields.finish();
    elsewhere?;
    Ok(Route {
        labels: labels?.unwrap_or_default(),
        weight: weight?,
    })
}

const PERCENT: &str = "a whole number from 0 to 100";

fn percent(at: &At<'_>) -> Read<u32> {
    at.integer(0..=100)
}
