//! What a client is told when there is no permit, and where it is sent to get one.

use std::time::Duration;

use curfew_entry::{CredentialClass, DeadlineCause, DenialCause, EndReason, RecordLevel};
use curfew_gate::handover::{Handover, Need, sign_in_url};
use curfew_gate::permit::{Cut, CutCause};
use curfew_gate::registrar::{Refusal, Unavailable};
use curfew_gate::{Denial, StepUp};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::answer::{Manner, Notice};
use super::head::{Unfit, acr};
use super::upstream::Failure;
use super::{Body, Visit, cache, credential};

/// When to come again after the ledger failed. It is looked after at once, and a client that
/// waits this long finds the gateway answering within a breath of its return.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a session is over, for the person who had it.
pub(super) fn end_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "Your session ended because nothing was done for too long.",
        EndReason::Reauth => "Your session ended because your last sign-in is too long ago.",
        EndReason::Lifetime => "Your session ended because it reached its longest time.",
        EndReason::SignedOut => "You have signed out.",
        EndReason::EndedByAdmin => "An administrator ended your session.",
        EndReason::IdpSignedOut => "Your identity provider signed you out.",
        EndReason::SharedSignal | EndReason::Risk => "Your session was ended for safety.",
        EndReason::AccountDisabled => "Your account is disabled.",
        EndReason::TooManySessions => "Your session ended because you have too many.",
        EndReason::CredentialChanged => "Your session ended because your credentials changed.",
        EndReason::RefreshReused => "Your session was ended because a token was used twice.",
        EndReason::PolicyChanged => "Your session ended because the rules changed.",
        EndReason::Shutdown => "Your session ended because the gateway stopped.",
    }
}

impl Visit<'_> {
    /// No credential was shown.
    pub(super) fn unknown(&self) -> Response<Body> {
        let notice = Notice::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Please sign in",
            "This needs a session.",
        );
        self.to_sign_in(
            notice,
            Need::default(),
            "Bearer realm=\"curfew\"".to_owned(),
        )
    }

    /// The registrar gave no permit.
    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        match refusal {
            Refusal::Unauthenticated => {
                let text = "The session is not known, or is over.";
                self.invalid(text, "Please sign in", None)
            }
            Refusal::Ended { reason, .. } => {
                self.invalid(end_text(*reason), "Your session has ended", Some(*reason))
            }
            Refusal::StepUp(step_up) => self.step_up(step_up),
            Refusal::Denied(denial) => self.denied(denial),
            Refusal::Unavailable(cause) => self.unavailable(*cause),
        }
    }

    fn invalid(
        &self,
        text: &'static str,
        title: &'static str,
        ended: Option<EndReason>,
    ) -> Response<Body> {
        let mut notice = Notice::new(StatusCode::UNAUTHORIZED, "invalid_token", title, text);
        let had_cookie = self.shown == Some(CredentialClass::Cookie);
        if had_cookie {
            notice = notice.header(header::SET_COOKIE, credential::clear_session());
        }
        let challenge = format!(
            "Bearer realm=\"curfew\", error=\"invalid_token\", error_description=\"{text}\""
        );
        let need = Need {
            ended,
            ..Need::default()
        };
        let answer = self.to_sign_in(notice, need, challenge);
        // Pages that this browser was shown are not for whoever sits before it now.
        if had_cookie {
            cache::forget(answer)
        } else {
            answer
        }
    }

    fn step_up(&self, step_up: &StepUp) -> Response<Body> {
        let text = match (
            step_up.passed.map(|deadline| deadline.cause),
            step_up.assurance,
        ) {
            (_, Some(_)) => "This needs a stronger sign-in.",
            (Some(DeadlineCause::Idle), _) => {
                "Nothing was done for too long; sign in again for this."
            }
            (Some(_), _) | (None, None) => "This needs a fresh sign-in.",
        };
        // RFC 9470 section 3. A limit that ran out is met by an authentication of now.
        let max_age = match (step_up.max_age, step_up.passed) {
            (Some(span), _) => Some(span.as_micros() / 1_000_000),
            (None, Some(_)) => Some(0),
            (None, None) => None,
        };
        let mut challenge = format!(
            "Bearer realm=\"curfew\", error=\"insufficient_user_authentication\", \
             error_description=\"{text}\""
        );
        if let Some(seconds) = max_age {
            challenge.push_str(&format!(", max_age=\"{seconds}\""));
        }
        if let Some(aal) = step_up.assurance {
            challenge.push_str(&format!(", acr_values=\"{}\"", acr(aal)));
        }
        let notice = Notice::new(
            StatusCode::UNAUTHORIZED,
            "insufficient_user_authentication",
            "Please sign in again",
            match step_up.reason() {
                Some(reason) => format!("{text} {reason}"),
                None => text.to_owned(),
            },
        );
        let need = Need {
            reauth: true,
            assurance: step_up.assurance,
            ended: None,
        };
        self.to_sign_in(notice, need, challenge)
    }

    /// Sends a navigation to the portal, and tells everybody else how to get there.
    fn to_sign_in(&self, notice: Notice, need: Need, challenge: String) -> Response<Body> {
        let portal = self.plane.site.portal_url();
        if self.manner == Manner::Program {
            let notice = notice
                .hint("Sign in at the link, or use a bearer token.")
                .link(
                    format!("{portal}{}", curfew_gate::handover::SIGN_IN_PATH),
                    "Sign in",
                );
            return challenged(notice, challenge).answer(Manner::Program);
        }
        if self.manner == Manner::Frame {
            // The cookie is not sent from there, however often somebody signs in.
            let hint = if self.cross_site {
                "Within another site's page nobody is signed in. Open it in a tab of its own."
            } else {
                "Sign in in another tab, then load this one again."
            };
            let here = format!("https://{}{}", self.authority, self.to);
            let notice = notice.hint(hint).link(here, "Open in another tab");
            return challenged(notice, challenge).answer(Manner::Frame);
        }
        let Ok(begin) = Handover::begin(self.begin.as_deref()) else {
            return self.unavailable(Unavailable::Ledger);
        };
        // After a form was sent there is nothing to come back to but the page it was on.
        let to = if self.manner == Manner::Navigation {
            self.to.as_str()
        } else {
            "/"
        };
        let url = sign_in_url(&portal, &self.resource.name, to, &begin.state, need);
        let mut notice = notice
            .header(header::SET_COOKIE, credential::set_begin(&begin.cookie))
            .link(url, "Sign in");
        if self.manner == Manner::Navigation {
            notice.status = StatusCode::SEE_OTHER;
            return notice.answer(self.manner);
        }
        notice = notice.hint(
            "What you sent was not passed on. Sign in in another tab, come back here and send it again.",
        );
        challenged(notice, challenge).answer(self.manner)
    }

    fn denied(&self, denial: &Denial) -> Response<Body> {
        let text = match denial.cause {
            DenialCause::NotPermitted => "No rule permits this.",
            DenialCause::Forbidden => "A rule forbids this.",
            DenialCause::TooOld => "Your session is too old for this.",
            DenialCause::WrongAudience => "This credential is for something else.",
            DenialCause::UnknownResource => "This is not served here any more.",
        };
        let text = match denial.reason() {
            Some(reason) => format!("{text} {reason}"),
            None => text.to_owned(),
        };
        let rules: Vec<&str> = denial.rules.iter().map(|rule| rule.as_str()).collect();
        let text = match rules.as_slice() {
            [] => text,
            rules => format!("{text} ({})", rules.join(", ")),
        };
        let hint = match denial.cause {
            DenialCause::TooOld => "Sign out and in again: only a new session helps.",
            DenialCause::NotPermitted
            | DenialCause::Forbidden
            | DenialCause::WrongAudience
            | DenialCause::UnknownResource => "If you need it, ask whoever writes the policy.",
        };
        Notice::new(StatusCode::FORBIDDEN, "access_denied", "Not allowed", text)
            .hint(hint)
            .answer(self.manner)
    }

    pub(super) fn unavailable(&self, cause: Unavailable) -> Response<Body> {
        let text = match cause {
            Unavailable::DiskFull => "The audit log's disk is full, so nothing is let through.",
            Unavailable::Ledger => "The audit log cannot be written, so nothing is let through.",
            Unavailable::Stopping => "The gateway is stopping.",
            Unavailable::Late(level) => late_text(level),
        };
        Notice::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            "Not just now",
            text,
        )
        .hint("Try again in a few seconds.")
        .header(
            header::RETRY_AFTER,
            Some(HeaderValue::from(RETRY_AFTER.as_secs())),
        )
        .answer(self.manner)
    }

    /// The permit was taken back before the answer came.
    pub(super) fn cut(&self, session: &curfew_entry::SessionId, cut: Cut) -> Response<Body> {
        let session = session.clone();
        let refusal = match cut.cause {
            CutCause::SessionEnded(reason) => Refusal::Ended { session, reason },
            CutCause::Limit(_) => Refusal::StepUp(StepUp {
                session,
                passed: cut.deadline,
                assurance: None,
                max_age: None,
                rules: Vec::new(),
                reasons: Vec::new(),
            }),
            CutCause::PolicyChanged => Refusal::Denied(Denial {
                session: Some(session),
                cause: DenialCause::NotPermitted,
                rules: Vec::new(),
                reasons: Vec::new(),
            }),
            CutCause::LedgerFailed => Refusal::Unavailable(Unavailable::Ledger),
            CutCause::Shutdown | CutCause::Released => Refusal::Unavailable(Unavailable::Stopping),
        };
        self.refuse(&refusal)
    }

    /// A browser sent it from somebody else's page.
    pub(super) fn foreign(&self) -> Response<Body> {
        Notice::new(
            StatusCode::FORBIDDEN,
            "cross_site_request",
            "Not allowed",
            "Another site sent this in your name, so it was not passed on.",
        )
        .answer(self.manner)
    }

    /// The request is not even looked at.
    pub(super) fn unfit(&self, unfit: Unfit) -> Response<Body> {
        let text = format!("Refused: {}.", unfit.text);
        let mut notice = Notice::new(unfit.status, "invalid_request", "Not understood", text);
        if unfit.status == StatusCode::UPGRADE_REQUIRED {
            for (name, value) in [
                (header::SEC_WEBSOCKET_VERSION, "13"),
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "upgrade"),
            ] {
                notice = notice.header(name, Some(HeaderValue::from_static(value)));
            }
        }
        notice.answer(self.manner)
    }

    /// The resource gave no answer.
    pub(super) fn failed(&self, failure: Failure) -> Response<Body> {
        let (status, text) = match failure {
            Failure::Unreachable => (StatusCode::BAD_GATEWAY, "The service cannot be reached."),
            Failure::Broken | Failure::Cut(_) => (
                StatusCode::BAD_GATEWAY,
                "The service broke off before it answered.",
            ),
            Failure::TooLarge => (
                StatusCode::BAD_GATEWAY,
                "The head of the service's answer is longer than is passed on.",
            ),
            Failure::Slow => (
                StatusCode::GATEWAY_TIMEOUT,
                "The service took too long to answer.",
            ),
            Failure::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The service has too much to do.",
            ),
            Failure::Crowded => (
                StatusCode::TOO_MANY_REQUESTS,
                "Your session has too many requests open here.",
            ),
        };
        let busy = matches!(failure, Failure::Busy | Failure::Crowded);
        let retry = busy.then(|| HeaderValue::from(RETRY_AFTER.as_secs()));
        let hint = if failure == Failure::Crowded {
            "Close some tabs, or wait until some of them are answered."
        } else {
            "Your session is not affected. Try again in a while."
        };
        Notice::new(
            status,
            "upstream_failed",
            "No answer from the service",
            text,
        )
        .hint(hint)
        .header(header::RETRY_AFTER, retry)
        .answer(self.manner)
    }
}

/// The gravest actions wait for more than a durable record, but not for ever.
fn late_text(level: RecordLevel) -> &'static str {
    match level {
        RecordLevel::Signed => "The audit log's entry for this was not signed in time.",
        RecordLevel::Witnessed => "Too few witnesses have confirmed the audit log in time.",
        RecordLevel::Timestamped => "The audit log's entry for this got no timestamp in time.",
    }
}

fn challenged(notice: Notice, challenge: String) -> Notice {
    notice.header(
        header::WWW_AUTHENTICATE,
        HeaderValue::try_from(challenge).ok(),
    )
}
