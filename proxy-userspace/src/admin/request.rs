//! What a request asks for: its path, its query, its preconditions.
//!
//! Must never let an unknown parameter pass: a misspelt `dryRun` would write.

use hyper::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, StatusCode};

use super::problem::Problem;
use crate::config::{Kind, ObjectName};
use crate::control::Expect;

/// Parameters of one request; more is no request of ours.
const PARAMETERS_MAX: usize = 64;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// All objects of a kind.
    List(Kind),
    /// One object.
    Object(Kind, ObjectName),
    /// Many documents at once.
    Apply,
    /// The configurations that were in force.
    History,
    /// Back to one of them.
    Undo,
    /// The daemon.
    Status,
    /// What happens to a connection.
    Explain,
    /// The workloads of this node.
    Workloads,
    /// The connections that a workload dialled before it was enrolled.
    Older(ObjectName),
    /// Who calls whom.
    Graph,
    /// What happens now.
    Tap,
}

impl Route {
    /// What `path` names; 404 if nothing.
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        let nothing = || {
            let detail = format!(
                "{path:?} names nothing here: see docs/admin-api.md for the paths under /v1/"
            );
            Problem::new(StatusCode::NOT_FOUND, detail)
        };
        let rest = path.strip_prefix("/v1/").ok_or_else(nothing)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            ["apply"] => Ok(Self::Apply),
            ["history"] => Ok(Self::History),
            ["undo"] => Ok(Self::Undo),
            ["status"] => Ok(Self::Status),
            ["explain"] => Ok(Self::Explain),
            ["workloads"] => Ok(Self::Workloads),
            ["graph"] => Ok(Self::Graph),
            ["tap"] => Ok(Self::Tap),
            ["workloads", namespace, name, "older"] => {
                Ok(Self::Older(ObjectName::new(namespace, name)))
            }
            [kind] => Ok(Self::List(parse_kind(kind)?)),
            [kind, namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(
                Self::Object(parse_kind(kind)?, ObjectName::new(namespace, name)),
            ),
            _ => Err(nothing()),
        }
    }

    /// The methods that it takes.
    pub(super) fn methods(&self) -> &'static [Method] {
        match self {
            Self::Object(..) => &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE],
            Self::Apply | Self::Undo => &[Method::POST],
            Self::Older(_) => &[Method::DELETE],
            _ => &[Method::GET],
        }
    }
}

fn parse_kind(text: &str) -> Result<Kind, Problem> {
    text.parse::<Kind>()
        .map_err(|error| Problem::new(StatusCode::NOT_FOUND, format!("no such path: {error}")))
}

/// The query of a request. Every parameter must be taken before [`Self::finish`].
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of `query`.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let pairs: Vec<_> = pairs.into_owned().take(PARAMETERS_MAX + 1).collect();
        if pairs.len() > PARAMETERS_MAX {
            return Err(bad(format!("more than {PARAMETERS_MAX} parameters")));
        }
        Ok(Self(pairs))
    }

    /// Every value of `name`.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<String> {
        self.0
            .extract_if(.., |(key, _)| key == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of `name`, which may be given once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.take_all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(bad(format!("{name} is given more than once"))),
        }
    }

    /// The value of `name` as a `T`.
    pub(super) fn take_parsed<T>(&mut self, name: &str) -> Result<Option<T>, Problem>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let parse = |value: String| {
            value
                .parse()
                .map_err(|error| bad(format!("{name}={value:?}: {error}")))
        };
        self.take(name)?.map(parse).transpose()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad(format!("there is no parameter {name:?} here"))),
        }
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// What `If-Match` and `If-None-Match` ask of the object that is written.
pub(super) fn expectation(headers: &HeaderMap) -> Result<Expect, Problem> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default().trim())
    };
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Anything),
        (None, Some("*")) => Ok(Expect::Absent),
        (Some("*"), None) => Ok(Expect::Present),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.filter(|version| !version.contains('"'));
            let wanted = "If-Match takes one quoted version, as the ETag of a GET shows it, or *";
            version
                .map(|version| Expect::Version(version.to_owned()))
                .ok_or_else(|| bad(wanted.to_owned()))
        }
        (None, Some(_)) => Err(bad("If-None-Match takes only * here".to_owned())),
        (Some(_), Some(_)) => Err(bad(
            "If-Match and If-None-Match together ask for nothing".to_owned()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_say() {
        let name = ObjectName::new("shop", "svcb");
        for (path, route) in [
            ("/v1/routerule", Route::List(Kind::RouteRule)),
            (
                "/v1/RouteRule/shop/svcb",
                Route::Object(Kind::RouteRule, name),
            ),
            ("/v1/workload", Route::List(Kind::Workload)),
            ("/v1/workloads", Route::Workloads),
            ("/v1/apply", Route::Apply),
        ] {
            assert_eq!(Route::parse(path).unwrap(), route, "{path}");
        }
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/status",
            "/v1/pod",
            "/v1/service/shop",
            "/v1/service//x",
            "/v1/a/b/c/d",
        ] {
            assert_eq!(Route::parse(path).unwrap_err().status, 404, "{path}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_refused() {
        let mut query = Query::parse(Some("dryrun=true&reason=a%20b&header=x&header=y")).unwrap();
        assert_eq!(query.take("dryRun").unwrap(), None);
        assert_eq!(query.take("reason").unwrap().as_deref(), Some("a b"));
        assert_eq!(query.take_all("header"), ["x", "y"]);
        assert_eq!(query.finish().unwrap_err().status, 400);
    }

    #[test]
    fn preconditions_are_understood_or_refused() {
        let parse = |name, value: &str| {
            expectation(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
        };
        assert_eq!(
            parse(IF_MATCH, "\"7\"").unwrap(),
            Expect::Version("7".into())
        );
        assert_eq!(parse(IF_MATCH, "*").unwrap(), Expect::Present);
        assert_eq!(parse(IF_NONE_MATCH, "*").unwrap(), Expect::Absent);
        for (name, value) in [
            (IF_MATCH, "7"),
            (IF_MATCH, "\"7\", \"8\""),
            (IF_NONE_MATCH, "\"7\""),
        ] {
            assert_eq!(parse(name, value).unwrap_err().status, 400, "{value}");
        }
    }
}
