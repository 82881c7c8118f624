//! How a session that was signed in at the portal reaches a web app on another host.
//!
//! A `__Host-` cookie belongs to one host, so each app host needs its own:
//!
//! ```text
//!   app host   303 to the portal, state = SHA-256(begin); begin in a __Host- cookie of the app
//!   portal     signs in, `offer(session, resource, state)`, 303 to /.curfew/arrive with the code
//!   app host   `redeem(code, resource, begin cookie)`, sets its own session cookie, 303 to `to`
//! ```
//!
//! The code works once, for a minute, for one resource, and only in the browser that holds
//! `begin`: a replayed code, a code sent to somebody else (login CSRF) and a link sent to somebody
//! else (session theft) all come to nothing. Kept in memory only.
//!
//! A browser that comes with a code that does not work begins again, where it has no session by now:
//! it was one of several tabs, it took longer than `begin` lives, it went back in its history, or
//! Curfew was restarted. The portal knows it by its own cookie, so that nobody notices. How often it
//! has begun again goes along, so that a browser without cookies does not go round for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_entry::{Aal, EndReason, ResourceName, SessionId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::secret::{self, SecretError};

/// How long a code works: the time of one redirect, with room for a slow connection.
const OFFER_LIFE: Duration = Duration::from_secs(60);

/// Codes waiting to be redeemed: 4,096 of about 300 bytes are 1.2 MB, and 68 arrivals a second
/// over the life of a code.
const OFFERS_MAX: usize = 4_096;

/// Codes one session may have waiting: the tabs that a browser opens again at its start. The next one
/// takes the place of its oldest, so that no session can crowd out others.
const OFFERS_PER_SESSION_MAX: usize = 32;

/// How often a browser may begin again: several tabs at once may each set the cookie that ties the
/// sign-in to the browser, and agree on one in the second round.
pub const ROUNDS_MAX: u8 = 4;

/// How long the browser may take from the app to the portal and back, in seconds: a sign-in with
/// a look at the phone.
pub const BEGIN_SECONDS: u32 = 600;

/// The cookie on the app's host that ties a sign-in to the browser that began it.
pub const BEGIN_COOKIE: &str = "__Host-curfew-begin";

/// Where an app's host takes codes.
pub const ARRIVE_PATH: &str = "/.curfew/arrive";

/// Where the portal takes browsers that an app has sent.
pub const SIGN_IN_PATH: &str = "/sign-in";

/// The longest path and query to come back to, in bytes. A longer one becomes `/`: it would not
/// fit a `Location` that every client takes.
const TO_BYTES_MAX: usize = 2_048;

/// What may stand in a query value as it is.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Why no code could be offered. Safe to show to a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandoverError {
    /// `state` is not what an app sends.
    #[error("this sign-in link is damaged; open the app again")]
    State,
    /// Too many codes are waiting.
    #[error("too many people are signing in; try again in a minute")]
    Full,
    /// The operating system gave no random bytes.
    #[error("Curfew cannot make a code just now; try again in a minute")]
    Random,
}

/// What an app puts into the link to the portal's sign-in page.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct SignInQuery {
    /// The resource to come back to.
    pub resource: ResourceName,
    /// The path and query there. Only as good as [`local_path`] says.
    #[serde(default)]
    pub to: String,
    /// SHA-256 of the begin cookie, base64url.
    pub state: String,
    /// `1`: a live session is not enough, the person must authenticate again.
    #[serde(default)]
    pub reauth: Option<u8>,
    /// The assurance level that is needed.
    #[serde(default)]
    pub aal: Option<u8>,
    /// Why the last session ended, to be told to the person. Anyone can write such a link, so it
    /// is a text to show and nothing more.
    #[serde(default)]
    pub ended: Option<EndReason>,
}

/// What the app wants of the portal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Need {
    /// A live session is not enough: authenticate again.
    pub reauth: bool,
    /// At this level.
    pub assurance: Option<Aal>,
    /// Why the last session ended.
    pub ended: Option<EndReason>,
}

/// The app's half of a handover.
#[derive(Debug)]
pub struct Begin {
    /// The value of [`BEGIN_COOKIE`].
    pub cookie: SecretString,
    /// What the portal is told.
    pub state: String,
}

#[derive(Debug)]
struct Offer {
    session: SessionId,
    resource: ResourceName,
    state: [u8; 32],
    made: Instant,
}

type Offers = BTreeMap<[u8; 32], Offer>;

/// The codes that are waiting to be redeemed, by their hash.
#[derive(Default)]
pub struct Handover(Mutex<Offers>);

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handover")
    }
}

impl Handover {
    /// No code is waiting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a handover on the app's host. A begin cookie the browser already holds is used
    /// again, so that two tabs can sign in at the same time.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn begin(held: Option<&str>) -> Result<Begin, SecretError> {
        let cookie = match held.filter(|held| decode(held).is_some()) {
            Some(held) => held.to_owned().into(),
            None => secret::token("")?,
        };
        let state = URL_SAFE_NO_PAD.encode(digest(cookie.expose_secret()));
        Ok(Begin { cookie, state })
    }

    /// Offers a session to the app that sent `state`, and gives the code for it.
    /// The portal calls this for a session that is live and just presented its cookie.
    ///
    /// # Errors
    /// A [`HandoverError`] to show.
    pub fn offer(
        &self,
        session: SessionId,
        resource: ResourceName,
        state: &str,
    ) -> Result<SecretString, HandoverError> {
        self.offer_at(session, resource, state, Instant::now())
    }

    fn offer_at(
        &self,
        session: SessionId,
        resource: ResourceName,
        state: &str,
        now: Instant,
    ) -> Result<SecretString, HandoverError> {
        let state = decode(state).ok_or(HandoverError::State)?;
        let code = secret::token("").map_err(|_| HandoverError::Random)?;
        let mut offers = self.offers();
        offers.retain(|_, offer| now.saturating_duration_since(offer.made) < OFFER_LIFE);
        let own = || offers.iter().filter(|(_, offer)| offer.session == session);
        if own().count() >= OFFERS_PER_SESSION_MAX {
            let oldest = own()
                .min_by_key(|(_, offer)| offer.made)
                .map(|(hash, _)| *hash);
            oldest.and_then(|hash| offers.remove(&hash));
        }
        if offers.len() >= OFFERS_MAX {
            return Err(HandoverError::Full);
        }
        let offer = Offer {
            session,
            resource,
            state,
            made: now,
        };
        offers.insert(digest(code.expose_secret()), offer);
        Ok(code)
    }

    /// Takes the session behind a code. Whatever comes of it, the code is used up.
    pub fn redeem(
        &self,
        code: &str,
        resource: &ResourceName,
        begin_cookie: &str,
    ) -> Option<SessionId> {
        self.redeem_at(code, resource, begin_cookie, Instant::now())
    }

    fn redeem_at(
        &self,
        code: &str,
        resource: &ResourceName,
        begin_cookie: &str,
        now: Instant,
    ) -> Option<SessionId> {
        let offer = self.offers().remove(&digest(code))?;
        let fresh = now.saturating_duration_since(offer.made) < OFFER_LIFE;
        let same_browser: bool = digest(begin_cookie).ct_eq(&offer.state).into();
        (fresh && same_browser && offer.resource == *resource).then_some(offer.session)
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        // A panic while holding the map leaves it whole: each change is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// 32 bytes in base64url without padding, in the one canonical spelling.
fn decode(text: &str) -> Option<[u8; 32]> {
    // 43 = ⌈32 · 4 / 3⌉
    (text.len() == 43)
        .then(|| URL_SAFE_NO_PAD.decode(text).ok())??
        .try_into()
        .ok()
}

/// Where to send a browser that needs a session for `resource`: the portal's sign-in page.
/// `portal` is its origin, such as `https://curfew.example.com:8443`.
pub fn sign_in_url(
    portal: &str,
    resource: &ResourceName,
    to: &str,
    state: &str,
    need: Need,
) -> String {
    let mut url = format!(
        "{portal}{SIGN_IN_PATH}?resource={resource}&to={}&state={}",
        encode(local_path(to).unwrap_or("/")),
        encode(state),
    );
    if need.reauth {
        url.push_str("&reauth=1");
    }
    if let Some(aal) = need.assurance {
        url.push_str(&format!("&aal={}", u8::from(aal)));
    }
    // The name that the log uses too.
    let reason = need
        .ended
        .map(|reason| serde_json::to_value(reason).unwrap_or_default());
    if let Some(reason) = reason.as_ref().and_then(serde_json::Value::as_str) {
        url.push_str(&format!("&ended={reason}"));
    }
    url
}

/// The same for a browser that came with a code that did not work, for the `round`th time.
pub fn sign_in_again_url(
    portal: &str,
    resource: &ResourceName,
    to: &str,
    state: &str,
    round: u8,
) -> String {
    let url = sign_in_url(portal, resource, to, state, Need::default());
    format!("{url}&round={round}")
}

/// Where the portal sends the browser with a code. `host` is the app's host with its port where
/// that is not 443.
pub fn arrive_url(host: &str, code: &SecretString, to: &str) -> String {
    format!(
        "https://{host}{ARRIVE_PATH}?code={}&to={}",
        encode(code.expose_secret()),
        encode(local_path(to).unwrap_or("/")),
    )
}

fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, QUERY_VALUE)
}

/// `to`, if it is a path on the same host and nothing else: it starts with one `/`, has no
/// backslash, control or non-ASCII character (browsers read some of these as `/` or drop them),
/// no fragment, and does not lead back to Curfew's own paths.
pub fn local_path(to: &str) -> Option<&str> {
    let plain = to
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#');
    let own = to.starts_with("/.curfew/");
    (plain && to.len() <= TO_BYTES_MAX && to.starts_with('/') && !to.starts_with("//") && !own)
        .then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(byte: u8) -> SessionId {
        SessionId::from_random([byte; 12])
    }

    fn shop() -> ResourceName {
        "shop".parse().unwrap()
    }

    #[test]
    fn a_code_works_once_for_its_app_and_browser() {
        let handover = Handover::new();
        let begin = Handover::begin(None).unwrap();
        let cookie = begin.cookie.expose_secret();
        let offer = || handover.offer(session(1), shop(), &begin.state).unwrap();

        let code = offer();
        assert_eq!(
            handover.redeem(code.expose_secret(), &shop(), cookie),
            Some(session(1))
        );
        assert_eq!(
            handover.redeem(code.expose_secret(), &shop(), cookie),
            None,
            "replay"
        );

        let code = offer();
        let other = Handover::begin(None).unwrap();
        let stolen = handover.redeem(code.expose_secret(), &shop(), other.cookie.expose_secret());
        assert_eq!(stolen, None, "another browser");
        assert_eq!(
            handover.redeem(code.expose_secret(), &shop(), cookie),
            None,
            "used up"
        );

        let code = offer();
        let wiki = "wiki".parse().unwrap();
        assert_eq!(
            handover.redeem(code.expose_secret(), &wiki, cookie),
            None,
            "another app"
        );
        assert_eq!(handover.redeem("", &shop(), cookie), None);
        assert_eq!(handover.redeem(&begin.state, &shop(), cookie), None);
    }

    #[test]
    fn a_code_lives_one_minute() {
        let handover = Handover::new();
        let begin = Handover::begin(None).unwrap();
        let start = Instant::now();
        for (after, wanted) in [(59_999, Some(session(1))), (60_000, None)] {
            let code = handover
                .offer_at(session(1), shop(), &begin.state, start)
                .unwrap();
            let then = start + Duration::from_millis(after);
            let got = handover.redeem_at(
                code.expose_secret(),
                &shop(),
                begin.cookie.expose_secret(),
                then,
            );
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn codes_are_bounded_and_one_session_cannot_crowd_out_others() {
        let handover = Handover::new();
        let begin = Handover::begin(None).unwrap();
        let start = Instant::now();
        let codes: Vec<_> = (0..=OFFERS_PER_SESSION_MAX)
            .map(|at| {
                let at = start + Duration::from_millis(u64::try_from(at).unwrap());
                handover
                    .offer_at(session(1), shop(), &begin.state, at)
                    .unwrap()
            })
            .collect();
        assert_eq!(handover.offers().len(), OFFERS_PER_SESSION_MAX);
        let cookie = begin.cookie.expose_secret();
        assert_eq!(
            handover.redeem(codes[0].expose_secret(), &shop(), cookie),
            None
        );
        assert!(
            handover
                .redeem(codes[1].expose_secret(), &shop(), cookie)
                .is_some()
        );
        // Nothing that has run out stays.
        let later = start + OFFER_LIFE * 2;
        handover
            .offer_at(session(2), shop(), &begin.state, later)
            .unwrap();
        assert_eq!(handover.offers().len(), 1);
    }

    #[test]
    fn a_held_begin_cookie_is_used_again_only_where_it_is_one() {
        let first = Handover::begin(None).unwrap();
        let again = Handover::begin(Some(first.cookie.expose_secret())).unwrap();
        assert_eq!(first.state, again.state);
        let other = Handover::begin(Some("x")).unwrap();
        assert_ne!(first.state, other.state);
        let handover = Handover::new();
        for state in ["", "x", &"=".repeat(43), &"A".repeat(44)] {
            let refused = handover.offer(session(1), shop(), state).unwrap_err();
            assert_eq!(refused, HandoverError::State);
        }
    }

    #[test]
    fn only_paths_of_the_same_host_are_come_back_to() {
        for good in ["/", "/a/b?c=d&e=%2F", "/a//b"] {
            assert_eq!(local_path(good), Some(good));
        }
        let long = format!("/{}", "a".repeat(TO_BYTES_MAX));
        let bad = [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\tb",
            "/a\r\nb",
            "/a b",
            "/ä",
            "\t//evil.example",
            "/.curfew/arrive?code=x",
            "/#x",
            long.as_str(),
        ];
        for bad in bad {
            assert_eq!(local_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn links_carry_their_values_encoded() {
        let need = Need {
            reauth: true,
            assurance: Some(Aal::Two),
            ended: Some(EndReason::SignedOut),
        };
        let url = sign_in_url("https://p.test:8443", &shop(), "/a?b=c&d=e", "S", need);
        let wanted = "https://p.test:8443/sign-in?resource=shop&to=/a%3Fb%3Dc%26d%3De&state=S&reauth=1&aal=2&ended=signed_out";
        assert_eq!(url, wanted);
        let url = arrive_url("a.test:1", &"C".to_owned().into(), "//evil");
        assert_eq!(url, "https://a.test:1/.curfew/arrive?code=C&to=/");
    }
}
