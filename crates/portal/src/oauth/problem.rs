//! Refusals as JSON: `{"error", "error_description", "hint"}`, for the API and for OAuth.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_entry::{Aal, DenialCause, EndReason, RecordLevel, Span};
use curfew_gate::{Denial, Refusal, StepUp, Unavailable};
use serde::Serialize;

/// How long a client is asked to wait while the ledger takes no entries, in seconds: about the
/// time a full disk or a failed sync takes to be looked at again.
pub(crate) const OUTAGE_RETRY_SECS: u64 = 5;

/// An answer that says no. Its texts are for the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    status: StatusCode,
    error: &'static str,
    description: String,
    hint: Option<String>,
    /// The parameters of the `Bearer` challenge, where there is one.
    challenge: Option<String>,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Problem {
    /// A problem with this code and sentence.
    pub(crate) fn new(
        status: StatusCode,
        error: &'static str,
        description: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error,
            description: description.into(),
            hint: None,
            challenge: None,
            retry_after: None,
        }
    }

    /// The request cannot be understood.
    pub(crate) fn bad_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// There is no such thing.
    pub(crate) fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", description)
    }

    /// Too many requests of this kind.
    pub(crate) fn too_many(description: impl Into<String>, retry_after: u64) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            description,
        );
        Self {
            retry_after: Some(retry_after),
            ..problem
        }
    }

    /// Something failed that the client cannot help.
    pub(crate) fn unavailable(description: impl Into<String>) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            description,
        );
        Self {
            retry_after: Some(OUTAGE_RETRY_SECS),
            ..problem
        }
    }

    /// No bearer token was sent (RFC 6750 section 3.1: no error code in the challenge).
    pub(crate) fn no_token() -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "This needs a bearer token",
        );
        problem.challenge = Some(String::new());
        problem.with_hint("run `curfew login`")
    }

    /// The bearer token does not work, or no longer.
    pub(crate) fn invalid_token(description: impl Into<String>) -> Self {
        let description = description.into();
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "invalid_token", description);
        problem.challenge = Some("error=\"invalid_token\"".to_owned());
        problem.with_hint("run `curfew login`")
    }

    /// The person must authenticate again first (RFC 9470).
    pub(crate) fn step_up(max_age: Option<Span>, assurance: Option<Aal>, portal: &str) -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "insufficient_user_authentication",
            "This needs a fresh or stronger sign-in",
        );
        let mut challenge = "error=\"insufficient_user_authentication\"".to_owned();
        if let Some(max_age) = max_age {
            challenge.push_str(&format!(
                ", max_age=\"{}\"",
                max_age.as_duration().as_secs()
            ));
        }
        if let Some(aal) = assurance {
            challenge.push_str(&format!(", acr_values=\"aal{}\"", u8::from(aal)));
        }
        problem.challenge = Some(challenge);
        problem.with_hint(format!("authenticate again at {portal}/sign-in/again"))
    }

    /// As a [`StepUp`] demands.
    fn stepped_up(step_up: &StepUp, portal: &str) -> Self {
        let mut problem = Self::step_up(step_up.max_age, step_up.assurance, portal);
        if let Some(reason) = step_up.reason() {
            problem.description = format!("{}: {reason}", problem.description);
        }
        problem
    }

    /// What the registrar refused. `portal` is the portal's origin, for hints.
    pub(crate) fn refused(refusal: &Refusal, portal: &str) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::invalid_token("The token is not valid"),
            Refusal::Ended { reason, .. } => Self::invalid_token(end_text(*reason)),
            Refusal::StepUp(step_up) => Self::stepped_up(step_up, portal),
            Refusal::Denied(denial) => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", denial_text(denial))
            }
            Refusal::Unavailable(unavailable) => Self::unavailable(outage_text(*unavailable)),
        }
    }

    /// With something the reader can do.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a client is told about the end of its session.
pub(crate) fn end_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "Your session ended because nothing happened in it for too long",
        EndReason::Reauth => "Your session ended because your last sign-in was too long ago",
        EndReason::Lifetime => "Your session ended because it had reached its longest duration",
        EndReason::SignedOut => "You signed out of this session",
        EndReason::EndedByAdmin => "An administrator ended your session",
        EndReason::IdpSignedOut => "Your session ended because you signed out elsewhere",
        EndReason::SharedSignal | EndReason::Risk => {
            "Your session ended because of a security signal"
        }
        EndReason::AccountDisabled => "Your session ended because your account was disabled",
        EndReason::TooManySessions => "Your session ended because you have too many sessions",
        EndReason::CredentialChanged => {
            "Your session ended because your password or code generator was changed"
        }
        EndReason::RefreshReused => "Your session ended because a token of it was used twice",
        EndReason::PolicyChanged => "Your session ended because the policy was changed",
        EndReason::Shutdown => "Your session ended because the gateway was shut down",
    }
}

/// What a client is told about a refusal, with the policy's own words where it has any.
pub(crate) fn denial_text(denial: &Denial) -> String {
    let text = match denial.cause {
        DenialCause::NotPermitted | DenialCause::Forbidden => "The policy does not permit this",
        DenialCause::TooOld => "Your session is too old for this; sign out and sign in again",
        DenialCause::WrongAudience => "This credential is for something else",
        DenialCause::UnknownResource => "There is no such resource",
    };
    match denial.reason() {
        Some(reason) => format!("{text}: {reason}"),
        None => text.to_owned(),
    }
}

/// What a client is told while nothing is admitted.
pub(crate) fn outage_text(unavailable: Unavailable) -> &'static str {
    match unavailable {
        Unavailable::DiskFull | Unavailable::Ledger => {
            "Curfew cannot record anything at the moment, so it admits nothing"
        }
        Unavailable::Stopping => "Curfew is being restarted",
        Unavailable::Late(RecordLevel::Signed) => {
            "The audit log's entry for this was not signed in time, so it was not done"
        }
        Unavailable::Late(RecordLevel::Witnessed) => {
            "Too few witnesses have confirmed the audit log in time, so this was not done"
        }
        Unavailable::Late(RecordLevel::Timestamped) => {
            "The audit log's entry for this got no timestamp in time, so it was not done"
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            error: self.error,
            error_description: &self.description,
            hint: self.hint.as_deref(),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(parameters) = &self.challenge {
            let comma = if parameters.is_empty() { "" } else { ", " };
            let text = format!("Bearer realm=\"curfew\"{comma}{parameters}");
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(WWW_AUTHENTICATE, value);
            }
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::SessionId;

    use super::*;

    fn session() -> SessionId {
        SessionId::from_random([1; 12])
    }

    #[test]
    fn refusals_have_the_status_that_http_gives_them() {
        let reason = EndReason::Idle;
        let denial = Denial {
            session: None,
            cause: DenialCause::NotPermitted,
            rules: Vec::new(),
            reasons: Vec::new(),
        };
        let step_up = StepUp {
            session: session(),
            passed: None,
            assurance: Some(Aal::Two),
            max_age: Some(Span::from_secs(900)),
            rules: Vec::new(),
            reasons: Vec::new(),
        };
        let cases = [
            (
                Refusal::Unauthenticated,
                401,
                Some("Bearer realm=\"curfew\", error=\"invalid_token\""),
            ),
            (
                Refusal::Ended {
                    session: session(),
                    reason,
                },
                401,
                Some("Bearer realm=\"curfew\", error=\"invalid_token\""),
            ),
            (
                Refusal::StepUp(step_up),
                401,
                Some(
                    "Bearer realm=\"curfew\", error=\"insufficient_user_authentication\", \
                     max_age=\"900\", acr_values=\"aal2\"",
                ),
            ),
            (Refusal::Denied(denial), 403, None),
            (Refusal::Unavailable(Unavailable::DiskFull), 503, None),
        ];
        for (refusal, status, challenge) in cases {
            let response = Problem::refused(&refusal, "https://p.test").into_response();
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            let got = response.headers().get(WWW_AUTHENTICATE);
            assert_eq!(got.map(|value| value.to_str().unwrap()), challenge);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
        }
        let plain = Problem::no_token().into_response();
        assert_eq!(plain.headers()[WWW_AUTHENTICATE], "Bearer realm=\"curfew\"");
    }
}
