//! Curfew's own paths on a resource's host: arriving with a session, and signing out.

use axum::extract::Query;
use curfew_entry::{Credential, CredentialClass, EndReason, SessionId};
use curfew_gate::handover::{ARRIVE_PATH, Handover, ROUNDS_MAX, local_path, sign_in_again_url};
use curfew_gate::registrar::{Refusal, Unavailable};
use curfew_gate::{Command, EndCause, NewCredential, NotDone, Verdict, secret};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde::Deserialize;

use super::answer::{Manner, Notice};
use super::credential::{self, Shown};
use super::head::Unfit;
use super::{Body, Visit, cache, origin};

/// What lies below this is never the resource's.
const OWN_PATHS: &str = "/.curfew";

/// Where a page of the resource posts to, to end the session.
const SIGN_OUT_PATH: &str = "/.curfew/sign-out";

/// What a cookie's secret starts with.
const COOKIE_PREFIX: &str = "cfc_";

/// The query of [`ARRIVE_PATH`].
#[derive(Deserialize)]
struct Arrival {
    code: String,
    #[serde(default)]
    to: String,
    /// How often this browser came with a code that did not work.
    #[serde(default)]
    round: u8,
}

/// Whether a path is Curfew's own.
pub(super) fn is_own(path: &str) -> bool {
    path.strip_prefix(OWN_PATHS)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn too_many() -> Response<Body> {
    Notice::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_requests",
        "Too many sign-ins",
        "This session has as many cookies, passwords and tokens as it can have.",
    )
    .hint("Sign out at Curfew's own pages and in again.")
    .answer(Manner::Page)
}

impl Visit<'_> {
    /// Answers on Curfew's own paths.
    pub(super) async fn own(&self, head: &Parts, shown: Option<Shown>) -> Response<Body> {
        match (head.uri.path(), &head.method) {
            (ARRIVE_PATH, &Method::GET) => self.arrive(head, shown).await,
            (SIGN_OUT_PATH, &Method::POST) => self.sign_out(head, shown).await,
            (ARRIVE_PATH | SIGN_OUT_PATH, _) => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                self.unfit(Unfit {
                    status,
                    text: "this method is not allowed here",
                })
            }
            _ => self.unfit(Unfit {
                status: StatusCode::NOT_FOUND,
                text: "nothing is here",
            }),
        }
    }

    async fn arrive(&self, head: &Parts, shown: Option<Shown>) -> Response<Body> {
        let Ok(Query(arrival)) = Query::<Arrival>::try_from_uri(&head.uri) else {
            return self.unfit(Unfit::bad("the link is damaged"));
        };
        let to = local_path(&arrival.to).unwrap_or("/").to_owned();
        let begin = self.begin.as_deref().unwrap_or_default();
        let resource = &self.resource.name;
        let arriving = self.plane.handover.redeem(&arrival.code, resource, begin);
        let held = match shown {
            Some(shown) => match self.session_of(shown).await {
                Ok(held) => held,
                Err(refusal) => return self.refuse(&refusal),
            },
            None => None,
        };
        let goes_on = || {
            let notice = Notice::new(StatusCode::SEE_OTHER, "", "Signed in", "You are signed in.");
            notice.link(to.clone(), "Go on")
        };
        match (arriving, held) {
            // Another tab has arrived before.
            (None, Some(_)) => goes_on().answer(Manner::Page),
            (Some(arriving), Some(held)) if arriving == held => goes_on().answer(Manner::Page),
            (None, None) => self.begin_again(arrival.round, &to),
            (Some(session), _) => match self.issue(session).await {
                Ok(Some(cookie)) => goes_on()
                    .header(header::SET_COOKIE, Some(cookie))
                    .answer(Manner::Page),
                Ok(None) => too_many(),
                Err(refusal) => self.refuse(&refusal),
            },
        }
    }

    /// Sends a browser round once more whose code did not work. Its session at the portal, where it has
    /// one, brings it here again by itself.
    fn begin_again(&self, round: u8, to: &str) -> Response<Body> {
        if round >= ROUNDS_MAX {
            return Notice::new(
                StatusCode::BAD_REQUEST,
                "invalid_grant",
                "You could not be signed in here",
                "Your browser did not keep the cookie that ties the sign-in to it.",
            )
            .hint("Allow cookies for this site and for Curfew's, then go on.")
            .link(to.to_owned(), "Go on")
            .answer(Manner::Page);
        }
        let Ok(begin) = Handover::begin(self.begin.as_deref()) else {
            return self.unavailable(Unavailable::Ledger);
        };
        let (portal, resource) = (self.plane.site.portal_url(), &self.resource.name);
        let url = sign_in_again_url(&portal, resource, to, &begin.state, round + 1);
        Notice::new(StatusCode::SEE_OTHER, "", "Signing in", "Go on to sign in.")
            .link(url, "Go on")
            .header(header::SET_COOKIE, credential::set_begin(&begin.cookie))
            .answer(Manner::Page)
    }

    /// The live session that a credential presents here. Looking is no use of it.
    async fn session_of(&self, shown: Shown) -> Result<Option<SessionId>, Refusal> {
        let found = self.plane.registrar.credential(shown.hash).await?;
        let Some(found) = found else { return Ok(None) };
        let opens = found.opens
            && found.credential.class == shown.class
            && found.credential.audience.as_ref() == Some(&self.resource.name);
        Ok(found.session.lives().filter(|_| opens).map(|live| live.id))
    }

    /// Gives the session a cookie for this host; none where it has as many credentials as it can have.
    async fn issue(&self, session: SessionId) -> Result<Option<HeaderValue>, Refusal> {
        let broken = |_| Refusal::Unavailable(Unavailable::Ledger);
        let token = secret::token(COOKIE_PREFIX).map_err(broken)?;
        let credential = Credential {
            id: secret::credential_id().map_err(broken)?,
            class: CredentialClass::Cookie,
            hash: secret::hash(secrecy::ExposeSecret::expose_secret(&token)),
            audience: Some(self.resource.name.clone()),
            expires: None,
        };
        let cookie = credential::set_session(&token).ok_or(Refusal::Unauthenticated)?;
        let command = Command::IssueCredential(NewCredential {
            session,
            credential,
        });
        match self.plane.registrar.command(command).await? {
            Verdict::Done => Ok(Some(cookie)),
            Verdict::Refused(NotDone::TooManyCredentials(_)) => Ok(None),
            Verdict::Ended { session, reason } => Err(Refusal::Ended { session, reason }),
            Verdict::Deny(denial) => Err(Refusal::Denied(denial)),
            Verdict::StepUp(step_up) => Err(Refusal::StepUp(step_up)),
            Verdict::Allow(_) | Verdict::Unauthenticated | Verdict::Refused(_) => {
                Err(Refusal::Unauthenticated)
            }
        }
    }

    async fn sign_out(&self, head: &Parts, shown: Option<Shown>) -> Response<Body> {
        if origin::is_foreign(&head.headers, &self.named) {
            return self.foreign();
        }
        if let Some(shown) = shown
            && let Err(refusal) = self.end(shown).await
        {
            return self.refuse(&refusal);
        }
        let text = "Your session has ended everywhere.";
        let notice = Notice::new(StatusCode::OK, "signed_out", "You have signed out", text)
            .link("/".to_owned(), "Sign in again")
            .header(header::SET_COOKIE, credential::clear_session());
        cache::forget(notice.answer(self.manner))
    }

    /// Ends the session that a credential presents. One that presents none has nothing to end.
    async fn end(&self, shown: Shown) -> Result<(), Refusal> {
        let found = self.plane.registrar.credential(shown.hash).await?;
        let fits = found.filter(|found| found.is_for(shown.class, &self.resource.name));
        if let Some(session) = fits.map(|found| found.id) {
            let cause = EndCause {
                reason: EndReason::SignedOut,
                by: None,
            };
            self.plane.registrar.end(session, cause).await?;
        }
        Ok(())
    }
}
