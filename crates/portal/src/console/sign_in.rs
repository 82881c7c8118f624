//! Sign-in: name, password and one-time code for a session.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::Response;
use curfew_entry::{EndReason, SessionId};
use curfew_gate::{Command, EndCause, Refusal, Verdict, secret};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::attempt::{self, Arrival, Attempt, Outcome, Typed};
use super::fault::Fault;
use super::frame::{Frame, page};
use super::returning::Returning;
use super::viewer::Visit;
use super::{Portal, cookies, csrf};
use crate::oauth::end_text;

/// How the cookie of the sign-in form begins.
const FORM_PREFIX: &str = "cff_";

/// The sign-in and re-authentication form.
#[derive(askama::Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignInPage {
    pub(super) frame: Frame,
    /// Where the form goes.
    pub(super) action: &'static str,
    /// The app to go on to.
    pub(super) app: Option<String>,
    /// Who it must be; anybody where it is none.
    pub(super) subject: Option<String>,
    /// The name that was typed before.
    pub(super) name: String,
    pub(super) csrf: String,
    pub(super) returning: Returning,
    /// What is wrong.
    pub(super) error: Option<String>,
    /// What happened before.
    pub(super) note: Option<String>,
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct SignInForm {
    #[serde(default)]
    pub(super) csrf: String,
    /// Nothing where the session says who it must be.
    #[serde(default)]
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) typed: Typed,
    #[serde(flatten)]
    pub(super) returning: Returning,
}

/// The form.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
    returning: Result<Query<Returning>, QueryRejection>,
) -> Result<Response, Fault> {
    let Query(returning) = returning.map_err(|_| Fault::Malformed)?;
    returning.app(&portal)?;
    let mut forget = false;
    let mut ended = returning.ended();
    match visit.clone().signed_in(&portal).await {
        Ok(Some(viewer)) if returning.wants_fresh(viewer.session.proof.aal) => {
            return Err(Fault::Again(Box::new(returning)));
        }
        Ok(Some(viewer)) => return returning.go(&portal, viewer.session.id),
        Ok(None) => {}
        Err(Refusal::Unavailable(unavailable)) => return Err(Fault::Unavailable(unavailable)),
        Err(Refusal::Ended { reason, .. }) => {
            forget = true;
            ended = Some(reason);
        }
        Err(Refusal::Unauthenticated | Refusal::Denied(_) | Refusal::StepUp(_)) => forget = true,
    }
    let note = ended
        .filter(|reason| *reason != EndReason::SignedOut)
        .map(|reason| format!("{}.", end_text(reason)));
    let mut response = form(&portal, &visit, &returning, String::new(), None, note)?;
    if forget {
        response
            .headers_mut()
            .append(SET_COOKIE, cookies::expire_session());
    }
    Ok(response)
}

/// The form as an answer, with the cookie that it belongs to.
fn form(
    portal: &Portal,
    visit: &Visit,
    returning: &Returning,
    name: String,
    error: Option<(StatusCode, String)>,
    note: Option<String>,
) -> Result<Response, Fault> {
    let cookie: SecretString = match form_cookie(visit) {
        // Used again, so that forms in two tabs both work.
        Some(held) => held.to_owned().into(),
        None => secret::token(FORM_PREFIX).map_err(|_| Fault::Failed)?,
    };
    let (status, error) = error.map_or((StatusCode::OK, None), |(status, text)| {
        (status, Some(text))
    });
    let template = SignInPage {
        frame: Frame::signed_out("Sign in"),
        action: "/sign-in",
        app: returning.app(portal)?.map(|web| web.name.to_string()),
        subject: None,
        name,
        csrf: csrf::form_token(&portal.setup.master, cookie.expose_secret()),
        returning: returning.clone(),
        error,
        note,
    };
    let mut response = page(status, &template);
    let set = cookies::set(cookies::FORM, &cookie).ok_or(Fault::Failed)?;
    response.headers_mut().append(SET_COOKIE, set);
    Ok(response)
}

fn is_form_cookie(text: &str) -> bool {
    // 43 = ⌈32 bytes · 4 / 3⌉ in base64url.
    text.strip_prefix(FORM_PREFIX).is_some_and(|rest| {
        rest.len() == 43
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// What the form sent.
pub(super) async fn submit(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
    sent: Result<Form<SignInForm>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    let SignInForm {
        csrf,
        name,
        typed,
        returning,
    } = sent;
    returning.app(&portal)?;
    let again = |error| form(&portal, &visit, &returning, name.clone(), Some(error), None);
    if !csrf::same_origin(&visit.headers, &portal.setup.site.portal_url()) {
        let text = "This form was not sent from Curfew's own page. Please sign in here.".to_owned();
        return again((StatusCode::FORBIDDEN, text));
    }
    let held = visit.clone().signed_in(&portal).await.ok().flatten();
    if let Some(held) = &held
        && held.session.subject.as_str() == name.trim()
        && !returning.wants_fresh(held.session.proof.aal)
    {
        // Another tab was faster: whoever wanted to go somewhere goes there.
        return returning.go(&portal, held.session.id.clone());
    }
    if !is_own_form(&portal, &visit, &csrf) {
        let text = "This page had been open for too long. Please sign in again.".to_owned();
        return again((StatusCode::FORBIDDEN, text));
    }
    let key = form_cookie(&visit)
        .map(|cookie| attempt::key(&portal, &[cookie, &name, typed.password(), typed.code()]));
    let look = || {
        let (portal, visit) = (Arc::clone(&portal), visit.clone());
        let (name, typed, returning) = (name.clone(), typed.clone(), returning.clone());
        let old = held.as_ref().map(|held| held.session.id.clone());
        async move {
            let signing_in = SigningIn {
                portal: &portal,
                visit: &visit,
                returning: &returning,
            };
            signing_in.start(name, typed, old).await
        }
    };
    match attempt::once(&portal, key, look).await? {
        Outcome::Arrived(arrival) => arrival.go(&portal, &returning),
        Outcome::Refused(refused) => refused.answer(again),
    }
}

fn form_cookie(visit: &Visit) -> Option<&str> {
    cookies::get(&visit.headers, cookies::FORM).filter(|held| is_form_cookie(held))
}

/// Whether one of our pages sent the form, in the browser that it was sent to.
fn is_own_form(portal: &Portal, visit: &Visit, token: &str) -> bool {
    let fits = |cookie| csrf::matches(&csrf::form_token(&portal.setup.master, cookie), token);
    // Tabs that were opened at once had cookies that took each other's place; the browser itself then
    // says that the form is ours.
    csrf::is_vouched_for(&visit.headers) || form_cookie(visit).is_some_and(fits)
}

/// A browser that is about to sign in, and where it goes from there.
struct SigningIn<'a> {
    portal: &'a Portal,
    visit: &'a Visit,
    returning: &'a Returning,
}

impl SigningIn<'_> {
    /// Looks at what was typed, and begins a session. `old` is the one that this browser held before:
    /// its cookie is replaced, so it ends.
    async fn start(
        &self,
        name: String,
        typed: Typed,
        old: Option<SessionId>,
    ) -> Result<Outcome, Fault> {
        let attempted = attempt::look_at(self.portal, self.visit, name, typed, self.returning);
        let verified = match attempted.await? {
            Attempt::Verified(verified) => verified,
            Attempt::Refused(refused) => return Ok(Outcome::Refused(refused)),
        };
        let cookie = attempt::new_cookie()?;
        let session = secret::session_id().map_err(|_| Fault::Failed)?;
        let command = Command::StartSession {
            session: session.clone(),
            subject: verified.subject,
            roles: verified.roles,
            proof: verified.proof,
            context: self.visit.context(self.portal),
            credential: cookie.credential.clone(),
        };
        let refused = |refusal| Fault::refused(refusal, self.returning.clone(), false);
        let registrar = &self.portal.setup.registrar;
        let verdict = registrar.command(command).await.map_err(refused)?;
        if let Verdict::Deny(denial) = verdict {
            return Err(Fault::Denied(denial));
        }
        if !matches!(verdict, Verdict::Done | Verdict::Allow(_)) {
            tracing::error!(?verdict, "a new session was not taken");
            return Err(Fault::Failed);
        }
        if let Some(session) = old {
            let cause = EndCause {
                reason: EndReason::SignedOut,
                by: None,
            };
            let end = registrar.command(Command::End { session, cause });
            // Whatever the verdict, it does not live any more.
            let _ended = end.await.map_err(refused)?;
        }
        Ok(Outcome::Arrived(Arrival {
            session,
            cookie,
            browser: verified.browser,
        }))
    }
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::*;

    fn template(name: &str, to: &str) -> String {
        SignInPage {
            frame: Frame::signed_out("Sign in"),
            action: "/sign-in",
            app: Some("shop".into()),
            subject: None,
            name: name.into(),
            csrf: "token".into(),
            returning: Returning {
                resource: "shop".into(),
                ..Returning::local(to)
            },
            error: Some("The name, password or code is not right.".into()),
            note: None,
        }
        .render()
        .unwrap()
    }

    #[test]
    fn hostile_names_and_paths_stay_text() {
        let html = template("\"><script>alert(1)</script>", "/\"><img src=x>");
        assert!(!html.contains("<script>"), "{html}");
        assert!(!html.contains("<img src=x"), "{html}");
        assert!(
            html.contains("&#34;&#62;&#60;script&#62;"),
            "the name is kept, as text"
        );
    }

    #[test]
    fn the_form_helps_password_managers_and_screen_readers() {
        let html = template("", "/");
        for wanted in [
            "autocomplete=\"username\"",
            "autocomplete=\"current-password\"",
            "autocomplete=\"one-time-code\"",
            "<label for=\"name\"",
            "<label for=\"password\"",
            "<label for=\"code\"",
            "role=\"alert\"",
            "lang=\"en\"",
        ] {
            assert!(html.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn only_a_form_cookie_of_ours_is_kept() {
        let ours = secret::token(FORM_PREFIX).unwrap();
        assert!(is_form_cookie(ours.expose_secret()));
        for other in ["", "cff_", "cff_x", &format!("cff_{}", ";".repeat(43))] {
            assert!(!is_form_cookie(other));
        }
    }
}
