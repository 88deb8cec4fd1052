//! Headers that mean one connection only (RFC 9110 section 7.6.1), and the
//! upgrade that one of them asks for.

use hyper::Request;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;

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
    strip(request.headers_mut());
    let protocol = protocol?;
    let headers = request.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Some(Upgrade {
        client: hyper::upgrade::on(request),
    })
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
    use super::*;

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
        let mut mentions = request(&[("connection", "close"), ("upgrade", "h2c")]);
        assert!(upgrade(&mut mentions).is_none());
        assert!(mentions.headers().is_empty());
    }
}
