//! How a request presents its session, and how that is kept from everybody else.
//!
//! A cookie of this host or a bearer token, never a URL or a form. Where both are shown the
//! token counts: a program put it there on purpose, while a browser sends cookies by itself. An
//! `Authorization` that is not one of Curfew's tokens belongs to the resource and is forwarded.

use curfew_entry::{CredentialClass, CredentialHash};
use curfew_gate::handover::{BEGIN_COOKIE, BEGIN_SECONDS};
use curfew_gate::secret;
use http::Version;
use http::header::{self, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::head::Unfit;

/// The cookie of a session on one host.
pub(super) const SESSION_COOKIE: &str = "__Host-curfew";

/// What Curfew's cookies start with, in lower case. Browsers and some servers compare cookie
/// prefixes without regard to case, so look-alikes are Curfew's too.
const OWN_COOKIES: &[u8] = b"__host-curfew";

/// What Curfew's bearer tokens start with.
const TOKEN_PREFIX: &str = "cft_";

/// The longest secret that is looked up: prefix and 43 characters are 47, with room to grow.
const SECRET_BYTES_MAX: usize = 128;

/// What a request shows. The secret itself goes no further than this file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Shown {
    pub(super) class: CredentialClass,
    pub(super) hash: CredentialHash,
}

/// The credential in a request, if there is one.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<Shown>, Unfit> {
    let token = token(headers)?;
    let cookie = cookie(headers, SESSION_COOKIE)?;
    let (class, text) = match (token, cookie) {
        (Some(token), _) => (CredentialClass::Bearer, token),
        (None, Some(cookie)) => (CredentialClass::Cookie, cookie),
        (None, None) => return Ok(None),
    };
    if text.len() > SECRET_BYTES_MAX {
        return Err(Unfit::bad("the credential is too long"));
    }
    Ok(Some(Shown {
        class,
        hash: secret::hash(text),
    }))
}

fn token(headers: &HeaderMap) -> Result<Option<&str>, Unfit> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Unfit::bad(
            "the request has more than one Authorization header",
        ));
    }
    Ok(first.and_then(own_token))
}

fn own_token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(TOKEN_PREFIX)).then_some(token)
}

/// Name and value of every cookie.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = pair.split_at(at);
                (name.trim_ascii(), value.get(1..).unwrap_or_default())
            }
            None => (pair, [].as_slice()),
        })
}

/// The one cookie of this exact name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Unfit> {
    let mut found = cookies(headers).filter(|(held, _)| *held == name.as_bytes());
    let first = found.next();
    if found.next().is_some() {
        return Err(Unfit::bad("the request shows two sessions"));
    }
    Ok(first.and_then(|(_, value)| std::str::from_utf8(value).ok()))
}

fn is_own(name: &[u8]) -> bool {
    let start = name.get(..OWN_COOKIES.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_COOKIES))
}

/// The bytes of a Cookie field without Curfew's own pairs; none where it has none of them.
fn without_own(line: &[u8]) -> Option<Vec<u8>> {
    let is_ours = |pair: &&[u8]| is_own(pair.trim_ascii_start());
    let pairs = || line.split(|byte| *byte == b';');
    if !pairs().any(|pair| is_ours(&pair)) {
        return None;
    }
    let kept: Vec<&[u8]> = pairs().filter(|pair| !is_ours(pair)).collect();
    Some(kept.join(b";".as_slice()).trim_ascii_start().to_vec())
}

/// Takes Curfew's cookies and token off a request, and leaves the resource's own as they are,
/// byte for byte.
pub(super) fn strip(headers: &mut HeaderMap, version: Version) {
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    let mut kept: Vec<HeaderValue> = lines
        .into_iter()
        .filter_map(|line| match without_own(line.as_bytes()) {
            Some(rest) => HeaderValue::from_bytes(&rest).ok(),
            None => Some(line),
        })
        .filter(|line| !line.is_empty())
        .collect();
    // RFC 9113 section 8.2.3: HTTP/2 may send each pair in a field of its own; elsewhere they are
    // one.
    if version == Version::HTTP_2 && kept.len() > 1 {
        let pairs: Vec<&[u8]> = kept.iter().map(HeaderValue::as_bytes).collect();
        if let Ok(line) = HeaderValue::from_bytes(&pairs.join(b"; ".as_slice())) {
            kept = vec![line];
        }
    }
    headers.remove(header::COOKIE);
    for line in kept {
        headers.append(header::COOKIE, line);
    }
    if headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| own_token(value).is_some())
    {
        headers.remove(header::AUTHORIZATION);
    }
}

/// Takes cookies with Curfew's names off a resource's answer.
pub(super) fn strip_set_cookies(headers: &mut HeaderMap) {
    let own = |value: &HeaderValue| {
        // A cookie without a name, `=__Host-curfew=x`, comes back as if it had ours.
        let plain = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b'=';
        let start = value.as_bytes().iter().position(plain).unwrap_or_default();
        is_own(value.as_bytes().get(start..).unwrap_or_default())
    };
    if !headers.get_all(header::SET_COOKIE).iter().any(own) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|value| !own(value))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

fn set_cookie(name: &str, value: &str, max_age: Option<u32>) -> Option<HeaderValue> {
    let age = max_age
        .map(|seconds| format!("; Max-Age={seconds}"))
        .unwrap_or_default();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{age}");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Sets the session's cookie. The server decides when it ends, so it has no age of its own.
pub(super) fn set_session(secret: &SecretString) -> Option<HeaderValue> {
    set_cookie(SESSION_COOKIE, secret.expose_secret(), None)
}

/// Takes the session's cookie back.
pub(super) fn clear_session() -> Option<HeaderValue> {
    set_cookie(SESSION_COOKIE, "", Some(0))
}

/// Sets the cookie that ties a sign-in to this browser.
pub(super) fn set_begin(secret: &SecretString) -> Option<HeaderValue> {
    set_cookie(BEGIN_COOKIE, secret.expose_secret(), Some(BEGIN_SECONDS))
}
