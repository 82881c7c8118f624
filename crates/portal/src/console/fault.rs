//! Everything that keeps a page from being shown, as a page of its own or a redirect.

use axum::http::header::{LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_entry::EndReason;
use curfew_gate::{Denial, Refusal, Unavailable};

use super::cookies;
use super::frame::{Frame, page};
use super::returning::Returning;
use crate::oauth::{OUTAGE_RETRY_SECS, denial_text, end_text, outage_text};

/// Why a page is not shown. Its texts are for the person at the browser.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Nobody is signed in.
    SignIn(Box<SignIn>),
    /// Somebody is, but must authenticate again.
    Again(Box<Returning>),
    /// Signed in, and not permitted.
    Denied(Denial),
    /// There is nothing of that name.
    NotFound(&'static str),
    /// The address is right, the method is not.
    Method,
    /// What was sent cannot be understood.
    Malformed,
    /// What was sent did not come to its end in time.
    Slow,
    /// What was sent is longer than any form.
    TooLarge,
    /// The form did not come from our own page.
    Forged,
    /// The way back to the app is not there.
    Handover(String),
    /// A limit that doing it again does not lift.
    Limit(Limit),
    /// Nothing is admitted for now.
    Unavailable(Unavailable),
    /// Something failed that the person cannot help.
    Failed,
}

/// What doing it again does not help against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Limit {
    /// A stronger sign-in is wanted than the account has.
    TooWeak,
    /// Too many wrong device codes.
    Codes,
    /// The session has as many credentials as it can.
    Credentials,
    /// Too many searches are under way.
    Searches,
}

/// Nobody is signed in, and how that is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SignIn {
    /// Where to go after it.
    pub(super) returning: Returning,
    /// Why the last session is over, if one is.
    pub(super) ended: Option<EndReason>,
    /// The browser sent a cookie that opens nothing any more.
    pub(super) forget: bool,
    /// A page was asked for, so the browser can be sent on; a form that was sent is not repeated.
    pub(super) navigation: bool,
}

/// The texts of a page that says why not.
struct Notice {
    status: StatusCode,
    title: &'static str,
    text: String,
    hint: &'static str,
    href: &'static str,
    label: &'static str,
}

#[derive(askama::Template)]
#[template(path = "notice.html")]
struct NoticePage {
    frame: Frame,
    text: String,
    hint: &'static str,
    href: &'static str,
    label: &'static str,
}

impl Fault {
    /// What the registrar refused to a signed-in page; `returning` is where re-authentication
    /// comes back to.
    pub(super) fn refused(refusal: Refusal, returning: Returning, navigation: bool) -> Self {
        let sign_in = |returning, ended| {
            Self::SignIn(Box::new(SignIn {
                returning,
                ended,
                forget: true,
                navigation,
            }))
        };
        match refusal {
            Refusal::Unauthenticated => sign_in(returning, None),
            Refusal::Ended { reason, .. } => sign_in(returning, Some(reason)),
            Refusal::StepUp(step_up) => {
                let aal = step_up.assurance.map(|level| u8::from(level).to_string());
                let aal = aal.unwrap_or_default();
                Self::Again(Box::new(Returning { aal, ..returning }))
            }
            Refusal::Denied(denial) => Self::Denied(denial),
            Refusal::Unavailable(unavailable) => Self::Unavailable(unavailable),
        }
    }

    fn notice(&self) -> Notice {
        match self {
            Self::SignIn(sign_in) => Notice::new(
                StatusCode::UNAUTHORIZED,
                "You are not signed in",
                sign_in.ended.map_or("Nothing was done.", end_text),
                "Sign in, then do it again.",
            )
            .with_link("/sign-in", "Sign in"),
            Self::Again(_) => Notice::new(
                StatusCode::UNAUTHORIZED,
                "A fresh sign-in is needed",
                "This needs a fresh or stronger sign-in.",
                "",
            )
            .with_link("/sign-in/again", "Sign in again"),
            Self::Denied(denial) => Notice::new(
                StatusCode::FORBIDDEN,
                "Not permitted",
                &denial_text(denial),
                "Ask whoever keeps the policy if you need this.",
            ),
            Self::NotFound(text) => Notice::new(StatusCode::NOT_FOUND, "Not found", text, ""),
            Self::Method => Notice::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "This address does not work that way",
                "The page exists, but it does not take this kind of request.",
                "",
            ),
            Self::Malformed => Notice::new(
                StatusCode::BAD_REQUEST,
                "That was not understood",
                "The request is not complete or not well formed.",
                "Open the page again and repeat what you did.",
            ),
            Self::Slow => Notice::slow(),
            Self::TooLarge => Notice::too_large(),
            Self::Forged => Notice::new(
                StatusCode::FORBIDDEN,
                "This form is out of date",
                "The form was not sent from a current page of Curfew, so nothing was done.",
                "Open the page again and repeat what you did.",
            ),
            Self::Handover(text) => Notice::new(
                StatusCode::BAD_REQUEST,
                "The app cannot be opened",
                text,
                "",
            ),
            Self::Limit(limit) => limit.notice(),
            Self::Unavailable(unavailable) => Notice::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available at the moment",
                outage_text(*unavailable),
                "Nothing was done. Try again in a few seconds.",
            ),
            Self::Failed => Notice::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available at the moment",
                "Curfew could not finish this.",
                "Try again in a few seconds. If it goes on, tell whoever runs Curfew.",
            ),
        }
    }

    /// Where the browser is sent instead of a page.
    fn elsewhere(&self) -> Option<String> {
        if let Self::Again(returning) = self {
            return Some(format!("/sign-in/again{}", returning.query()));
        }
        let Self::SignIn(sign_in) = self else {
            return None;
        };
        let mut to = format!("/sign-in{}", sign_in.returning.query());
        let reason = sign_in
            .ended
            .and_then(|ended| serde_json::to_value(ended).ok());
        if let Some(reason) = reason.as_ref().and_then(serde_json::Value::as_str) {
            to.push(if to.contains('?') { '&' } else { '?' });
            to.push_str(&format!("ended={reason}"));
        }
        sign_in.navigation.then_some(to)
    }
}

impl Limit {
    fn notice(self) -> Notice {
        match self {
            Self::TooWeak => Notice::new(
                StatusCode::FORBIDDEN,
                "A stronger sign-in is needed",
                "This needs a stronger way to sign in than your account has here.",
                "Signing in again the same way will not help.",
            ),
            Self::Codes => Notice::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong codes",
                "Too many codes were entered that are not waiting for an answer.",
                "Wait ten minutes, then start again on the device.",
            ),
            Self::Credentials => Notice::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many passwords",
                "This session has as many passwords and tokens as it can have.",
                "Use one you have, or sign out and in again.",
            ),
            Self::Searches => Notice::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many searches",
                "Too many searches of the log are under way.",
                "Nothing was read. Try again in a few seconds.",
            ),
        }
    }
}

impl Notice {
    fn new(status: StatusCode, title: &'static str, text: &str, hint: &'static str) -> Self {
        let text = text.to_owned();
        Self {
            status,
            title,
            text,
            hint,
            href: "/",
            label: "Go to the start page",
        }
    }

    fn slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "That took too long",
            "The rest of the form did not come in time, so nothing was done.",
            "Open the page again and repeat what you did.",
        )
    }

    fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "That was too much",
            "The form is longer than any form of Curfew.",
            "",
        )
    }

    fn with_link(self, href: &'static str, label: &'static str) -> Self {
        Self {
            href,
            label,
            ..self
        }
    }

    fn into_page(self) -> Response {
        let Self {
            status,
            title,
            text,
            hint,
            href,
            label,
        } = self;
        let frame = Frame::signed_out(title);
        page(
            status,
            &NoticePage {
                frame,
                text,
                hint,
                href,
                label,
            },
        )
    }
}

/// A redirect with status 303: whatever was asked, the next request is a GET.
fn see_other(to: &str) -> Response {
    match HeaderValue::try_from(to) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = match self.elsewhere() {
            Some(to) => see_other(&to),
            None => self.notice().into_page(),
        };
        let headers = response.headers_mut();
        if matches!(&self, Self::SignIn(sign_in) if sign_in.forget) {
            headers.append(SET_COOKIE, cookies::expire_session());
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"curfew\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let wait = HeaderValue::from(OUTAGE_RETRY_SECS);
            response.headers_mut().insert(RETRY_AFTER, wait);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden() -> Denial {
        Denial {
            session: None,
            cause: curfew_entry::DenialCause::Forbidden,
            rules: Vec::new(),
            reasons: vec!["Nothing is changed on <Fridays>.".to_owned()],
        }
    }

    #[test]
    fn a_refusal_shows_the_policys_own_words() {
        let notice = Fault::Denied(forbidden()).notice();
        assert_eq!(
            notice.text,
            "The policy does not permit this: Nothing is changed on <Fridays>."
        );
    }

    fn sign_in(navigation: bool) -> Fault {
        Fault::SignIn(Box::new(SignIn {
            returning: Returning::local("/log?kind=action"),
            ended: Some(EndReason::Idle),
            forget: true,
            navigation,
        }))
    }

    #[test]
    fn a_page_without_a_session_leads_to_sign_in_and_back() {
        let response = sign_in(true).into_response();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let location = response.headers()[LOCATION].to_str().unwrap();
        assert_eq!(location, "/sign-in?to=/log%3Fkind%3Daction&ended=idle");
        assert_eq!(response.headers()[SET_COOKIE], cookies::expire_session());
    }

    #[test]
    fn a_form_without_a_session_is_refused_and_not_repeated() {
        let response = sign_in(false).into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
        assert!(!response.headers().contains_key(LOCATION));
    }

    #[test]
    fn refusals_have_the_status_that_http_gives_them() {
        let cases = [
            (Fault::Again(Box::new(Returning::local("/"))), 303),
            (Fault::Denied(forbidden()), 403),
            (Fault::NotFound(""), 404),
            (Fault::Method, 405),
            (Fault::Malformed, 400),
            (Fault::Slow, 408),
            (Fault::TooLarge, 413),
            (Fault::Forged, 403),
            (Fault::Limit(Limit::TooWeak), 403),
            (Fault::Limit(Limit::Codes), 429),
            (Fault::Unavailable(Unavailable::DiskFull), 503),
            (Fault::Failed, 503),
        ];
        for (fault, status) in cases {
            let response = fault.clone().into_response();
            assert_eq!(response.status().as_u16(), status, "{fault:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
        }
    }
}
