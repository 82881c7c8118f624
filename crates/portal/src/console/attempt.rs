//! An attempt to prove who one is: what was typed, what comes of it, and the cookies of whoever did.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use axum::http::header::{RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_entry::{
    Credential, CredentialClass, Proof, RefusalCause, ResourceName, RoleName, SessionId, Span,
    SubjectName,
};
use curfew_gate::{Command, NotCarriedOut, secret};
use curfew_identity::{Browser, Origin, SignInError};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::fault::{Fault, Limit};
use super::once::Key;
use super::returning::Returning;
use super::viewer::Visit;
use super::{Portal, cookies, text};

/// How cookies of the portal begin.
const COOKIE_PREFIX: &str = "cfs_";

/// How cookies begin by which a browser is known again.
const BROWSER_PREFIX: &str = "cfb_";

/// What a person reads whatever the reason for which a sign-in was refused.
const REFUSED: &str = "The name, password or code is not right.";

/// But for this one, which only somebody reads who had both password and code.
const REUSED: &str = "This code was just used. Wait until your authenticator app shows the next one, then sign in with it.";

/// What was typed to prove it.
#[derive(Clone, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    password: Password,
    #[serde(default)]
    code: String,
}

#[derive(Clone, Deserialize)]
#[serde(from = "String")]
struct Password(SecretString);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Default for Password {
    fn default() -> Self {
        String::new().into()
    }
}

impl Typed {
    pub(super) fn password(&self) -> &str {
        self.password.0.expose_secret()
    }

    pub(super) fn code(&self) -> &str {
        self.code.trim()
    }
}

/// An attempt that was looked at.
pub(super) enum Attempt {
    /// It is who it says it is, as surely as the way back demands.
    Verified(Box<Verified>),
    /// It is not, or it came too soon after too many others.
    Refused(Refused),
}

/// Who it is, and by what the browser is known again.
pub(super) struct Verified {
    pub(super) subject: SubjectName,
    pub(super) roles: BTreeSet<RoleName>,
    pub(super) proof: Proof,
    pub(super) browser: SecretString,
}

/// What there is to say of an attempt that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refused {
    why: Why,
    retry_after: Option<Span>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    /// Something is not right; which, is nobody's business.
    Wrong,
    /// All is right, and the code was used before.
    Reused,
    TooMany,
}

/// What comes of a form in which somebody proves who they are.
#[derive(Clone)]
pub(super) enum Outcome {
    /// There is a session, and the browser gets its cookie.
    Arrived(Arrival),
    /// There is none.
    Refused(Refused),
}

/// What a browser gets that has signed in.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) session: SessionId,
    pub(super) cookie: Cookie,
    pub(super) browser: SecretString,
}

/// A fresh cookie for the portal: what the browser gets, and what is kept of it.
#[derive(Clone)]
pub(super) struct Cookie {
    secret: SecretString,
    pub(super) credential: Credential,
}

/// A fresh cookie for the portal.
pub(super) fn new_cookie() -> Result<Cookie, Fault> {
    let secret = secret::token(COOKIE_PREFIX).map_err(|_| Fault::Failed)?;
    let credential = Credential {
        id: secret::credential_id().map_err(|_| Fault::Failed)?,
        class: CredentialClass::Cookie,
        hash: secret::hash(secret.expose_secret()),
        audience: Some(ResourceName::gateway()),
        expires: None,
    };
    Ok(Cookie { secret, credential })
}

impl Arrival {
    /// Sends the browser on with its new cookies.
    pub(super) fn go(&self, portal: &Portal, returning: &Returning) -> Result<Response, Fault> {
        let failed = || Fault::Failed;
        let session = cookies::set(cookies::SESSION, &self.cookie.secret).ok_or_else(failed)?;
        let browser = cookies::set_browser(&self.browser).ok_or_else(failed)?;
        // The session is there even where the way back is not.
        let mut response = match returning.go(portal, self.session.clone()) {
            Ok(response) => response,
            Err(fault) => fault.into_response(),
        };
        let headers = response.headers_mut();
        headers.append(SET_COOKIE, session);
        headers.append(SET_COOKIE, browser);
        Ok(response)
    }

    /// Whether the cookie still opens something.
    async fn is_live(&self, portal: &Portal) -> bool {
        let hash = self.cookie.credential.hash.clone();
        let found = portal.setup.registrar.credential(hash).await;
        let found = found.ok().flatten();
        found.is_some_and(|found| found.opens && found.id == self.session)
    }
}

/// The name of a form, by what only this browser can have sent.
pub(super) fn key(portal: &Portal, parts: &[&str]) -> Key {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    for part in parts {
        bytes.extend_from_slice(&part.len().to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    *portal.setup.master.derive("sign-in-form", &bytes)
}

/// What comes of a form, which is looked at once however often it is sent. One that no browser is known
/// to have sent has no name, and is looked at each time.
pub(super) async fn once<L>(
    portal: &Portal,
    key: Option<Key>,
    look: impl Fn() -> L,
) -> Result<Outcome, Fault>
where
    L: Future<Output = Result<Outcome, Fault>> + Send + 'static,
{
    let Some(key) = key else {
        return look().await;
    };
    let arrived = |found: &Result<Outcome, Fault>| matches!(found, Ok(Outcome::Arrived(_)));
    let ask = || portal.sign_ins.answer(key, arrived, look());
    let found = ask().await.ok_or(Fault::Failed)?;
    if let Ok(Outcome::Arrived(arrival)) = &found
        && !arrival.is_live(portal).await
    {
        // Signed out since then: the same form does not bring that session back.
        portal.sign_ins.forget(&key);
        return ask().await.ok_or(Fault::Failed)?;
    }
    found
}

/// What the browser is known by, or from now on. 43 = ⌈32 bytes · 4 / 3⌉ in base64url.
fn browser(visit: &Visit) -> Result<SecretString, Fault> {
    let held = cookies::get(&visit.headers, cookies::BROWSER).filter(|held| {
        held.strip_prefix(BROWSER_PREFIX)
            .is_some_and(|rest| rest.len() == 43)
    });
    match held {
        Some(held) => Ok(held.to_owned().into()),
        None => secret::token(BROWSER_PREFIX).map_err(|_| Fault::Failed),
    }
}

/// Looks at name, password and code. A refusal is recorded, or counted, before anybody hears of it.
pub(super) async fn look_at(
    portal: &Portal,
    visit: &Visit,
    name: String,
    typed: Typed,
    returning: &Returning,
) -> Result<Attempt, Fault> {
    let accounts = Arc::clone(&portal.setup.accounts);
    let browser = browser(visit)?;
    let from = Origin {
        address: visit.address,
        browser: Some(Browser::with(browser.expose_secret())),
    };
    let now = portal.setup.registrar.now();
    let verified = tokio::task::spawn_blocking(move || {
        accounts.verify(name.trim(), &typed.password.0, typed.code(), &from, now)
    })
    .await
    .map_err(|_| Fault::Failed)?;
    match verified {
        Ok(verified) if returning.level() > Some(verified.proof.aal) => {
            Err(Fault::Limit(Limit::TooWeak))
        }
        Ok(verified) => Ok(Attempt::Verified(Box::new(Verified {
            subject: verified.subject,
            roles: verified.roles,
            proof: verified.proof,
            browser,
        }))),
        Err(SignInError::Failed(error)) => {
            tracing::error!(%error, "a sign-in could not be looked at");
            Err(Fault::Failed)
        }
        Err(SignInError::Refused(refused)) => {
            let command = Command::RefuseSignIn {
                subject: refused.subject,
                cause: refused.cause,
                address: visit.address,
            };
            let recorded = portal.setup.registrar.carry_out(command).await;
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
                why: match refused.cause {
                    RefusalCause::TooManyAttempts => Why::TooMany,
                    RefusalCause::CodeReused => Why::Reused,
                    RefusalCause::UnknownAccount
                    | RefusalCause::WrongPassword
                    | RefusalCause::WrongCode
                    | RefusalCause::Disabled
                    | RefusalCause::NotPermitted
                    | RefusalCause::InsufficientProof => Why::Wrong,
                },
                retry_after: refused.retry_after,
            }))
        }
    }
}

impl Refused {
    /// The form once more, with what is wrong and the headers that say it to programs.
    pub(super) fn answer(
        &self,
        form: impl FnOnce((StatusCode, String)) -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        let mut response = form(self.told())?;
        let (header, value) = if self.why == Why::TooMany {
            let wait = self.retry_after.map_or(1, whole_secs);
            (RETRY_AFTER, HeaderValue::from(wait))
        } else {
            let challenge = HeaderValue::from_static("Bearer realm=\"curfew\"");
            (WWW_AUTHENTICATE, challenge)
        };
        response.headers_mut().insert(header, value);
        Ok(response)
    }

    /// Status and sentence.
    fn told(&self) -> (StatusCode, String) {
        match self.why {
            Why::Wrong => return (StatusCode::UNAUTHORIZED, REFUSED.to_owned()),
            Why::Reused => return (StatusCode::UNAUTHORIZED, REUSED.to_owned()),
            Why::TooMany => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_refusals_read_the_same_but_for_too_many_and_a_used_code() {
        let told = |why, retry_after| Refused { why, retry_after }.told();
        let wrong = told(Why::Wrong, None);
        assert_eq!(wrong, told(Why::Wrong, Some(Span::from_secs(9))));
        let (status, text) = told(Why::TooMany, Some(Span::from_millis(1_001)));
        assert_eq!(
            (status.as_u16(), text.as_str()),
            (429, "Too many attempts. Try again in 2 s.")
        );
        assert!(told(Why::Reused, None).1.contains("just used"));
    }
}
