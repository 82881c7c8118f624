//! Re-authentication in place: the same person, the same session, fresh evidence.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use curfew_gate::{Command, Refusal, Verdict};

use super::attempt::{self, Arrival, Attempt, Outcome, Typed};
use super::fault::{Fault, SignIn};
use super::frame::{Frame, page};
use super::returning::Returning;
use super::sign_in::{SignInForm, SignInPage};
use super::viewer::{Viewer, Visit};
use super::{Portal, cookies};

/// The session to renew. Without one, sign-in takes over and goes back to the same place.
async fn viewer(portal: &Portal, visit: Visit, returning: &Returning) -> Result<Viewer, Fault> {
    match visit.signed_in(portal).await {
        Ok(Some(viewer)) => Ok(viewer),
        Ok(None) => Err(Fault::SignIn(Box::new(SignIn {
            returning: returning.clone(),
            ended: None,
            forget: false,
            navigation: true,
        }))),
        Err(refusal) => Err(Fault::refused(refusal, returning.clone(), true)),
    }
}

fn form(
    portal: &Portal,
    viewer: &Viewer,
    returning: &Returning,
    error: Option<(StatusCode, String)>,
) -> Result<Response, Fault> {
    let (status, error) = error.map_or((StatusCode::OK, None), |(status, text)| {
        (status, Some(text))
    });
    let frame = Frame::signed_in("Sign in again", "", portal, viewer);
    let csrf = frame
        .user
        .as_ref()
        .map(|user| user.csrf.clone())
        .unwrap_or_default();
    let template = SignInPage {
        frame,
        action: "/sign-in/again",
        app: returning.app(portal)?.map(|web| web.name.to_string()),
        subject: Some(viewer.session.subject.to_string()),
        name: String::new(),
        csrf,
        returning: returning.clone(),
        error,
        note: None,
    };
    Ok(page(status, &template))
}

/// The form.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
    returning: Result<Query<Returning>, QueryRejection>,
) -> Result<Response, Fault> {
    let Query(returning) = returning.map_err(|_| Fault::Malformed)?;
    returning.app(&portal)?;
    let viewer = viewer(&portal, visit, &returning).await?;
    form(&portal, &viewer, &returning, None)
}

/// What the form sent.
pub(super) async fn submit(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
    sent: Result<Form<SignInForm>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    let (csrf, typed, returning) = (sent.csrf, sent.typed, sent.returning);
    returning.app(&portal)?;
    // The first of two replaces the cookie that both come with.
    let key = cookies::get(&visit.headers, cookies::SESSION).map(|cookie| {
        let parts = [cookie, "again", &csrf, typed.password(), typed.code()];
        attempt::key(&portal, &parts)
    });
    let look = || {
        let (portal, visit) = (Arc::clone(&portal), visit.clone());
        let (csrf, typed, returning) = (csrf.clone(), typed.clone(), returning.clone());
        async move { renew(&portal, visit, &csrf, typed, &returning).await }
    };
    match attempt::once(&portal, key, look).await? {
        Outcome::Arrived(arrival) => arrival.go(&portal, &returning),
        Outcome::Refused(refused) => {
            let viewer = viewer(&portal, visit, &returning).await?;
            refused.answer(|error| form(&portal, &viewer, &returning, Some(error)))
        }
    }
}

async fn renew(
    portal: &Portal,
    visit: Visit,
    csrf: &str,
    typed: Typed,
    returning: &Returning,
) -> Result<Outcome, Fault> {
    let viewer = viewer(portal, visit.clone(), returning).await?;
    viewer.check_form(portal, csrf)?;
    // Whatever name was sent: it must be the session's own.
    let name = viewer.session.subject.to_string();
    let verified = match attempt::look_at(portal, &visit, name, typed, returning).await? {
        Attempt::Verified(verified) => verified,
        Attempt::Refused(refused) => return Ok(Outcome::Refused(refused)),
    };
    let session = viewer.session.id;
    if verified.subject != viewer.session.subject {
        tracing::error!("an account was verified that was not asked for");
        return Err(Fault::Failed);
    }
    let cookie = attempt::new_cookie()?;
    let command = Command::Reauthenticate {
        session: session.clone(),
        proof: verified.proof,
        credential: cookie.credential.clone(),
    };
    let refused = |refusal| Fault::refused(refusal, returning.clone(), true);
    let registrar = &portal.setup.registrar;
    let verdict = registrar.command(command).await.map_err(refused)?;
    match verdict {
        Verdict::Deny(denial) => return Err(Fault::Denied(denial)),
        Verdict::Ended { session, reason } => {
            return Err(refused(Refusal::Ended { session, reason }));
        }
        Verdict::Done | Verdict::Allow(_) => {}
        Verdict::StepUp(_) | Verdict::Unauthenticated | Verdict::Refused(_) => {
            return Err(refused(Refusal::Unauthenticated));
        }
    }
    Ok(Outcome::Arrived(Arrival {
        session,
        cookie,
        browser: verified.browser,
    }))
}
