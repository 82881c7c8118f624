//! Sign-in: name, password and one-time code for a session.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_authority::{
    Command, Credential, CredentialClass, EndCause, EndReason, RefusalCause, ResourceName,
    SessionId, Span, Verdict,
};
use curfew_identity::{SignInError, Verified};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::fault::{Fault, Limit};
use super::frame::{Frame, page};
use super::returning::Returning;
use super::viewer::Visit;
use super::{Portal, cookies, csrf, text};
use crate::oauth::end_text;
use crate::{NotCarriedOut, Refusal, secret};

/// How cookies of the portal begin.
const COOKIE_PREFIX: &str = "cfs_";

/// How the cookie of the sign-in form begins.
const FORM_PREFIX: &str = "cff_";

/// What a person reads whatever the reason for which a sign-in was refused.
const REFUSED: &str = "The name, password or code is not right.";

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

/// What was typed to prove it.
#[derive(Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
}

/// An attempt that was looked at.
pub(super) enum Attempt {
    /// It is who it says it is, as surely as the way back demands.
    Verified(Box<Verified>),
    /// It is not, or it came too soon after too many others.
    Refused(Refused),
}

/// What there is to say of an attempt that failed.
pub(super) struct Refused {
    too_many: bool,
    retry_after: Option<Span>,
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
    let held = cookies::get(&visit.headers, cookies::FORM).filter(|held| is_form_cookie(held));
    let cookie: SecretString = match held {
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
        csrf: csrf::form_token(&portal.gateway.master, cookie.expose_secret()),
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
    if !is_own_form(&portal, &visit, &csrf) {
        let text = "This page had been open for too long. Please sign in again.".to_owned();
        let error = Some((StatusCode::FORBIDDEN, text));
        return form(&portal, &visit, &returning, name, error, None);
    }
    match attempt(&portal, &visit, name.clone(), typed, &returning).await? {
        Attempt::Verified(verified) => start(&portal, visit, *verified, &returning).await,
        Attempt::Refused(refused) => {
            refused.answer(|error| form(&portal, &visit, &returning, name, Some(error), None))
        }
    }
}

fn is_own_form(portal: &Portal, visit: &Visit, token: &str) -> bool {
    let Some(cookie) = cookies::get(&visit.headers, cookies::FORM) else {
        return false;
    };
    csrf::same_origin(&visit.headers, &portal.gateway.portal_url())
        && csrf::matches(&csrf::form_token(&portal.gateway.master, cookie), token)
}

impl Refused {
    /// The form once more, with what is wrong and the headers that say it to programs.
    pub(super) fn answer(
        &self,
        form: impl FnOnce((StatusCode, String)) -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        let mut response = form(self.told())?;
        let (header, value) = if self.too_many {
            let wait = self.retry_after.map_or(1, whole_secs);
            (RETRY_AFTER, HeaderValue::from(wait))
        } else {
            let challenge = HeaderValue::from_static("Bearer realm=\"curfew\"");
            (WWW_AUTHENTICATE, challenge)
        };
        response.headers_mut().insert(header, value);
        Ok(response)
    }

    /// Status and sentence. One sentence for every cause.
    fn told(&self) -> (StatusCode, String) {
        if !self.too_many {
            return (StatusCode::UNAUTHORIZED, REFUSED.to_owned());
        }
        let wait = self
            .retry_after
            .map(|span| Span::from_secs(whole_secs(span)));
        let text = wait.map_or_else(
            || "Too many attempts. Try again later.".to_owned(),
            |wait| format!("Too many attempts. Try again in {}.", text::span(wait)),
        );
        (StatusCode::TOO_MANY_REQUESTS, text)
    }
}

/// Rounded up: who comes after this many seconds does not come too soon.
fn whole_secs(span: Span) -> u64 {
    span.as_micros().div_ceil(1_000_000).max(1)
}

/// Looks at name, password and code. A refusal is recorded before anybody hears of it.
pub(super) async fn attempt(
    portal: &Portal,
    visit: &Visit,
    name: String,
    typed: Typed,
    returning: &Returning,
) -> Result<Attempt, Fault> {
    let password = SecretString::from(typed.password);
    let accounts = Arc::clone(&portal.gateway.accounts);
    let (address, now) = (visit.address, portal.gateway.registrar.now());
    let verified = tokio::task::spawn_blocking(move || {
        let code = typed.code.trim();
        accounts.verify(name.trim(), &password, code, address, now)
    })
    .await
    .map_err(|_| Fault::Failed)?;
    match verified {
        Ok(verified) if returning.level() > Some(verified.proof.aal) => {
            Err(Fault::Limit(Limit::TooWeak))
        }
        Ok(verified) => Ok(Attempt::Verified(Box::new(verified))),
        Err(SignInError::Failed(error)) => {
            tracing::error!(%error, "a sign-in could not be looked at");
            Err(Fault::Failed)
        }
        Err(SignInError::Refused(refused)) => {
            let command = Command::RefuseSignIn {
                subject: refused.subject,
                cause: refused.cause,
                address,
            };
            let recorded = portal.gateway.registrar.carry_out(command).await;
            recorded.map_err(|error| match error {
                NotCarriedOut::Refused(refusal) => {
                    Fault::refused(refusal, Returning::default(), false)
                }
                NotCarriedOut::Impossible(fault) => {
                    tracing::error!(%fault, "a refused sign-in cannot be recorded");
                    Fault::Failed
                }
            })?;
            Ok(Attempt::Refused(Refused {
                too_many: refused.cause == RefusalCause::TooManyAttempts,
                retry_after: refused.retry_after,
            }))
        }
    }
}

/// A fresh cookie for the portal: what the browser gets, and what is kept of it.
pub(super) fn new_cookie() -> Result<(SecretString, Credential), Fault> {
    let secret = secret::token(COOKIE_PREFIX).map_err(|_| Fault::Failed)?;
    let credential = Credential {
        id: secret::credential_id().map_err(|_| Fault::Failed)?,
        class: CredentialClass::Cookie,
        hash: secret::hash(secret.expose_secret()),
        audience: Some(ResourceName::gateway()),
        expires: None,
    };
    Ok((secret, credential))
}

/// Sends the browser on with its new cookie.
pub(super) fn arrive(
    portal: &Portal,
    session: SessionId,
    cookie: &SecretString,
    returning: &Returning,
) -> Result<Response, Fault> {
    let set = cookies::set(cookies::SESSION, cookie).ok_or(Fault::Failed)?;
    // The session is there even where the way back is not.
    let mut response = match returning.go(portal, session) {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    };
    response.headers_mut().append(SET_COOKIE, set);
    response
        .headers_mut()
        .append(SET_COOKIE, cookies::expire_form());
    Ok(response)
}

async fn start(
    portal: &Portal,
    visit: Visit,
    verified: Verified,
    returning: &Returning,
) -> Result<Response, Fault> {
    let (cookie, credential) = new_cookie()?;
    let session = secret::session_id().map_err(|_| Fault::Failed)?;
    let command = Command::StartSession {
        session: session.clone(),
        subject: verified.subject,
        roles: verified.roles,
        proof: verified.proof,
        context: visit.context(portal),
        credential,
    };
    let refused = |refusal| Fault::refused(refusal, returning.clone(), false);
    let verdict = portal
        .gateway
        .registrar
        .command(command)
        .await
        .map_err(refused)?;
    if let Verdict::Deny(denial) = verdict {
        return Err(Fault::Denied(denial.cause));
    }
    if !matches!(verdict, Verdict::Done | Verdict::Allow(_)) {
        tracing::error!(?verdict, "a new session was not taken");
        return Err(Fault::Failed);
    }
    end_old(portal, visit).await?;
    arrive(portal, session, &cookie, returning)
}

/// The session that this browser held before is over: its cookie is replaced.
async fn end_old(portal: &Portal, visit: Visit) -> Result<(), Fault> {
    let Ok(Some(old)) = visit.signed_in(portal).await else {
        return Ok(());
    };
    let cause = EndCause {
        reason: EndReason::SignedOut,
        by: None,
    };
    let ended = portal.gateway.registrar.end(old.session.id, cause).await;
    // Known or not, it is not live any more.
    ended.map_err(|refusal| Fault::refused(refusal, Returning::default(), false))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use askama::Template;

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
            error: Some(REFUSED.into()),
            note: None,
        }
        .render()
        .unwrap()
    }

    #[test]
    fn hostile_names_and_paths_stay_text() {
        let html = template("\"><script>alert(1)</script>", "/\"><img src=x>");
        assert!(!html.contains("<script"), "{html}");
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
    fn all_refusals_read_the_same_but_for_too_many() {
        let told = |too_many, retry_after| {
            Refused {
                too_many,
                retry_after,
            }
            .told()
        };
        assert_eq!(told(false, None), told(false, Some(Span::from_secs(9))));
        let (status, text) = told(true, Some(Span::from_millis(1_001)));
        assert_eq!(
            (status.as_u16(), text.as_str()),
            (429, "Too many attempts. Try again in 2 s.")
        );
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
