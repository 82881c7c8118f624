//! Curfew's own pages and its JSON API: one more plane, under the same rules as the others.
//!
//! The pages work without a script; with one they follow their session. What they show of the log or of other people's sessions is
//! asked for, permitted and recorded like any other action.

mod again;
mod api;
mod attempt;
mod cookies;
mod csrf;
mod details;
mod device;
mod entry;
mod erasures;
mod export;
mod fault;
mod followers;
mod forms;
mod frame;
mod home;
mod log;
mod once;
mod passwords;
mod returning;
mod search;
mod sessions;
mod shelf;
mod sign_in;
mod sign_out;
mod state;
mod text;
mod tiles;
mod values;
mod viewer;
mod whose;

use std::sync::Arc;

use attempt::Outcome;
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fault::Fault;
use once::Once;
use shelf::Shelf;
use tiles::Reading;

use crate::Setup;
use crate::oauth::{self, DeviceCodes, Problem};

/// What the handlers share.
#[derive(Debug)]
struct Portal {
    setup: Arc<Setup>,
    devices: Arc<DeviceCodes>,
    /// Sign-in forms that were sent lately.
    sign_ins: Once<Result<Outcome, Fault>>,
    shelf: Shelf,
    reading: Reading,
    exports: export::Turns,
}

/// All routes of the portal's host. Each request carries a [`curfew_gate::clients::Peer`].
pub fn router(setup: Arc<Setup>) -> Router {
    let devices = Arc::new(DeviceCodes::default());
    let portal = Arc::new(Portal {
        shelf: Shelf::new(setup.ledger.clone()),
        reading: Reading::new(&setup.ledger.clone()),
        exports: export::Turns::default(),
        sign_ins: Once::default(),
        setup: Arc::clone(&setup),
        devices: Arc::clone(&devices),
    });
    Router::new()
        .route("/", get(home::show))
        .route("/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/sign-in/again", get(again::show).post(again::submit))
        .route("/sign-out", get(sign_out::show).post(sign_out::submit))
        .route("/session/state", get(state::look))
        .route("/session/stay", post(state::stay))
        .route("/databases/{name}/password", post(home::password))
        .route("/sessions", get(sessions::show))
        .route("/sessions/{id}/end", post(sessions::end))
        .route("/log", get(log::show))
        .route("/log/{index}", get(entry::show))
        .route("/log/{index}/values", get(values::show))
        .route("/log/checkpoint", get(tiles::checkpoint))
        .route("/log/witnessed", get(tiles::witnessed))
        .route("/log/horizon", get(tiles::horizon))
        .route("/log/tile/{*path}", get(tiles::tile))
        .route("/erasures", get(erasures::show).post(erasures::request))
        .route("/erasures/{id}/approve", post(erasures::approve))
        .route("/device", get(device::show))
        .route("/device/decide", post(device::decide))
        .route("/assets/curfew.css", get(frame::style))
        .route("/assets/curfew.js", get(frame::script))
        .route("/assets/curfew.svg", get(frame::icon))
        .route("/assets/left.css", get(frame::countdown))
        .nest("/api/v1", api::router())
        .with_state(Arc::clone(&portal))
        .merge(oauth::router(setup, devices))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(forms::take_in))
        .layer(from_fn_with_state(portal, frame::protect))
}

/// Whether programs, not people, read the answers under this path.
fn is_for_programs(path: &str) -> bool {
    [
        "/api/",
        "/oauth/",
        "/.well-known/",
        "/log/tile/",
        "/session/state",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

async fn not_found(uri: Uri) -> Response {
    if is_for_programs(uri.path()) {
        Problem::not_found("There is nothing at this address").into_response()
    } else {
        Fault::NotFound("There is nothing at this address.").into_response()
    }
}

async fn wrong_method(uri: Uri) -> Response {
    if is_for_programs(uri.path()) {
        let text = "This address does not take this method";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text).into_response()
    } else {
        Fault::Method.into_response()
    }
}
