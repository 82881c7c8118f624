//! The portal's cookies. All are `__Host-`: this host only, HTTPS only, the whole host.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// Presents a session at the portal.
pub(super) const SESSION: &str = "__Host-curfew";

/// Ties a sign-in form to the browser it was sent to. Opens nothing.
pub(super) const FORM: &str = "__Host-curfew-form";

/// By what a browser is known again in which somebody has signed in. Opens nothing: what is tried
/// there is counted by itself.
pub(super) const BROWSER: &str = "__Host-curfew-browser";

/// How long that is kept, in seconds: 400 days, the longest that browsers allow (RFC 6265bis).
const BROWSER_SECS: u32 = 400 * 86_400;

/// What every cookie of the portal says. No `Max-Age`: it goes with the browser, and the end of
/// the session is never left to it.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The cookie of this name, if the browser sent exactly one.
pub(super) fn get<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    // Two of one name cannot both be ours; nobody guesses which is.
    found.next().filter(|_| found.next().is_none())
}

/// The header that sets a cookie. None only where the value cannot stand in a header.
pub(super) fn set(name: &str, value: &SecretString) -> Option<HeaderValue> {
    let text = format!("{name}={}; {ATTRIBUTES}", value.expose_secret());
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The header that sets the cookie by which the browser is known again.
pub(super) fn set_browser(value: &SecretString) -> Option<HeaderValue> {
    let value = value.expose_secret();
    let text = format!("{BROWSER}={value}; {ATTRIBUTES}; Max-Age={BROWSER_SECS}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The header that takes the session cookie away.
pub(super) fn expire_session() -> HeaderValue {
    HeaderValue::from_static("__Host-curfew=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::try_from(*cookie).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_in_one_header_or_several() {
        for sent in [
            &["a=b; __Host-curfew=x; c=d"][..],
            &["a=b", "__Host-curfew=x"],
            &["__Host-curfew=x"],
        ] {
            assert_eq!(get(&headers(sent), SESSION), Some("x"));
        }
    }

    #[test]
    fn what_is_not_exactly_our_cookie_is_none() {
        for sent in [
            &["__host-curfew=x"][..],
            &["__Host-curfew2=x", "curfew=x", "__Host-curfew"],
            &["__Host-curfew=x; __Host-curfew=y"],
            &["__Host-curfew=x", "__Host-curfew=y"],
        ] {
            assert_eq!(get(&headers(sent), SESSION), None, "{sent:?}");
        }
    }

    #[test]
    fn cookies_have_every_attribute_that_protects_them() {
        let set = set(SESSION, &"cfs_x".to_owned().into()).unwrap();
        assert!(set.is_sensitive());
        let set = set.to_str().unwrap().to_owned();
        assert_eq!(
            set,
            "__Host-curfew=cfs_x; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            expire_session().to_str().unwrap(),
            format!("{SESSION}=; {ATTRIBUTES}; Max-Age=0")
        );
        let browser = set_browser(&"cfb_x".to_owned().into()).unwrap();
        assert_eq!(
            browser.to_str().unwrap(),
            format!("{BROWSER}=cfb_x; {ATTRIBUTES}; Max-Age=34560000")
        );
    }
}
