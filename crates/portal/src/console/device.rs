//! The page on which a person lets the CLI of some machine act in this session (RFC 8628).

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::fault::{Fault, Limit};
use super::frame::{Frame, page};
use super::viewer::Viewer;
use super::{Portal, text};
use crate::oauth::{Choice, UserCode};

/// The form in which a code is typed.
#[derive(askama::Template)]
#[template(path = "device.html")]
struct CodePage {
    frame: Frame,
    code: String,
    error: Option<&'static str>,
}

/// The question.
#[derive(askama::Template)]
#[template(path = "device_confirm.html")]
struct ConfirmPage {
    frame: Frame,
    csrf: String,
    code: String,
    address: String,
    same_address: bool,
    ago: String,
    subject: String,
    lasts: String,
}

/// The answer.
#[derive(askama::Template)]
#[template(path = "device_done.html")]
struct DonePage {
    frame: Frame,
    approved: bool,
}

/// The code in the link.
#[derive(Deserialize)]
pub(super) struct Code {
    #[serde(default)]
    user_code: String,
}

/// What the person decided.
#[derive(Deserialize)]
pub(super) struct Decision {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    user_code: String,
    #[serde(default)]
    choice: String,
}

fn ask_for_code(portal: &Portal, viewer: &Viewer, code: &str, wrong: bool) -> Response {
    let template = CodePage {
        frame: Frame::signed_in("Connect a device", "", portal, viewer),
        // What was typed is shown again, as far as it can be a code.
        code: text::cut(code, 18),
        error: wrong.then_some("This code is not waiting for an answer. Check it, or start again."),
    };
    page(
        if wrong {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        },
        &template,
    )
}

/// Asks for a code, or for what to do with the one that came.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    sent: Result<Query<Code>, QueryRejection>,
) -> Result<Response, Fault> {
    let Query(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer
        .enter(&portal)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    if sent.user_code.is_empty() {
        return Ok(ask_for_code(&portal, &viewer, "", false));
    }
    let Some(code) = UserCode::parse(&sent.user_code) else {
        return Ok(ask_for_code(&portal, &viewer, &sent.user_code, true));
    };
    let found = portal
        .devices
        .find(
            &code.digest(&portal.setup.master),
            &viewer.session.id,
            viewer.now,
        )
        .map_err(|_| Fault::Limit(Limit::Codes))?;
    let Some(request) = found else {
        return Ok(ask_for_code(&portal, &viewer, &sent.user_code, true));
    };
    let frame = Frame::signed_in("Connect a device", "", &portal, &viewer);
    let template = ConfirmPage {
        csrf: frame
            .user
            .as_ref()
            .map(|user| user.csrf.clone())
            .unwrap_or_default(),
        frame,
        code: code.to_string(),
        same_address: request.address == viewer.visit.address,
        address: request.address.to_string(),
        ago: text::span(viewer.now.saturating_since(request.made)),
        subject: viewer.session.subject.to_string(),
        lasts: text::span(portal.setup.token_life),
    };
    Ok(page(StatusCode::OK, &template))
}

/// Approves or denies.
pub(super) async fn decide(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    sent: Result<Form<Decision>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.submit(&portal, &sent.csrf).await?;
    let approved = match sent.choice.as_str() {
        "approve" => true,
        "deny" => false,
        _ => return Err(Fault::Malformed),
    };
    let code = UserCode::parse(&sent.user_code).ok_or(Fault::Malformed)?;
    let session = viewer.session.id.clone();
    let choice = if approved {
        Choice::Approve(session)
    } else {
        Choice::Deny
    };
    let digest = code.digest(&portal.setup.master);
    let done = |viewer| {
        let frame = Frame::signed_in("Connect a device", "", &portal, viewer);
        Ok(page(StatusCode::OK, &DonePage { frame, approved }))
    };
    if portal.devices.is_decided(&digest, &choice) {
        return done(&viewer);
    }
    // Throttled like the entry of a code: a form can be sent without its page.
    let waiting = portal
        .devices
        .find(&digest, &viewer.session.id, viewer.now)
        .map_err(|_| Fault::Limit(Limit::Codes))?;
    if waiting.is_none() || !portal.devices.decide(&digest, choice, viewer.now) {
        return Ok(ask_for_code(&portal, &viewer, "", true));
    }
    done(&viewer)
}
