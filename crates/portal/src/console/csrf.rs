//! Proof that a form came from one of our pages, opened in the session that sends it.
//!
//! Two checks, each enough alone against another site: a token in the form, derived by the gateway's
//! own key, and what the browser says of where the request comes from.

use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_entry::SessionId;
use subtle::ConstantTimeEq;

use curfew_gate::secret::{self, MasterKey};

/// The token in forms of a signed-in page. It is the session's, not the cookie's: a sign-in again in
/// another tab replaces the cookie, and what was typed here stays good.
pub(super) fn session_token(master: &MasterKey, session: &SessionId) -> String {
    URL_SAFE_NO_PAD.encode(*master.derive("csrf-session", session.to_string().as_bytes()))
}

/// The token in the sign-in form.
pub(super) fn form_token(master: &MasterKey, cookie: &str) -> String {
    let hash = secret::hash(cookie);
    URL_SAFE_NO_PAD.encode(*master.derive("csrf-form", hash.as_str().as_bytes()))
}

/// Whether the token that came is the one that was sent out, in constant time.
pub(super) fn matches(wanted: &str, came: &str) -> bool {
    wanted.as_bytes().ct_eq(came.as_bytes()).into()
}

/// Whether nothing speaks against a request having come from the portal's own pages.
///
/// Our pages send no referrer, which makes browsers send `Origin: null` with a form
/// (Fetch, "append a request `Origin` header"); then `Sec-Fetch-Site` has to vouch for it. A
/// client that sends neither is no browser of this century, and the token decides.
pub(super) fn same_origin(headers: &HeaderMap, portal: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    match headers
        .get(ORIGIN)
        .map(|value| value.to_str().unwrap_or("?"))
    {
        None => true,
        Some("null") => site.is_some(),
        Some(origin) => origin.eq_ignore_ascii_case(portal),
    }
}

/// Whether the browser says that one of our own pages sent it. Pages cannot set this header (Fetch,
/// forbidden request-header), and all browsers of the last years send it.
pub(super) fn is_vouched_for(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.next().is_some_and(|site| site == "same-origin") && sites.next().is_none()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PORTAL: &str = "https://curfew.test:8443";

    fn master() -> MasterKey {
        let dir = tempfile::tempdir().unwrap();
        MasterKey::create(&dir.path().join("key")).unwrap()
    }

    #[test]
    fn a_token_belongs_to_one_session_one_purpose_and_one_gateway() {
        let (one, other) = (master(), master());
        let session = SessionId::from_random([1; 12]);
        let token = session_token(&one, &session);
        assert!(matches(&token, &session_token(&one, &session)));
        for wrong in [
            session_token(&one, &SessionId::from_random([2; 12])),
            session_token(&other, &session),
            form_token(&one, &session.to_string()),
            String::new(),
            format!("{token}x"),
        ] {
            assert!(!matches(&token, &wrong), "{wrong}");
        }
    }

    #[test]
    fn the_browser_says_where_a_request_comes_from() {
        let cases: [(Option<&str>, Option<&str>, bool); 12] = [
            (Some(PORTAL), Some("same-origin"), true),
            (Some("null"), Some("same-origin"), true),
            (Some(PORTAL), None, true),
            (None, None, true),
            (None, Some("same-origin"), true),
            (Some("null"), None, false),
            (Some("null"), Some("cross-site"), false),
            (Some(PORTAL), Some("same-site"), false),
            (None, Some("none"), false),
            (Some("https://evil.test"), None, false),
            (Some("https://curfew.test"), None, false),
            (Some("http://curfew.test:8443"), Some("same-origin"), false),
        ];
        for (origin, site, wanted) in cases {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            assert_eq!(same_origin(&headers, PORTAL), wanted, "{origin:?} {site:?}");
        }
    }
}
