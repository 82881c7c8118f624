//! Where a sign-in comes from and goes back to: a page of the portal, or an app.

use axum::response::{IntoResponse, Redirect, Response};
use curfew_entry::{Aal, EndReason, ResourceName, SessionId};
use curfew_gate::handover::{arrive_url, local_path};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Portal;
use super::fault::Fault;
use crate::App;

/// What may stand in a query value as it is.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The longest `state` an app sends: 32 bytes in base64url.
const STATE_BYTES_MAX: usize = 43;

/// What a link to a sign-in page, and the form on it, carry along. Everything in it may come from
/// anybody: nothing is used before it is checked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) struct Returning {
    /// The app to go back to; the portal itself where it is empty.
    #[serde(default)]
    pub(super) resource: String,
    /// The path and query there.
    #[serde(default)]
    pub(super) to: String,
    /// What ties the app's answer to the browser that asked.
    #[serde(default)]
    pub(super) state: String,
    /// `1`: a live session is not enough.
    #[serde(default)]
    pub(super) reauth: String,
    /// The assurance level that is needed.
    #[serde(default)]
    pub(super) aal: String,
    /// How often the browser came to the app with a code that did not work.
    #[serde(default)]
    pub(super) round: String,
    /// Why the last session ended, as a link of our own says.
    #[serde(default)]
    pub(super) ended: String,
}

impl Returning {
    /// Back to this path of the portal.
    pub(super) fn local(to: &str) -> Self {
        Self {
            to: to.to_owned(),
            ..Self::default()
        }
    }

    /// The path to come back to; `/` where what came is not a path of the same host.
    pub(super) fn path(&self) -> &str {
        local_path(&self.to).unwrap_or("/")
    }

    /// The app to go back to, where it is one that is configured.
    pub(super) fn app<'p>(&self, portal: &'p Portal) -> Result<Option<&'p App>, Fault> {
        if self.resource.is_empty() {
            return Ok(None);
        }
        portal
            .setup
            .apps
            .iter()
            .find(|web| web.name.as_str() == self.resource)
            .map(Some)
            .ok_or(Fault::NotFound("There is no app of that name"))
    }

    /// Whether the person must authenticate again although a session is live.
    pub(super) fn wants_fresh(&self, held: Aal) -> bool {
        self.reauth == "1" || self.level().is_some_and(|level| level > held)
    }

    /// The assurance level that is needed, if the link names one.
    pub(super) fn level(&self) -> Option<Aal> {
        self.aal
            .parse::<u8>()
            .ok()
            .and_then(|level| level.try_into().ok())
    }

    /// How often this browser has begun again, if it has.
    fn round(&self) -> Option<u8> {
        self.round.parse().ok()
    }

    /// The end that a link names. Anybody can write such a link, so it says nothing but this.
    pub(super) fn ended(&self) -> Option<EndReason> {
        let text = serde_json::Value::String(self.ended.clone());
        serde_json::from_value(text).ok()
    }

    /// The query that carries all this to another page, with its question mark.
    pub(super) fn query(&self) -> String {
        let state = if self.state.len() <= STATE_BYTES_MAX {
            self.state.as_str()
        } else {
            ""
        };
        let level = self
            .level()
            .map(|level| u8::from(level).to_string())
            .unwrap_or_default();
        let round = self.round().map(|round| round.to_string());
        let resource = match self.resource.parse::<ResourceName>() {
            Ok(resource) => String::from(resource),
            Err(_) => String::new(),
        };
        let mut query = String::new();
        for (name, value) in [
            ("resource", resource.as_str()),
            ("to", self.path()),
            ("state", state),
            ("aal", level.as_str()),
            ("round", round.as_deref().unwrap_or_default()),
        ] {
            if !value.is_empty() && (name, value) != ("to", "/") {
                query.push(if query.is_empty() { '?' } else { '&' });
                let value = utf8_percent_encode(value, QUERY_VALUE);
                query.push_str(&format!("{name}={value}"));
            }
        }
        query
    }

    /// Sends the browser back, with a live session that was presented just now.
    pub(super) fn go(&self, portal: &Portal, session: SessionId) -> Result<Response, Fault> {
        let Some(app) = self.app(portal)? else {
            return Ok(Redirect::to(self.path()).into_response());
        };
        let code = portal
            .setup
            .handover
            .offer(session, app.name.clone(), &self.state)
            .map_err(|error| Fault::Handover(error.to_string()))?;
        let url = portal.setup.site.url(&app.host);
        let host = url.strip_prefix("https://").unwrap_or(&app.host);
        let mut arrive = arrive_url(host, &code, &self.to);
        if let Some(round) = self.round() {
            arrive.push_str(&format!("&round={round}"));
        }
        Ok(Redirect::to(&arrive).into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_never_leads_to_another_host() {
        for to in [
            "//evil.test",
            "https://evil.test/",
            "/\\evil.test",
            "\\\\evil.test",
            "javascript:alert(1)",
            "/\t/evil.test",
            "/a\r\nLocation: https://evil.test",
            "evil.test",
            "",
            "/a#b",
            "/.curfew/arrive?code=x",
        ] {
            assert_eq!(Returning::local(to).path(), "/", "{to:?}");
        }
        assert_eq!(
            Returning::local("/log?kind=action").path(),
            "/log?kind=action"
        );
    }

    #[test]
    fn what_is_carried_along_is_encoded_and_cleaned() {
        let clean = Returning {
            resource: "shop".into(),
            to: "/a?b=c&d=\"e\"".into(),
            state: "S-_".into(),
            aal: "2".into(),
            round: "1".into(),
            ..Returning::default()
        };
        let wanted = "?resource=shop&to=/a%3Fb%3Dc%26d%3D%22e%22&state=S-_&aal=2&round=1";
        assert_eq!(clean.query(), wanted);
        let hostile = Returning {
            resource: "shop&to=//evil".into(),
            to: "//evil.test".into(),
            state: "x".repeat(STATE_BYTES_MAX + 1),
            aal: "9".into(),
            round: "1&to=x".into(),
            ..Returning::default()
        };
        assert_eq!(hostile.query(), "");
    }

    #[test]
    fn only_reasons_from_the_closed_list_are_shown() {
        let ended = |text: &str| {
            Returning {
                ended: text.into(),
                ..Returning::default()
            }
            .ended()
        };
        assert_eq!(ended("idle"), Some(EndReason::Idle));
        assert_eq!(ended("Your account is locked, call 555-0100"), None);
        assert_eq!(ended(""), None);
    }

    #[test]
    fn a_stronger_or_fresh_sign_in_can_be_asked_for() {
        let wants = |reauth: &str, aal: &str, held| {
            let reauth = reauth.to_owned();
            Returning {
                reauth,
                aal: aal.into(),
                ..Returning::default()
            }
            .wants_fresh(held)
        };
        assert!(wants("1", "", Aal::Two));
        assert!(wants("", "3", Aal::Two));
        assert!(!wants("", "2", Aal::Two));
        assert!(!wants("", "", Aal::One));
    }
}
