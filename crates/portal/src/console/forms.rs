//! What browsers and programs send: all of it in time, or none of it.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;

use super::fault::Fault;
use super::is_for_programs;
use crate::oauth::Problem;

/// The largest form. The largest field is a password of 256 characters, at most 12 bytes each in
/// a form (four bytes, percent-encoded): 3 kB; a path to come back to takes 6 kB encoded.
const BYTES_MAX: usize = 16 * 1024;

/// How long a form may take to come: what is sent in one piece takes a round trip.
const WAIT: Duration = Duration::from_secs(10);

/// Takes in the whole body of a request before anybody looks at it. Whoever does not send it in time is
/// told so and loses the connection.
pub(super) async fn take_in(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let taken = tokio::time::timeout(WAIT, to_bytes(body, BYTES_MAX)).await;
    let fault = match taken {
        Ok(Ok(bytes)) => {
            let request = Request::from_parts(head, Body::from(bytes));
            return next.run(request).await;
        }
        Ok(Err(error)) if is_too_long(&error) => Fault::TooLarge,
        Ok(Err(_)) => Fault::Malformed,
        Err(_) => Fault::Slow,
    };
    if !is_for_programs(head.uri.path()) {
        return fault.into_response();
    }
    let (status, text) = if fault == Fault::Slow {
        (StatusCode::REQUEST_TIMEOUT, "The body did not come in time")
    } else if fault == Fault::TooLarge {
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long")
    } else {
        (StatusCode::BAD_REQUEST, "The body was cut short")
    };
    Problem::new(status, "invalid_request", text).into_response()
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
