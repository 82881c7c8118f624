//! Who sent a request: a page of the resource itself, another site, or no page at all.

use http::header::{self, HeaderMap};
use http::request::Parts;

use super::answer::Manner;
use super::cache::Destination;
use super::head::Shape;
use crate::config::WebKind;

const FETCH_SITE: &str = "sec-fetch-site";
const FETCH_MODE: &str = "sec-fetch-mode";

/// Whether another site's page had a browser send this. For requests that a cookie speaks for and
/// that change something; a handshake counts as one.
///
/// `Sec-Fetch-Site` and `Origin` are set by browsers and cannot be forged by pages; a program
/// sends neither. A page with the policy `no-referrer` sends `Origin: null` even to itself, so
/// there `Sec-Fetch-Site` decides.
pub(super) fn is_foreign(headers: &HeaderMap, authority: &str) -> bool {
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let site_foreign = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let mut origins = headers
        .get_all(header::ORIGIN)
        .iter()
        .map(|origin| origin.as_bytes());
    let origin_foreign = match (origins.next(), origins.next()) {
        (None, _) => false,
        (Some(b"null"), None) => site != Some(b"same-origin"),
        (Some(origin), None) => !is_origin_of(origin, authority),
        (Some(_), Some(_)) => true,
    };
    site_foreign || origin_foreign
}

/// Whether the browser says that another site's page had it send this.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    headers
        .get(FETCH_SITE)
        .is_some_and(|site| site == "cross-site")
}

/// Whether `origin` is `https://` and the authority the request itself was sent to.
fn is_origin_of(origin: &[u8], authority: &str) -> bool {
    let own = authority.strip_suffix(":443").unwrap_or(authority);
    origin
        .strip_prefix(b"https://")
        .map(|host| host.strip_suffix(b":443").unwrap_or(host))
        .is_some_and(|host| host.eq_ignore_ascii_case(own.as_bytes()))
}

/// How Curfew's own answers to this request are shown.
pub(super) fn manner(
    head: &Parts,
    kind: WebKind,
    shape: Shape,
    destination: Destination,
) -> Manner {
    let html = head
        .headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html"));
    // Where the browser says what it does, that counts; older ones only say what they take.
    let navigates = head
        .headers
        .get(FETCH_MODE)
        .map_or(html, |mode| mode.as_bytes() == b"navigate");
    match (kind, shape, navigates) {
        (WebKind::App, Shape::Plain, true) if destination == Destination::Frame => Manner::Frame,
        (WebKind::App, Shape::Plain, true) if head.method.is_safe() => Manner::Navigation,
        (WebKind::App, Shape::Plain, true) => Manner::Page,
        _ => Manner::Program,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().method(method);
        let request = headers.iter().fold(builder, |builder, (name, value)| {
            builder.header(*name, *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_the_resources_own_pages_and_programs_may_write() {
        let own: [Headers<'_>; 6] = [
            &[],
            &[("origin", "https://shop.test:8443")],
            &[
                ("origin", "https://SHOP.test:8443"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        ];
        for headers in own {
            assert!(
                !is_foreign(&head("POST", headers).headers, "shop.test:8443"),
                "{headers:?}"
            );
        }
        let foreign: [Headers<'_>; 8] = [
            &[("origin", "https://evil.test")],
            &[("origin", "http://shop.test:8443")],
            &[("origin", "https://shop.test")],
            &[("origin", "https://shop.test:8443.evil.test")],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[
                ("origin", "https://shop.test:8443"),
                ("sec-fetch-site", "cross-site"),
            ],
        ];
        for headers in foreign {
            assert!(
                is_foreign(&head("POST", headers).headers, "shop.test:8443"),
                "{headers:?}"
            );
        }
        let plain = head("POST", &[("origin", "https://shop.test")]);
        assert!(!is_foreign(&plain.headers, "shop.test:443"));
    }

    #[test]
    fn only_navigations_of_apps_are_redirected() {
        let html = ("accept", "text/html,*/*");
        let navigate = ("sec-fetch-mode", "navigate");
        type Case<'a> = (&'a str, Headers<'a>, WebKind, Shape, Manner);
        let cases: [Case<'_>; 7] = [
            (
                "GET",
                &[html],
                WebKind::App,
                Shape::Plain,
                Manner::Navigation,
            ),
            (
                "GET",
                &[navigate],
                WebKind::App,
                Shape::Plain,
                Manner::Navigation,
            ),
            (
                "GET",
                &[html, ("sec-fetch-mode", "cors")],
                WebKind::App,
                Shape::Plain,
                Manner::Program,
            ),
            ("GET", &[], WebKind::App, Shape::Plain, Manner::Program),
            (
                "POST",
                &[html, navigate],
                WebKind::App,
                Shape::Plain,
                Manner::Page,
            ),
            (
                "GET",
                &[html, navigate],
                WebKind::Api,
                Shape::Plain,
                Manner::Program,
            ),
            (
                "GET",
                &[html],
                WebKind::App,
                Shape::WebSocket,
                Manner::Program,
            ),
        ];
        for (method, headers, kind, shape, wanted) in cases {
            assert_eq!(
                manner(&head(method, headers), kind, shape, Destination::Other),
                wanted,
                "{method} {headers:?}"
            );
        }
        let framed = head("GET", &[html, navigate]);
        let frame = Destination::Frame;
        let seen = manner(&framed, WebKind::App, Shape::Plain, frame);
        assert_eq!(seen, Manner::Frame);
        let seen = manner(&framed, WebKind::Api, Shape::Plain, frame);
        assert_eq!(seen, Manner::Program);
    }
}
