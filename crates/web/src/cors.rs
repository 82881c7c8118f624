//! Pages of other origins that may call a resource (the CORS protocol of the Fetch standard).
//!
//! Before a browser lets such a page send a request with a token, it asks with a preflight, which
//! never carries credentials. Curfew answers it by `cors_origins`: nothing reaches the resource
//! without a permit, and nothing of it needs a record. The request itself then takes the one path
//! like any other, and the resource says whether the page may read the answer.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::Body;
use crate::config::WebResource;

/// How long a browser may go by the answer to a preflight, in seconds. Chromium keeps it no longer
/// than two hours.
const KEPT_SECONDS: u32 = 600;

/// The longest list of methods or fields that a preflight asks for.
const ASKED_BYTES_MAX: usize = 4_096;

/// What a page may read of Curfew's own answers besides what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static("WWW-Authenticate, Retry-After");

/// An origin that the resource's operator has named.
#[derive(Clone, Debug)]
pub(super) struct Allowed(HeaderValue);

/// The origin of the page that sent a request, where it is named.
pub(super) fn allowed(headers: &HeaderMap, resource: &WebResource) -> Option<Allowed> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?;
    if origins.next().is_some() {
        return None;
    }
    let is = |named: &String| named.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    if resource.cors_origins.iter().any(is) {
        return Some(Allowed(origin.clone()));
    }
    let any = resource.cors_origins.iter().any(|named| named == "*");
    any.then(|| Allowed(HeaderValue::from_static("*")))
}

/// The answer to a preflight from a named origin; none to anything else.
pub(super) fn preflight(head: &Parts, allowed: &Allowed) -> Option<Response<Body>> {
    if head.method != Method::OPTIONS {
        return None;
    }
    let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let fields = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let mut response = Response::new(super::answer::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, Some(asked)),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, fields),
    ] {
        // Lists of tokens. Anything else is no preflight of a browser's.
        if let Some(value) = value {
            headers.insert(name, Some(value).filter(|value| is_list(value))?.clone());
        }
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, KEPT_SECONDS.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for name in [
        "access-control-request-method",
        "access-control-request-headers",
    ] {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
    open(headers, allowed);
    Some(response)
}

/// Whether a field's value is a list of tokens (RFC 9110 section 5.6.2).
fn is_list(value: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(byte);
    value.len() <= ASKED_BYTES_MAX && value.as_bytes().iter().all(plain)
}

/// Lets a page of this origin read an answer of Curfew's own.
pub(super) fn open(headers: &mut HeaderMap, allowed: &Allowed) {
    let Allowed(origin) = allowed;
    if origin != "*" {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}
