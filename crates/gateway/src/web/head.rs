//! The heads of requests: what is refused, and what is asked for.
//!
//! Everything that two HTTP parsers could read in two ways is refused here, before a session is
//! even looked at: that is what request smuggling lives from.

use curfew_entry::{Aal, Verb};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use url::form_urlencoded;

use super::fields::{is_method_override, tokens};

/// The longest method name that is forwarded. RFC 9110's longest has 7 letters, WebDAV's 16.
const METHOD_BYTES_MAX: usize = 32;

/// Why a request is not even looked at. Safe to show to a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unfit {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

impl Unfit {
    /// The body did not come in time.
    pub(super) const STALLED: Self = Self {
        status: StatusCode::REQUEST_TIMEOUT,
        text: "the body of the request came too slowly",
    };

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

/// Dot segments, however their dots and slashes are written, plain backslashes and zero bytes.
/// Browsers resolve dot segments before they send; whoever still sends them hopes that Curfew and
/// the resource disagree about the path. Some servers take a backslash for a slash, and what
/// stands behind `;` for no part of the name.
fn is_ambiguous(path: &str) -> bool {
    if path.contains('\\') || path.contains("%00") {
        return true;
    }
    let lower = path.to_ascii_lowercase();
    let plain = lower.replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/").replace("%3b", ";");
    plain.split('/').any(|segment| {
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
    // RFC 9110 section 7.8: without the nomination, and outside HTTP/1.1, it means nothing; and a
    // server may ignore what it is offered, so everything but a WebSocket goes on as it would
    // without the offer.
    let offered = tokens(&head.headers, &header::UPGRADE);
    if !nominated || head.version != Version::HTTP_11 || !offered.eq(["websocket"]) {
        return Ok(Shape::Plain);
    }
    let version = head.headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_some_and(|version| version != "13") {
        // RFC 6455 section 4.4. The answer names the version that is served.
        return Err(Unfit {
            status: StatusCode::UPGRADE_REQUIRED,
            text: "the only version of WebSocket that is served is 13",
        });
    }
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head
            .headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    let keys = head.headers.get_all(header::SEC_WEBSOCKET_KEY);
    let whole = keys.iter().count() == 1 && version.is_some();
    if head.method != Method::GET || has_body || !whole {
        return Err(Unfit::bad(
            "this is not a WebSocket handshake of version 13",
        ));
    }
    if asked_instead(head)?.is_some() {
        return Err(Unfit::bad("a WebSocket handshake has no other method"));
    }
    Ok(Shape::WebSocket)
}

/// What a request asks to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    /// As the log names it.
    pub(super) method: Method,
}

/// What a request asks to be done, as the resource may take it: where a field or the query names
/// another method, that one counts if it does more.
pub(super) fn asked(head: &Parts, shape: Shape) -> Result<Asked, Unfit> {
    if shape == Shape::WebSocket {
        return Ok(Asked {
            verb: Verb::WebConnect,
            method: head.method.clone(),
        });
    }
    let instead = asked_instead(head)?.filter(|method| !method.is_safe());
    let verb = match &instead {
        None if head.method.is_safe() => Verb::WebRead,
        _ => Verb::WebWrite,
    };
    Ok(Asked {
        verb,
        method: instead.unwrap_or_else(|| head.method.clone()),
    })
}

/// The method that a request names besides its own, as frameworks take it from
/// `X-HTTP-Method-Override` and the like, or from `_method` in the query.
fn asked_instead(head: &Parts) -> Result<Option<Method>, Unfit> {
    const IN_QUERY: [&str; 3] = ["_method", "_httpmethod", "x-http-method-override"];
    /// What frameworks let a form ask for. Other values of `_method` are the resource's own.
    const OF_FORMS: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let unfit = || Unfit::bad("the request names a method that is none");
    let method = |text: &[u8]| {
        if text.len() > METHOD_BYTES_MAX {
            return Err(unfit());
        }
        Method::from_bytes(&text.to_ascii_uppercase()).map_err(|_| unfit())
    };
    let mut named = Vec::new();
    for (name, value) in &head.headers {
        if is_method_override(name) {
            named.push(method(value.as_bytes().trim_ascii())?);
        }
    }
    let query = head.uri.query().unwrap_or_default();
    // Some servers part pairs at semicolons as well, and read names as they would have them.
    let parted = query.replace(';', "&");
    let pairs = form_urlencoded::parse(query.as_bytes());
    for (name, value) in pairs.chain(form_urlencoded::parse(parted.as_bytes())) {
        let name = name.split(['\0', '[']).next().unwrap_or_default();
        let name = name.trim().replace(['.', ' '], "_");
        let value = value.split('\0').next().unwrap_or_default();
        if IN_QUERY
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
            && let Ok(asked) = method(value.trim().as_bytes())
            && OF_FORMS.contains(&asked)
        {
            named.push(asked);
        }
    }
    let first = named.first().cloned();
    if named.iter().any(|other| Some(other) != first.as_ref()) {
        return Err(Unfit::bad("the request asks for two methods"));
    }
    Ok(first)
}

/// The name an assurance level has in `acr` values.
pub(super) fn acr(aal: Aal) -> &'static str {
    match aal {
        Aal::One => "aal1",
        Aal::Two => "aal2",
        Aal::Three => "aal3",
    }
}
