//! Sign-out: the session ends on the server first, then the browser forgets.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use curfew_entry::{EndReason, SessionId};
use curfew_gate::{EndCause, Refusal};
use serde::Deserialize;

use super::fault::Fault;
use super::frame::{Frame, page};
use super::viewer::Visit;
use super::{Portal, cookies};

#[derive(askama::Template)]
#[template(path = "sign_out.html")]
struct SignOutPage {
    frame: Frame,
}

#[derive(askama::Template)]
#[template(path = "signed_out.html")]
struct SignedOutPage {
    frame: Frame,
}

/// A form that carries nothing but its token.
#[derive(Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    pub(super) csrf: String,
}

/// Ends a session because its own person wants it.
pub(super) async fn end_session(portal: &Portal, session: SessionId) -> Result<(), Refusal> {
    let cause = EndCause {
        reason: EndReason::SignedOut,
        by: None,
    };
    // Known or not, it is not live any more.
    portal.setup.registrar.end(session, cause).await?;
    Ok(())
}

/// The page as an answer that makes the browser forget.
fn signed_out() -> Response {
    let mut response = page(
        StatusCode::OK,
        &SignedOutPage {
            frame: Frame::signed_out("You are signed out"),
        },
    );
    let headers = response.headers_mut();
    headers.append(SET_COOKIE, cookies::expire_session());
    // Not "cookies": that would clear the cookies of every host of the domain.
    headers.insert(
        HeaderName::from_static("clear-site-data"),
        HeaderValue::from_static("\"cache\", \"storage\""),
    );
    response
}

/// Asks, for links from elsewhere.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
) -> Result<Response, Fault> {
    match visit.signed_in(&portal).await {
        Ok(Some(viewer)) => {
            let frame = Frame::signed_in("Sign out", "", &portal, &viewer);
            Ok(page(StatusCode::OK, &SignOutPage { frame }))
        }
        Err(Refusal::Unavailable(unavailable)) => Err(Fault::Unavailable(unavailable)),
        Ok(None) | Err(_) => Ok(signed_out()),
    }
}

/// Signs out.
pub(super) async fn submit(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
    sent: Result<Form<Token>, FormRejection>,
) -> Result<Response, Fault> {
    match visit.signed_in(&portal).await {
        Ok(Some(viewer)) => {
            let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
            viewer.check_form(&portal, &sent.csrf)?;
            let session = viewer.session.id.clone();
            end_session(&portal, session)
                .await
                .map_err(|refusal| viewer.fault(refusal))?;
            Ok(signed_out())
        }
        Err(Refusal::Unavailable(unavailable)) => Err(Fault::Unavailable(unavailable)),
        Ok(None) | Err(_) => Ok(signed_out()),
    }
}
