//! `RouteRule`.

use super::super::name::header_name;
use super::super::object::{
    Labels, ObjectName, RequestField, Route, RouteRule, SourceMatch, StringMatch,
};
use super::metadata::{labels, namespace, service_name};
use super::{At, LATER};

/// Routes of one rule: more than one percent each cannot be.
const ROUTES_MAX: usize = 100;

/// Headers that one rule may look at.
const HEADERS_MAX: usize = 32;

/// Characters of a value to compare with.
const VALUE_MAX: usize = 4096;

/// Fields of the design that come later.
const REFUSED: &[&str] = &[
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

pub(super) fn route_rule(at: &At<'_>, name: ObjectName) -> Option<RouteRule> {
    let mut fields = at.fields()?;
    let destination = fields
        .required("destination", "a map with the name of a Service")
        .and_then(|at| destination(&at, &name.namespace));
    let precedence = fields.optional("precedence").map_or(Some(0), |at| {
        at.integer(i64::from(i32::MIN)..=i64::from(i32::MAX))
    });
    let condition = match fields.optional("match") {
        None => Some(Condition::default()),
        Some(at) => condition(&at, &name.namespace),
    };
    for refused in REFUSED {
        fields.refuse(refused, LATER);
    }
    let routes = fields
        .required("route", "a list of labels and weight")
        .and_then(|at| routes(&at, &name.namespace, destination.as_ref()));
    fields.finish();
    let Condition { source, request } = condition?;
    Some(RouteRule {
        name,
        destination: destination?,
        precedence: precedence?,
        source,
        request,
        routes: routes?,
    })
}

fn destination(at: &At<'_>, own_namespace: &str) -> Option<ObjectName> {
    let mut fields = at.fields()?;
    let name = fields
        .required("name", "the name of a Service")
        .and_then(|at| service_name(&at));
    let namespace = fields
        .optional("namespace")
        .map_or(Some(own_namespace), |at| namespace(&at));
    fields.refuse(
        "labels",
        "which endpoints get a share is said by `route[].labels`",
    );
    for other in ["domain", "service"] {
        fields.refuse(other, "a Service is given by name and namespace");
    }
    fields.finish();
    Some(ObjectName::new(namespace?, name?))
}

#[derive(Default)]
struct Condition {
    source: Option<SourceMatch>,
    request: Vec<(RequestField, StringMatch)>,
}

fn condition(at: &At<'_>, own_namespace: &str) -> Option<Condition> {
    let mut fields = at.fields()?;
    let source = fields
        .optional("source")
        .map_or(Some(None), |at| source(&at, own_namespace));
    let request = fields
        .optional("request")
        .map_or(Some(Vec::new()), |at| request(&at));
    for refused in ["tcp", "udp"] {
        fields.refuse(refused, LATER);
    }
    fields.finish();
    Some(Condition {
        source: source?,
        request: request?,
    })
}

/// `Some(None)` if it asks for nothing.
fn source(at: &At<'_>, own_namespace: &str) -> Option<Option<SourceMatch>> {
    let mut fields = at.fields()?;
    let service = fields.optional("name").map_or(Some(None), |at| {
        service_name(&at).map(|name| Some(ObjectName::new(own_namespace, name)))
    });
    let labels = fields
        .optional("labels")
        .map_or(Some(Labels::new()), |at| labels(&at));
    for other in ["namespace", "domain", "service"] {
        fields.refuse(
            other,
            "a source is a Service of the rule's namespace, given by name, or labels",
        );
    }
    fields.finish();
    let (service, labels) = (service?, labels?);
    Some((service.is_some() || !labels.is_empty()).then_some(SourceMatch { service, labels }))
}

fn request(at: &At<'_>) -> Option<Vec<(RequestField, StringMatch)>> {
    let mut fields = at.fields()?;
    let headers = fields
        .optional("headers")
        .map_or(Some(Vec::new()), |at| headers(&at));
    fields.finish();
    headers
}

/// In the order of the fields, so that two spellings of one rule are equal.
fn headers(at: &At<'_>) -> Option<Vec<(RequestField, StringMatch)>> {
    let entries = at.entries()?;
    if entries.len() > HEADERS_MAX {
        return at.wrong(format!("at most {HEADERS_MAX} headers"));
    }
    let mut headers: Vec<(RequestField, StringMatch)> = Vec::new();
    let mut whole = true;
    for (key, at) in entries {
        let Some(name) = header_name(key) else {
            at.wrong::<()>("`uri`, `method`, `authority`, `scheme` or the name of a header");
            whole = false;
            continue;
        };
        let field = match name.as_str() {
            "uri" => RequestField::Uri,
            "method" => RequestField::Method,
            "authority" => RequestField::Authority,
            "scheme" => RequestField::Scheme,
            _ => RequestField::Header(name),
        };
        if headers.iter().any(|(other, _)| *other == field) {
            at.wrong::<()>("each header once; names differ by more than case");
            whole = false;
        }
        match string_match(&at) {
            Some(value) => headers.push((field, value)),
            None => whole = false,
        }
    }
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    whole.then_some(headers)
}

fn string_match(at: &At<'_>) -> Option<StringMatch> {
    let mut fields = at.fields()?;
    let given: Vec<_> = ["exact", "prefix", "regex"]
        .into_iter()
        .filter_map(|key| Some((key, fields.optional(key)?)))
        .collect();
    fields.finish();
    let [(key, at)] = given.as_slice() else {
        return at.wrong("one of `exact`, `prefix`, `regex`, with a string");
    };
    let text = at.text(&format!("a string of at most {VALUE_MAX} bytes"), |text| {
        (text.len() <= VALUE_MAX).then_some(text)
    })?;
    match *key {
        "exact" => Some(StringMatch::Exact(text.to_owned())),
        "prefix" => Some(StringMatch::Prefix(text.to_owned())),
        _ => StringMatch::regex(text)
            .map_err(|error| at.wrong::<()>(regex_expected(&error)))
            .ok(),
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
                .trim_start_matches("error: ")
                .to_owned();
            format!("a regular expression (RE2 syntax): {reason}")
        }
    }
}

fn routes(at: &At<'_>, own_namespace: &str, to: Option<&ObjectName>) -> Option<Vec<Route>> {
    let items = at.items(ROUTES_MAX)?;
    if items.is_empty() {
        return at.wrong("at least one route");
    }
    let sole = items.len() == 1;
    let routes: Vec<_> = items
        .iter()
        .map(|at| route(at, sole, own_namespace, to))
        .collect();
    let routes: Vec<Route> = routes.into_iter().collect::<Option<_>>()?;
    let sum: u32 = routes.iter().map(|route| route.weight).sum();
    if sum != 100 {
        at.mistake(
            &at.path,
            format!("weights that sum to {sum}"),
            "weights that sum to 100".into(),
        );
        return None;
    }
    Some(routes)
}

fn route(at: &At<'_>, sole: bool, own_namespace: &str, to: Option<&ObjectName>) -> Option<Route> {
    let mut fields = at.fields()?;
    let labels = fields
        .optional("labels")
        .map_or(Some(Labels::new()), |at| labels(&at));
    let weight = if sole {
        fields
            .optional("weight")
            .map_or(Some(100), |at| at.integer(0..=100))
    } else {
        fields
            .required("weight", "a whole number from 0 to 100")
            .and_then(|at| at.integer(0..=100))
    };
    let elsewhere = fields.optional("destination").is_some_and(|at| {
        let named = destination(&at, own_namespace);
        let differs = named.is_some() && to.is_some() && named.as_ref() != to;
        if differs {
            at.wrong::<()>(format!(
                "the rule's own destination: another one {}",
                LATER.trim_start_matches("it ")
            ));
        }
        named.is_none() || differs
    });
    fields.finish();
    if elsewhere {
        None
    } else {
        Some(Route {
            labels: labels?,
            weight: weight?,
        })
    }
}
