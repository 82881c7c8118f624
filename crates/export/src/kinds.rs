//! Every kind of entry as facts. A new kind of entry is one more arm here, and nothing else.

mod attempts;

use std::fmt::Display;

use curfew_entry::{
    AccountChange, AccountClass, ActionClosed, ActionDetail, Actor, ClosedBy, EndReason, Event,
    Field, LogArchivingFailed, LogPruned, LogTimestamped, Plane, RuleId, SessionId, Span,
    SubjectName, Timestamp,
};
use serde::Serialize;

use crate::facts::{
    AccountActivity, ApplicationActivity, AuthenticationActivity, Class, Decision, Entity,
    EntityActivity, Facts, LogActivity, Outcome, Severity,
};

use AuthenticationActivity as Auth;
use Severity::{Critical, High, Informational, Low, Medium};

/// The facts of an event.
#[allow(
    clippy::too_many_lines,
    reason = "no wildcard: whoever adds a kind of entry says here what others should make of it"
)]
pub(crate) fn facts(event: &Event) -> Facts {
    match event {
        Event::LogOpened { origin } => plain(
            "log.opened",
            Class::Log(LogActivity::Start),
            Informational,
            format!("log {origin} opened"),
        ),
        Event::GatewayStarted { version, .. } => plain(
            "gateway.started",
            Class::Application(ApplicationActivity::Start),
            Informational,
            format!("gateway {version} started"),
        ),
        Event::GatewayStopped {} => plain(
            "gateway.stopped",
            Class::Application(ApplicationActivity::Stop),
            Informational,
            "gateway stopped".to_owned(),
        ),
        Event::ClockStepped { wall_offset_us } => plain(
            "clock.stepped",
            Class::Application(ApplicationActivity::Other("Clock Stepped")),
            Medium,
            format!("the wall clock was moved; it is {wall_offset_us} µs off ledger time"),
        ),
        Event::ClockSyncChanged { wall } => {
            let class = Class::Application(ApplicationActivity::Other("Clock Sync Changed"));
            let (severity, text) = if wall.synced {
                (
                    Informational,
                    "the wall clock is kept in step with others again",
                )
            } else {
                (High, "the wall clock is not kept in step with others")
            };
            plain("clock.sync_changed", class, severity, text)
        }
        Event::PolicyLoaded { digest, .. } => plain(
            "policy.loaded",
            Class::Entity {
                entity: Entity::Policy,
                name: digest.to_string(),
                activity: EntityActivity::Update,
            },
            Low,
            format!("policy {digest} in force"),
        ),
        Event::ResourcesLoaded { resources } => plain(
            "resources.loaded",
            Class::Entity {
                entity: Entity::Other("Resources"),
                name: "resources".to_owned(),
                activity: EntityActivity::Update,
            },
            Informational,
            format!("{} resources in force", resources.len()),
        ),
        Event::AccountChanged {
            subject,
            change,
            by,
        } => account(change, by).about(subject),
        Event::SignInRefused {
            subject,
            cause,
            address,
        } => {
            let cause = word(cause);
            let mut facts = plain(
                "sign_in.refused",
                Class::Authentication(Auth::Logon),
                Medium,
                format!("sign-in refused: {cause}"),
            );
            facts.subject = subject.as_ref().map(ToString::to_string);
            facts.address = Some(*address);
            facts.reason = Some(cause);
            facts.refused(Decision::Blocked)
        }
        Event::SessionStarted {
            session,
            subject,
            roles,
            proof,
            context,
            rules,
            ..
        } => {
            let class = Class::Authentication(Auth::Logon);
            let mut facts = plain("session.started", class, Informational, "signed in");
            facts.roles = texts(roles);
            facts.mfa = Some(proof.amr.len() > 1);
            facts.address = Some(context.address);
            facts.network = Some(context.network.clone());
            facts.rules = texts(rules);
            facts.decision = Some(Decision::Allowed);
            facts.of(session).about(subject)
        }
        Event::SessionReauthenticated { session, proof } => {
            let class = Class::Authentication(Auth::Logon);
            let text = "authenticated again";
            let mut facts = plain("session.reauthenticated", class, Informational, text);
            facts.mfa = Some(proof.amr.len() > 1);
            facts.reason = Some("reauthentication".to_owned());
            facts.of(session)
        }
        Event::SessionActive { session, active_at } => plain(
            "session.active",
            Class::Authentication(Auth::Other("Activity Noted")),
            Informational,
            format!("active at {active_at}"),
        )
        .of(session),
        Event::SessionLimited {
            session,
            limits,
            rules,
        } => {
            let class = Class::Authentication(Auth::Other("Limits Changed"));
            let text = format!(
                "new limits: idle {}, reauth {}, lifetime {}",
                limits.idle, limits.reauth, limits.lifetime
            );
            let mut facts = plain("session.limited", class, Low, text);
            facts.rules = texts(rules);
            facts.of(session)
        }
        Event::SessionEnded {
            session,
            reason,
            deadline,
            late,
            by,
            ..
        } => {
            let class = Class::Authentication(Auth::Logoff);
            let why = word(reason);
            let text = format!("session ended: {why}");
            let mut facts = plain("session.ended", class, end_severity(*reason), text);
            facts.deadline_us = deadline.map(Timestamp::as_micros);
            facts.late_us = late.map(Span::as_micros);
            facts.by = by.as_ref().map(actor);
            facts.reason = Some(why);
            facts.decision = (*reason != EndReason::SignedOut).then_some(Decision::Revoked);
            facts.of(session)
        }
        Event::SessionUsedAfterEnd {
            session,
            credential,
            plane,
            address,
        } => {
            let text = "a credential of an ended session was presented";
            let mut facts = plain("session.used_after_end", Class::Finding, High, text);
            facts.credential = Some(credential.to_string());
            facts.plane = Some(plane_name(*plane));
            facts.address = Some(*address);
            facts.refused(Decision::Blocked).of(session)
        }
        Event::CredentialIssued {
            session,
            credential,
        } => {
            let class = Class::Authentication(Auth::Ticket);
            let text = format!("{} credential issued", word(&credential.class));
            let mut facts = plain("credential.issued", class, Informational, text);
            facts.credential = Some(credential.id.to_string());
            facts.resource = credential.audience.as_ref().map(ToString::to_string);
            facts.deadline_us = credential.expires.map(Timestamp::as_micros);
            facts.of(session)
        }
        Event::CredentialRevoked {
            session,
            credential,
        } => {
            let class = Class::Authentication(Auth::Other("Credential Revoked"));
            let text = "credential revoked";
            let mut facts = plain("credential.revoked", class, Informational, text);
            facts.credential = Some(credential.to_string());
            facts.decision = Some(Decision::Revoked);
            facts.of(session)
        }
        Event::CredentialUnknown {
            plane,
            class,
            address,
        } => {
            let text = format!("an unknown {} credential was presented", word(class));
            let mut facts = plain("credential.unknown", Class::Finding, Medium, text);
            facts.plane = Some(plane_name(*plane));
            facts.address = Some(*address);
            facts.refused(Decision::Blocked)
        }
        Event::CredentialRefused {
            session,
            credential,
            cause,
            resource,
            plane,
            address,
        } => {
            let class = Class::Authentication(Auth::Other("Credential Refused"));
            let cause = word(cause);
            let text = format!("credential refused for {resource}: {cause}");
            let mut facts = plain("credential.refused", class, Low, text);
            facts.credential = Some(credential.to_string());
            facts.resource = Some(resource.to_string());
            facts.plane = Some(plane_name(*plane));
            facts.address = Some(*address);
            facts.reason = Some(cause);
            facts.refused(Decision::Blocked).of(session)
        }
        Event::AttemptsSummarized(told) => attempts::facts(told),
        Event::ActionAllowed {
            session,
            action,
            rules,
            ..
        } => asked("action.allowed", Informational, "allowed", action)
            .ruled(rules, Decision::Allowed)
            .of(session),
        Event::ActionSteppedUp {
            session,
            action,
            rules,
            passed,
            assurance,
        } => {
            let text = "needs authentication first";
            let mut facts = asked("action.stepped_up", Low, text, action);
            let passed = passed.map(|deadline| deadline.cause.to_string());
            let level = assurance.map(|aal| format!("aal{}", u8::from(aal)));
            facts.reason = passed.or(level);
            facts.outcome = Outcome::Failure;
            facts.ruled(rules, Decision::Challenged).of(session)
        }
        Event::ActionDenied {
            session,
            action,
            cause,
            rules,
        } => {
            let cause = word(cause);
            let mut facts = asked("action.denied", Medium, &format!("denied: {cause}"), action);
            facts.reason = Some(cause);
            facts.outcome = Outcome::Failure;
            facts.ruled(rules, Decision::Blocked).of(session)
        }
        Event::ActionClosed(closed) => connection(closed),
        Event::RecordingFailed { cause, .. } => {
            let class = Class::Log(LogActivity::Stop);
            let text = format!("the log could not take entries: {cause}");
            let mut facts = plain("recording.failed", class, Critical, text);
            facts.outcome = Outcome::Failure;
            facts
        }
        Event::RecordingResumed { refused } => plain(
            "recording.resumed",
            Class::Log(LogActivity::Start),
            Medium,
            format!("the log takes entries again; {refused} actions were refused meanwhile"),
        ),
        Event::ErasureRequested {
            session,
            erasure,
            subject,
        } => {
            let text = format!("erasure {erasure} of the values of {subject} asked for");
            erasing("erasure.requested", Medium, text, subject).of(session)
        }
        Event::ErasureApproved { session, erasure } => {
            let text = format!("erasure {erasure} approved");
            erasing("erasure.approved", Medium, text, erasure).of(session)
        }
        Event::ErasureDone {
            erasure,
            subject,
            keys,
            entries,
            before,
        } => {
            let text = format!(
                "erasure {erasure}: {keys} keys of {subject} gone, and values of {entries} entries before {before}"
            );
            erasing("erasure.done", High, text, subject)
        }
        Event::LogWitnessed {
            size, witnesses, ..
        } => plain(
            "log.witnessed",
            Class::Log(LogActivity::Other("Witnessed")),
            Informational,
            format!("{size} entries cosigned by {}", witnesses.join(", ")),
        ),
        Event::LogQuorumLost { size, missing, .. } => {
            let class = Class::Log(LogActivity::Other("Quorum Lost"));
            let text = format!(
                "witnesses do not cosign the log since it had {size} entries; missing: {}",
                missing.join(", ")
            );
            let mut facts = plain("log.quorum_lost", class, High, text);
            facts.outcome = Outcome::Failure;
            facts
        }
        Event::LogQuorumMet { size } => plain(
            "log.quorum_met",
            Class::Log(LogActivity::Other("Quorum Met")),
            Medium,
            format!("witnesses cosign the log again: {size} entries"),
        ),
        Event::LogSigningFailed { size, cause, .. } => {
            let class = Class::Log(LogActivity::Other("Signing Failed"));
            let cause = cause.as_str();
            let text =
                format!("no checkpoint of the log is signed since it had {size} entries: {cause}");
            let mut facts = plain("log.signing_failed", class, High, text);
            facts.reason = Some(cause.to_owned());
            facts.outcome = Outcome::Failure;
            facts
        }
        Event::LogSigningResumed { size } => plain(
            "log.signing_resumed",
            Class::Log(LogActivity::Other("Signing Resumed")),
            Medium,
            format!("checkpoints of the log are signed again: {size} entries"),
        ),
        Event::LogTimestamped(told) => timestamped(told),
        Event::LogTimestampsStopped { size, cause, .. } => {
            let class = Class::Log(LogActivity::Other("Timestamps Stopped"));
            let text = format!("no timestamps over the log since it had {size} entries: {cause}");
            let mut facts = plain("log.timestamps_stopped", class, High, text);
            facts.outcome = Outcome::Failure;
            facts
        }
        Event::LogTimestampsResumed { size } => plain(
            "log.timestamps_resumed",
            Class::Log(LogActivity::Other("Timestamps Resumed")),
            Medium,
            format!("timestamps over the log come again: {size} entries"),
        ),
        Event::LogArchivingFailed(told) => archiving_failed(told),
        Event::LogArchivingResumed { size } => plain(
            "log.archiving_resumed",
            Class::Log(LogActivity::Other("Archiving Resumed")),
            Medium,
            format!("the log is archived again: {size} entries"),
        ),
        Event::LogPruned(told) => plain(
            "log.pruned",
            Class::Log(LogActivity::Delete),
            Medium,
            pruned(told),
        ),
        Event::LogKeyRotated { note, .. } => {
            let class = Class::Log(LogActivity::Other("Key Rotated"));
            // Its lines are those of `curfew_ledger::rotation`; a reader verifies it there.
            let line = |at: usize| note.split('\n').nth(at).unwrap_or("?");
            let text = format!("after {} entries {} signs the log", line(2), line(5));
            plain("log.key_rotated", class, Medium, text)
        }
    }
}

fn timestamped(told: &LogTimestamped) -> Facts {
    let LogTimestamped {
        size,
        tsa,
        tsa_time,
        ..
    } = told;
    let mut text = format!("{size} entries existed before {tsa_time}, says {tsa}");
    let mut severity = Informational;
    if let Some(off) = told.off_us {
        severity = High;
        text += &format!("; its clock is {off} µs off ledger time");
    }
    let class = Class::Log(LogActivity::Other("Timestamped"));
    plain("log.timestamped", class, severity, text)
}

fn archiving_failed(told: &LogArchivingFailed) -> Facts {
    let cause = told.cause.as_str();
    let text = match told.size {
        Some(size) => format!("the log is not archived since it had {size} entries: {cause}"),
        None => format!("the log is not archived: {cause}"),
    };
    let class = Class::Log(LogActivity::Other("Archiving Failed"));
    let mut facts = plain("log.archiving_failed", class, High, text);
    facts.reason = Some(cause.to_owned());
    facts.outcome = Outcome::Failure;
    facts
}

fn pruned(told: &LogPruned) -> String {
    let copy = if told.archived {
        "the archive has them"
    } else {
        "no archive has them"
    };
    let size = told.size;
    format!("the first {size} entries were past their time and are given up; {copy}")
}

fn plain(kind: &'static str, class: Class, severity: Severity, text: impl Into<String>) -> Facts {
    Facts::new(kind, class, severity, text)
}

impl Facts {
    fn about(mut self, subject: &SubjectName) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    fn of(mut self, session: &SessionId) -> Self {
        self.session = Some(session.to_string());
        self
    }

    fn refused(mut self, decision: Decision) -> Self {
        self.outcome = Outcome::Failure;
        self.decision = Some(decision);
        self
    }

    fn ruled(mut self, rules: &[RuleId], decision: Decision) -> Self {
        self.rules = texts(rules);
        self.decision = Some(decision);
        self
    }
}

fn account(change: &AccountChange, by: &Actor) -> Facts {
    let (activity, severity, text) = match change {
        AccountChange::Added(_) => (AccountActivity::Create, Low, "account added"),
        AccountChange::Disabled => (AccountActivity::Disable, Low, "account disabled"),
        AccountChange::Enabled => (AccountActivity::Enable, Low, "account enabled"),
        AccountChange::PasswordSet => (AccountActivity::PasswordReset, Low, "password set"),
        AccountChange::TotpSet => (AccountActivity::FactorSet, Low, "one-time codes set"),
    };
    let mut facts = plain("account.changed", Class::Account(activity), severity, text);
    if let AccountChange::Added(roles) = change {
        facts.roles = texts(roles);
    }
    facts.by = Some(actor(by));
    facts
}

fn end_severity(reason: EndReason) -> Severity {
    match reason {
        EndReason::Idle
        | EndReason::Reauth
        | EndReason::Lifetime
        | EndReason::SignedOut
        | EndReason::IdpSignedOut
        | EndReason::Shutdown => Informational,
        EndReason::EndedByAdmin
        | EndReason::AccountDisabled
        | EndReason::TooManySessions
        | EndReason::CredentialChanged
        | EndReason::PolicyChanged => Low,
        EndReason::SharedSignal | EndReason::Risk | EndReason::RefreshReused => High,
    }
}

fn asked(kind: &'static str, severity: Severity, came: &str, action: &ActionDetail) -> Facts {
    let text = format!("{} on {} {came}", action.verb, action.resource);
    let mut facts = plain(kind, Class::Action, severity, text);
    facts.verb = Some(action.verb.as_str());
    facts.plane = Some(plane_name(action.verb.plane()));
    facts.resource = Some(action.resource.to_string());
    facts.connection = action.connection;
    facts.account = action.account.map(AccountClass::as_str);
    if let Some(context) = &action.context {
        facts.address = Some(context.address);
        facts.network = Some(context.network.clone());
    }
    facts.method.clone_from(&action.method);
    facts.path = told(action, Field::Path, &action.path);
    facts.statement = told(action, Field::Statement, &action.statement);
    facts.fingerprint.clone_from(&action.fingerprint);
    facts.client = told(action, Field::Client, &action.client);
    if let Some(target) = &action.target {
        facts.message = format!("{} ({target})", facts.message);
    }
    facts
}

/// A step of an erasure of what the log only commits to.
fn erasing(kind: &'static str, severity: Severity, text: String, what: &impl Display) -> Facts {
    let class = Class::Entity {
        entity: Entity::Other("Concealed Values"),
        name: what.to_string(),
        activity: if kind == "erasure.done" {
            EntityActivity::Delete
        } else {
            EntityActivity::Update
        },
    };
    plain(kind, class, severity, text)
}

/// The value of a field, or what the entry commits to in its place.
fn told(action: &ActionDetail, field: Field, value: &Option<String>) -> Option<String> {
    let concealed = || action.concealed.get(&field);
    value
        .clone()
        .or_else(|| concealed().map(|commitment| format!("commitment:{commitment}")))
}

fn connection(closed: &ActionClosed) -> Facts {
    let by = word(&closed.by);
    let text = format!("connection closed by {by}");
    let mut facts = plain("action.closed", Class::Closed, Informational, text);
    facts.connection = Some(closed.action);
    facts.deadline_us = closed.deadline.map(|deadline| deadline.at.as_micros());
    facts.late_us = closed.late.map(Span::as_micros);
    facts.bytes_in = Some(closed.bytes_in);
    facts.bytes_out = Some(closed.bytes_out);
    let cut = matches!(
        closed.by,
        ClosedBy::Limit | ClosedBy::SessionEnd | ClosedBy::Policy
    );
    facts.decision = cut.then_some(Decision::Revoked);
    if matches!(closed.by, ClosedBy::Protocol | ClosedBy::Unrecorded) {
        facts.severity = Medium;
    }
    facts.reason = Some(by);
    facts.of(&closed.session)
}

/// Who did something administrative, in one word.
fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Host(user) => format!("host:{user}"),
        Actor::Session(session) => session.to_string(),
    }
}

fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Web => "web",
        Plane::Postgres => "postgres",
        Plane::Console => "console",
    }
}

fn texts<T: Display>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// The word the log has for a value of a closed list.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
