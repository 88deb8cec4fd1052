//! Headers that mean one connection only (RFC 9110 section 7.6.1), the upgrade that
//! one of them asks for, and the host of a target that is a whole URI.

use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use proxy_common::Destination;

/// Takes the headers that speak of this connection out of a message.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = tokens(headers)
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in named.into_iter().chain([CONNECTION, UPGRADE]) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// The same of an answer. One that asks for another protocol says which.
pub fn strip_answer<B>(answer: &mut Response<B>) {
    let asks = answer.status() == StatusCode::UPGRADE_REQUIRED;
    let headers = answer.headers_mut();
    let wanted = headers.get(UPGRADE).filter(|_| asks).cloned();
    strip(headers);
    if let Some(protocol) = wanted {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// A target that is a whole URI says which host is meant, whatever the header says
/// (RFC 9112 section 3.2.2): policy and the endpoint see the same one. A client of
/// HTTP/1.0 need not name any: then it is the one that it dialled, since what the
/// endpoint gets is HTTP/1.1.
pub fn settle_host<B>(request: &mut Request<B>, dialled: Destination) {
    let Some(authority) = request.uri().authority() else {
        if request.version() < Version::HTTP_11 && !request.headers().contains_key(HOST) {
            let host = HeaderValue::try_from(dialled.to_string());
            let host = host.expect("an address is a header value");
            request.headers_mut().insert(HOST, host);
        }
        return;
    };
    let port = authority.port();
    let host = match &port {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    let target = request.uri().path_and_query();
    let target = target.filter(|target| target.as_str() != "/").cloned();
    let value = HeaderValue::try_from(host).expect("a host of a URI is a header value");
    request.headers_mut().insert(HOST, value);
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// What a client that wants to leave HTTP (a WebSocket) asked for.
pub struct Upgrade {
    /// Resolves to the client's raw connection.
    pub client: OnUpgrade,
}

/// Takes the connection's headers out of a request, but for those of an
/// upgrade, which is returned.
pub fn upgrade<B>(request: &mut Request<B>) -> Option<Upgrade> {
    if !request.headers().contains_key(CONNECTION) {
        return None;
    }
    let wants = tokens(request.headers()).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(UPGRADE).filter(|_| wants).cloned();
    // To ignore it is allowed (RFC 9110 section 7.8); agreed to, requests would go
    // past routes and host rules.
    let protocol = protocol.filter(|protocol| !offers_http2(protocol));
    strip(request.headers_mut());
    let protocol = protocol?;
    let headers = request.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Some(Upgrade {
        client: hyper::upgrade::on(request),
    })
}

/// Whether the wish is for HTTP/2, maybe among others.
fn offers_http2(protocol: &HeaderValue) -> bool {
    let mut offers = protocol.as_bytes().split(|byte| *byte == b',');
    offers.any(|offer| offer.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn dialled() -> Destination {
        Destination::from(SocketAddr::from(([10, 0, 0, 1], 81)))
    }

    #[test]
    fn a_whole_uri_names_the_host() {
        for (target, host, path) in [
            ("http://a.test/x?y=1", "a.test", "/x?y=1"),
            ("http://a.test", "a.test", "/"),
            ("http://a.test@b.test:81/", "b.test:81", "/"),
            ("http://[fd00::1]:81/", "[fd00::1]:81", "/"),
        ] {
            let mut request = request(&[("host", "c.test")]);
            *request.uri_mut() = target.parse().unwrap();
            settle_host(&mut request, dialled());
            assert_eq!(request.headers().get(HOST).unwrap(), host, "{target}");
            assert_eq!(request.headers().get_all(HOST).iter().count(), 1);
            assert_eq!(request.uri(), path, "{target}");
        }
        let mut plain = request(&[("host", "c.test")]);
        *plain.uri_mut() = Uri::from_static("/x");
        settle_host(&mut plain, dialled());
        assert_eq!(plain.headers().get(HOST).unwrap(), "c.test");
        assert_eq!(plain.uri(), "/x");
    }

    #[test]
    fn who_may_name_no_host_means_the_one_that_was_dialled() {
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        settle_host(&mut old, dialled());
        assert_eq!(old.headers().get(HOST).unwrap(), "10.0.0.1:81");
        let mut named = request(&[("host", "c.test")]);
        *named.version_mut() = Version::HTTP_10;
        settle_host(&mut named, dialled());
        assert_eq!(named.headers().get(HOST).unwrap(), "c.test");
        let mut wrong = request(&[]);
        settle_host(&mut wrong, dialled());
        assert!(
            wrong.headers().is_empty(),
            "that is for the endpoint to say"
        );
    }

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn what_connection_names_stays_on_the_connection() {
        let mut request = request(&[
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("x-public", "1"),
        ]);
        assert!(upgrade(&mut request).is_none());
        assert_eq!(
            request
                .headers()
                .keys()
                .map(HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["x-public"]
        );
    }

    #[test]
    fn an_upgrade_is_passed_on_only_if_connection_says_so() {
        let mut asks = request(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(upgrade(&mut asks).is_some());
        assert_eq!(asks.headers().get(UPGRADE).unwrap(), "websocket");
        for h2c in ["h2c", "websocket, H2C"] {
            let mut asks = request(&[
                ("connection", "upgrade, http2-settings"),
                ("upgrade", h2c),
                ("http2-settings", "AAM"),
            ]);
            assert!(upgrade(&mut asks).is_none());
            assert!(asks.headers().is_empty(), "{h2c}");
        }
        let mut mentions = request(&[("connection", "close"), ("upgrade", "h2c")]);
        assert!(upgrade(&mut mentions).is_none());
        assert!(mentions.headers().is_empty());
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let headers = request(&[("connection", "upgrade, close"), ("upgrade", "websocket")]);
        answer.headers_mut().clone_from(headers.headers());
        strip_answer(&mut answer);
        assert_eq!(answer.headers().get(UPGRADE).unwrap(), "websocket");
        assert_eq!(answer.headers().get(CONNECTION).unwrap(), "upgrade");
    }
}
