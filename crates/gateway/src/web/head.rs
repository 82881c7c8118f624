//! The heads of requests and answers: what is refused, what is taken off, what is put on.
//!
//! Everything that two HTTP parsers could read in two ways is refused here, before a session is
//! even looked at: that is what request smuggling lives from.

use curfew_authority::{Aal, Grant};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::credential;

/// The longest method name that is forwarded. RFC 9110's longest has 7 letters, WebDAV's 16.
const METHOD_BYTES_MAX: usize = 32;

/// Why a request is not even looked at. Safe to show to a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unfit {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

impl Unfit {
    pub(super) const fn bad(text: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text,
        }
    }
}

/// What kind of exchange a request opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// A request and an answer.
    Plain,
    /// A WebSocket handshake.
    WebSocket,
}

/// Checks a request head against everything that could be read in two ways.
pub(super) fn check(head: &Parts, host: &str) -> Result<Shape, Unfit> {
    check_target(head, host)?;
    check_framing(head)?;
    if let Some(expect) = head.headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        let text = "the only expectation that is met is 100-continue";
        return Err(Unfit {
            status: StatusCode::EXPECTATION_FAILED,
            text,
        });
    }
    shape(head)
}

fn check_target(head: &Parts, host: &str) -> Result<(), Unfit> {
    if head.method == Method::CONNECT || head.method.as_str().len() > METHOD_BYTES_MAX {
        let text = "this method is not served here";
        return Err(Unfit {
            status: StatusCode::NOT_IMPLEMENTED,
            text,
        });
    }
    // TRACE would show the client the headers that only the resource may see.
    if head.method == Method::TRACE {
        let text = "TRACE is not allowed";
        return Err(Unfit {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text,
        });
    }
    if !head.uri.path().starts_with('/') {
        return Err(Unfit::bad("the request target is not a path"));
    }
    if is_ambiguous(head.uri.path()) {
        return Err(Unfit::bad("the path can be read in two ways"));
    }
    let mut named = 0;
    let authorities = head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let hosts = head
        .headers
        .get_all(header::HOST)
        .iter()
        .map(HeaderValue::as_bytes);
    for authority in authorities.into_iter().chain(hosts) {
        named += 1;
        if !names_host(authority, host) {
            return Err(Unfit::bad("the request names another host"));
        }
    }
    if named == 0 || head.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Unfit::bad("the request must name one host"));
    }
    Ok(())
}

/// Whether `authority` is `host`, alone or with a port.
fn names_host(authority: &[u8], host: &str) -> bool {
    let Some((name, port)) = authority.split_at_checked(host.len()) else {
        return false;
    };
    let port_fits = match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    name.eq_ignore_ascii_case(host.as_bytes()) && port_fits
}

/// Dot segments, backslashes and control characters, plain or percent-encoded. Browsers resolve
/// dot segments before they send; whoever still sends them hopes that policy and resource
/// disagree about the path.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%5c", "%00", "%0a", "%0d", "\\"]
        .iter()
        .any(|text| lower.contains(text));
    let plain = lower.replace("%2e", ".").replace("%2f", "/");
    hidden
        || plain.split('/').any(|segment| {
            let name = segment.split(';').next().unwrap_or(segment);
            matches!(name, "." | "..")
        })
}

fn check_framing(head: &Parts) -> Result<(), Unfit> {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if let Some(coding) = coding {
        let known = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !known || codings.next().is_some() || head.version != Version::HTTP_11 {
            return Err(Unfit::bad("this transfer coding is not accepted"));
        }
        if length.is_some() {
            return Err(Unfit::bad("the request has two lengths"));
        }
    }
    if let Some(length) = length {
        let digits = length.as_bytes();
        let fits = !digits.is_empty() && digits.len() < 20 && digits.iter().all(u8::is_ascii_digit);
        if !fits || lengths.next().is_some() {
            return Err(Unfit::bad("the request has no single length"));
        }
    }
    Ok(())
}

fn shape(head: &Parts) -> Result<Shape, Unfit> {
    let nominated = tokens(&head.headers, &header::CONNECTION).any(|name| name == "upgrade");
    // RFC 9110 section 7.8: without the nomination, and outside HTTP/1.1, it means nothing.
    if !nominated || head.version != Version::HTTP_11 {
        return Ok(Shape::Plain);
    }
    let wanted: Vec<_> = tokens(&head.headers, &header::UPGRADE).collect();
    if wanted.is_empty() {
        return Ok(Shape::Plain);
    }
    if wanted != ["websocket"] {
        let text = "the only upgrade that is served is websocket";
        return Err(Unfit {
            status: StatusCode::NOT_IMPLEMENTED,
            text,
        });
    }
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head
            .headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    let version = head.headers.get(header::SEC_WEBSOCKET_VERSION);
    let key = head
        .headers
        .get_all(header::SEC_WEBSOCKET_KEY)
        .iter()
        .count();
    if head.method != Method::GET || has_body || key != 1 || version.is_none_or(|it| it != "13") {
        return Err(Unfit::bad(
            "this is not a WebSocket handshake of version 13",
        ));
    }
    Ok(Shape::WebSocket)
}

/// The comma-separated tokens of a header, in lower case.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

/// Takes off what belongs to one connection only (RFC 9110 section 7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

/// Headers that only a gateway may set. `_` counts as `-`: CGI and WSGI confuse them.
fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-")
        || name.starts_with("curfew-")
        || matches!(
            name.as_str(),
            // Frameworks take the path from the last two, whatever was recorded.
            "forwarded" | "x-real-ip" | "proxy" | "x-original-url" | "x-rewrite-url"
        )
}

/// Headers with which a framework would treat a recorded read as a write.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// What the resource is told about who is asking. It can trust every word.
pub(super) struct Trusted<'a> {
    pub(super) grant: &'a Grant,
    pub(super) address: std::net::IpAddr,
    /// The public host with its port where that is not 443.
    pub(super) authority: &'a str,
    pub(super) assertion: Option<HeaderValue>,
}

/// Makes the client's headers fit to be sent upstream.
pub(super) fn to_upstream(head: &mut Parts, shape: Shape, trusted: Trusted<'_>) {
    let trailers = tokens(&head.headers, &header::TE).any(|token| token == "trailers");
    strip_hop_by_hop(&mut head.headers);
    let reserved: Vec<HeaderName> = head
        .headers
        .keys()
        .filter(|name| is_reserved(name))
        .cloned()
        .collect();
    for name in reserved {
        head.headers.remove(name);
    }
    if head.method.is_safe() {
        for name in METHOD_OVERRIDES {
            head.headers.remove(name);
        }
    }
    head.headers.remove(header::EXPECT);
    // Set from the public authority when it is known which protocol the upstream speaks.
    head.headers.remove(header::HOST);
    credential::strip(&mut head.headers);
    if trailers {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if shape == Shape::WebSocket {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    trusted.put_on(&mut head.headers);
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

/// Makes an upstream's headers fit to be shown to the client.
pub(super) fn to_client(headers: &mut HeaderMap, status: StatusCode) {
    strip_hop_by_hop(headers);
    credential::strip_set_cookies(headers);
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("curfew-"))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    headers.remove(header::SERVER);
    // It would send the browser around the gateway.
    headers.remove(header::ALT_SVC);
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    // What was shown to one session belongs into no shared cache, and where the resource says
    // nothing into no cache at all (RFC 9111; the strictest of several directives wins).
    if headers.contains_key(header::CACHE_CONTROL) {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    } else if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// One year, as ASVS 3.4.1 asks. Other hosts of the domain are not Curfew's to speak for.
pub(super) const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The name an assurance level has in `acr` values.
pub(super) fn acr(aal: Aal) -> &'static str {
    match aal {
        Aal::One => "aal1",
        Aal::Two => "aal2",
        Aal::Three => "aal3",
    }
}
