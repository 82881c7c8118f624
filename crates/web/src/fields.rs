//! Header and trailer fields: what is taken off, what is put on, and under which names.
//!
//! Servers behind Curfew do not read names as strictly as HTTP does: CGI, WSGI, Rack and PHP put
//! every character that is no letter or digit on one. So names are compared as the least careful
//! of them reads them.

use curfew_gate::Grant;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::credential;
use super::head::Shape;

/// Whether a field's name, read as carelessly as anything behind Curfew may read it, is `wanted`,
/// which is in lower case with `-` between its words.
fn reads_as(name: &str, wanted: &str) -> bool {
    name.len() == wanted.len() && begins_as(name, wanted)
}

/// Whether a field's name begins with `prefix`, read in the same way.
fn begins_as(name: &str, prefix: &str) -> bool {
    let folded = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'0'..=b'9' => byte,
        b'A'..=b'Z' => byte.to_ascii_lowercase(),
        _ => b'-',
    });
    let mut folded = folded.take(prefix.len());
    name.len() >= prefix.len() && prefix.bytes().all(|byte| folded.next() == Some(byte))
}

/// Fields by which servers learn from a proxy where a request comes from and what it was before.
/// The proxy is Curfew: a client's copies are taken off.
const OF_PROXIES: [&str; 46] = [
    // Who asked, from where.
    "client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-client-host",
    "x-cluster-client-ip",
    "x-coming-from",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-forwarded",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "remote-addr",
    // Which host, scheme and path were asked for: frameworks take the path from these, whatever
    // was recorded.
    "front-end-https",
    "x-host",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
    // What a proxy would do with the answer.
    "x-accel-mapping",
    "x-sendfile-type",
    // `HTTP_PROXY` of CGI programs.
    "proxy",
    "proxy-host",
    "proxy-user",
];

/// Beginnings of such names, and of those by which proxies say who somebody is.
const OF_PROXIES_BEGIN: [&str; 26] = [
    "curfew-",
    "x-forwarded-",
    "auth-request-",
    "cf-access-",
    "remote-user",
    "remote-email",
    "remote-group",
    "remote-name",
    "ssl-client-",
    "tailscale-",
    "x-amzn-oidc-",
    "x-arr-",
    "x-auth-request-",
    "x-auth-user",
    "x-authenticated-",
    "x-authentik-",
    "x-client-cert",
    "x-client-verify",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-pomerium-",
    "x-remote-",
    "x-ssl-",
    "x-vouch-",
    "x-webauth-",
];

/// Fields that mean something to every server. A name that only reads as one of these is not it,
/// and no client needs it: one server would obey it and another would not.
const OF_HTTP: [&str; 17] = [
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "if-match",
    "if-none-match",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-fetch-site",
    "sec-websocket-key",
    "sec-websocket-version",
    "set-cookie",
    "transfer-encoding",
    "user-agent",
];

/// Whether only a gateway may say this to a resource.
fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    OF_PROXIES.iter().any(|own| reads_as(name, own))
        || OF_PROXIES_BEGIN.iter().any(|own| begins_as(name, own))
        || OF_HTTP
            .iter()
            .any(|known| name != *known && reads_as(name, known))
}

/// Whether a field asks the resource to take the request for one of another method.
pub(super) fn is_method_override(name: &HeaderName) -> bool {
    const OVERRIDES: [&str; 7] = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-method",
        "x-http-verb",
        "http-method-override",
        "method-override",
    ];
    OVERRIDES.iter().any(|own| reads_as(name.as_str(), own))
}

/// Whether a field belongs to one connection only (RFC 9110 section 7.6.1).
fn is_of_connection(name: &HeaderName) -> bool {
    const OF_CONNECTION: [&str; 9] = [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    OF_CONNECTION.contains(&name.as_str())
}

/// Whether a field may stand in a trailer. What frames a message, routes it, says who somebody is
/// or how the answer is kept may not (RFC 9110 section 6.5.1), nor what only Curfew may say.
fn is_of_trailer(name: &HeaderName) -> bool {
    const NEVER: [&str; 31] = [
        "age",
        "alt-svc",
        "authorization",
        "cache-control",
        "clear-site-data",
        "content-encoding",
        "content-length",
        "content-location",
        "content-range",
        "content-security-policy",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "host",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "refresh",
        "retry-after",
        "set-cookie",
        "strict-transport-security",
        "trailer",
        "upgrade-insecure-requests",
        "vary",
        "warning",
        "www-authenticate",
        "authentication-info",
    ];
    let text = name.as_str();
    !is_reserved(name)
        && !is_method_override(name)
        && !is_of_connection(name)
        && !begins_as(text, "if-")
        && !begins_as(text, "sec-")
        && !begins_as(text, "access-control-")
        && !NEVER.iter().any(|own| reads_as(text, own))
}

/// Removes the fields whose names `taken` says are to go.
fn remove(headers: &mut HeaderMap, taken: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| taken(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Makes trailers fit to go on, in either direction.
pub(super) fn pass_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| !is_of_trailer(name));
}

/// The comma-separated tokens of a field, in lower case.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

/// Takes off what belongs to one connection, and what `Connection` names as such.
fn strip_connection(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    remove(headers, is_of_connection);
}

/// What the resource is told about who is asking. It can trust every word.
pub(super) struct Trusted<'a> {
    pub(super) grant: &'a Grant,
    pub(super) address: std::net::IpAddr,
    /// The public host with its port where that is not 443.
    pub(super) authority: &'a str,
    pub(super) assertion: Option<HeaderValue>,
}

/// Makes the client's head fit to be sent upstream. `Host`, or what HTTP/2 has in its place, and
/// what frames the body follow when it is known which protocol the upstream speaks.
pub(super) fn to_upstream(head: &mut Parts, shape: Shape, trusted: Trusted<'_>) {
    let headers = &mut head.headers;
    let trailers = tokens(headers, &header::TE).any(|token| token == "trailers");
    strip_connection(headers);
    remove(headers, is_reserved);
    for name in [header::HOST, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    credential::strip(headers, head.version);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if shape == Shape::WebSocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    trusted.put_on(headers);
}

impl Trusted<'_> {
    fn put_on(self, headers: &mut HeaderMap) {
        let roles: Vec<&str> = self.grant.roles.iter().map(|role| role.as_str()).collect();
        let values = [
            ("x-forwarded-for", self.address.to_string()),
            ("x-forwarded-host", self.authority.to_owned()),
            ("x-forwarded-proto", "https".to_owned()),
            ("curfew-subject", self.grant.subject.to_string()),
            ("curfew-roles", roles.join(",")),
            ("curfew-session", self.grant.session.to_string()),
        ];
        for (name, value) in values {
            // All of these are checked names, addresses and hosts: plain ASCII.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        if let Some(assertion) = self.assertion {
            headers.insert("curfew-assertion", assertion);
        }
    }
}

/// Whether an upstream's 101 is the one a WebSocket handshake asks for.
pub(super) fn is_websocket_answer(headers: &HeaderMap) -> bool {
    tokens(headers, &header::UPGRADE).eq(["websocket"])
        && tokens(headers, &header::CONNECTION).any(|token| token == "upgrade")
}

/// Makes an upstream's headers fit to be shown to the client, but for what its cache may do.
pub(super) fn to_client(headers: &mut HeaderMap) {
    strip_connection(headers);
    credential::strip_set_cookies(headers);
    remove(headers, |name| begins_as(name.as_str(), "curfew-"));
    headers.remove(header::SERVER);
    // It would send the browser around the gateway.
    headers.remove(header::ALT_SVC);
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
}

/// One year, as ASVS 3.4.1 asks. Other hosts of the domain are not Curfew's to speak for.
pub(super) const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_compared_as_the_least_careful_server_reads_them() {
        for reserved in [
            "Curfew-Subject",
            "curfew_subject",
            "Curfew.Subject",
            "curfew~subject",
            "Remote_User",
            "REMOTE-USER",
            "X-Remote-User",
            "x_real.ip",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Cluster-Client-IP",
            "X-Original-Method",
            "X|Original|URL",
            "X-Forwarded-Anything",
            "Forwarded",
            "Proxy",
            "Content_Length",
            "Transfer.Encoding",
            "X-WEBAUTH-USER",
        ] {
            assert!(is_reserved(&name(reserved)), "{reserved}");
        }
        for free in [
            "x-mine",
            "X_API_Key",
            "content-length",
            "proxying",
            "x-auth-token",
            "forwarding",
            "curfewed",
        ] {
            assert!(!is_reserved(&name(free)), "{free}");
        }
        for method in [
            "X-HTTP-Method-Override",
            "X_HTTP_Method_Override",
            "x.http.method",
            "X-Method-Override",
        ] {
            assert!(is_method_override(&name(method)), "{method}");
        }
    }

    #[test]
    fn trailers_carry_no_names_of_curfews_and_nothing_that_steers() {
        let mut trailers: HeaderMap = [
            "grpc-status",
            "grpc-message",
            "server-timing",
            "digest",
            "x-checksum",
            "curfew-subject",
            "Curfew.Subject",
            "x-forwarded-for",
            "cookie",
            "set-cookie",
            "set_cookie",
            "authorization",
            "content-length",
            "transfer-encoding",
            "host",
            "x-http-method-override",
            "cache_control",
            "if-match",
            "access-control-allow-origin",
        ]
        .into_iter()
        .map(|text| (name(text), HeaderValue::from_static("1")))
        .collect();
        pass_trailers(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let wanted = [
            "digest",
            "grpc-message",
            "grpc-status",
            "server-timing",
            "x-checksum",
        ];
        assert_eq!(left, wanted);
    }
}
