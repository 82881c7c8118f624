//! What a client's cache may do with an answer.
//!
//! A page that a browser shows again without asking is a page shown after the session's end. So
//! pages are not kept at all, since "Back" asks about none that is; other content is kept only to
//! be asked about, with `ETag` or `Last-Modified`, which the resource answers with 304. Code,
//! styles and fonts say nothing of anybody, and stay fresh for as long as the resource says.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::Body;
use crate::config::CachePolicy;

/// The only thing worth clearing at a session's end that touches nobody else: cookies and storage
/// may hold what a person has typed, or belong to other hosts of the domain. It empties the
/// browser's cache for this host, and lets go of the pages it would show on "Back".
const CLEAR: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\""),
);

/// Has the browser forget what it has kept of this host.
pub(super) fn forget(mut answer: Response<Body>) -> Response<Body> {
    let (name, value) = CLEAR;
    answer.headers_mut().insert(name, value);
    answer
}

/// What a request is for, as far as the browser says (Fetch Metadata).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Destination {
    /// A page.
    Document,
    /// A page within another page.
    Frame,
    /// Code, styles or fonts.
    Assets,
    /// Anything else, or the client does not say.
    Other,
}

/// What this request is for.
pub(super) fn destination(headers: &HeaderMap) -> Destination {
    match headers.get("sec-fetch-dest").map(HeaderValue::as_bytes) {
        Some(b"document") => Destination::Document,
        Some(b"iframe" | b"frame" | b"embed" | b"object" | b"fencedframe") => Destination::Frame,
        Some(
            b"script" | b"style" | b"font" | b"worker" | b"sharedworker" | b"audioworklet"
            | b"paintworklet" | b"xslt",
        ) => Destination::Assets,
        _ => Destination::Other,
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Page,
    Asset,
    Content,
}

/// What an answer says that it is, or else what it was asked for as: a 304 speaks of what the
/// browser has, and need not say it again.
fn kind(headers: &HeaderMap, destination: Destination) -> Kind {
    const ASSETS: [&str; 8] = [
        "text/css",
        "text/javascript",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "application/wasm",
        "application/font-woff",
        "application/vnd.ms-fontobject",
    ];
    let is_page = matches!(destination, Destination::Document | Destination::Frame);
    let said = headers.get(header::CONTENT_TYPE);
    let Some(said) = said.and_then(|said| said.to_str().ok()) else {
        return match destination {
            Destination::Assets => Kind::Asset,
            Destination::Document | Destination::Frame => Kind::Page,
            Destination::Other => Kind::Content,
        };
    };
    let said = said.split(';').next().unwrap_or_default();
    let said = said.trim().to_ascii_lowercase();
    if is_page || matches!(said.as_str(), "text/html" | "application/xhtml+xml") {
        Kind::Page
    } else if ASSETS.contains(&said.as_str()) || said.starts_with("font/") {
        Kind::Asset
    } else {
        Kind::Content
    }
}

/// Lets an answer be kept as `policy` allows.
pub(super) fn limit(
    headers: &mut HeaderMap,
    status: StatusCode,
    policy: CachePolicy,
    destination: Destination,
) {
    let says = headers.get_all(header::CACHE_CONTROL).iter();
    let directives: Vec<String> = says
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .filter(|directive| !directive.is_empty())
        .collect();
    let says = |name: &str| directives.iter().any(|directive| directive == name);
    let silent = headers.get(header::CACHE_CONTROL).is_none();
    let kind = kind(headers, destination);
    let is_new = status != StatusCode::NOT_MODIFIED;
    let kept = match (policy, kind) {
        _ if says("no-store") => "no-store",
        (CachePolicy::Never, _) => "no-store",
        (CachePolicy::App, _) | (_, Kind::Asset) if !silent => {
            // What was shown to one session belongs into no shared cache (RFC 9111; the strictest
            // of several directives wins).
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
            return;
        }
        (CachePolicy::App, _) | (_, Kind::Asset) if !is_new => return,
        (_, Kind::Asset) => "private, no-cache",
        // Where nothing is said, heuristics would keep it fresh for as long as they like.
        (CachePolicy::App, _) | (_, Kind::Page) => "no-store",
        (CachePolicy::Assets, Kind::Content) if silent && is_new => "no-store",
        (CachePolicy::Assets, Kind::Content) => "private, no-cache",
    };
    let kept = if says("no-transform") {
        format!("{kept}, no-transform")
    } else {
        kept.to_owned()
    };
    if let Ok(value) = HeaderValue::try_from(kept) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    headers.remove(header::EXPIRES);
    headers.remove(header::PRAGMA);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(
        policy: CachePolicy,
        destination: Destination,
        status: u16,
        answer: &[(&'static str, &'static str)],
    ) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in answer {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        limit(&mut headers, status, policy, destination);
        let values = headers.get_all(header::CACHE_CONTROL).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap()).collect();
        values.join(" + ")
    }

    #[test]
    fn pages_are_not_kept_content_is_asked_about_again_and_assets_are_kept() {
        use Destination::{Assets, Document, Frame, Other};
        let fresh = ("cache-control", "public, max-age=600, immutable");
        let html = ("content-type", "text/html; charset=utf-8");
        let json = ("content-type", "application/json");
        let code = ("content-type", "Text/JavaScript; charset=utf-8");
        let (ask, none) = ("private, no-cache", "no-store");
        let kept = "public, max-age=600, immutable + private";
        let assets = CachePolicy::Assets;
        assert_eq!(limited(assets, Other, 200, &[fresh, html]), none);
        assert_eq!(limited(assets, Frame, 200, &[fresh]), none);
        assert_eq!(limited(assets, Document, 200, &[fresh, json]), none);
        // It is a page, whatever it was fetched as.
        assert_eq!(limited(assets, Assets, 200, &[fresh, html]), none);
        assert_eq!(limited(assets, Other, 200, &[fresh, json]), ask);
        assert_eq!(limited(assets, Other, 200, &[fresh]), ask);
        assert_eq!(limited(assets, Other, 200, &[fresh, code]), kept);
        assert_eq!(limited(assets, Assets, 200, &[fresh]), kept);
        let image = ("content-type", "image/png");
        assert_eq!(limited(assets, Other, 200, &[fresh, image]), ask);
        // Of what was kept under another rule nothing becomes fresh again.
        assert_eq!(limited(assets, Other, 304, &[fresh]), ask);
        assert_eq!(limited(assets, Document, 304, &[fresh]), none);
        assert_eq!(limited(assets, Assets, 304, &[fresh]), kept);
        assert_eq!(limited(assets, Other, 304, &[]), ask);
        assert_eq!(limited(assets, Assets, 304, &[]), "");
        assert_eq!(limited(assets, Other, 200, &[json]), none);
        assert_eq!(limited(assets, Other, 200, &[code]), ask);
        let never = ("cache-control", "no-store, max-age=5");
        assert_eq!(limited(assets, Assets, 200, &[never, code]), none);
        let exact = ("cache-control", "max-age=5, no-transform");
        let wanted = "private, no-cache, no-transform";
        assert_eq!(limited(assets, Other, 200, &[exact, json]), wanted);

        let app = CachePolicy::App;
        assert_eq!(limited(app, Other, 200, &[fresh, html]), kept);
        assert_eq!(limited(app, Other, 200, &[html]), none);
        assert_eq!(limited(app, Other, 304, &[]), "");
        let nothing = CachePolicy::Never;
        assert_eq!(limited(nothing, Assets, 200, &[fresh, code]), none);
        assert_eq!(limited(nothing, Other, 304, &[]), none);
    }
}
