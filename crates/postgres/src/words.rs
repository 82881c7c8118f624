//! What clients are told: refusals and ends, each with its SQLSTATE, the circumstances and how to
//! go on. Nothing of addresses, paths or anybody's credentials is in here.

use curfew_entry::{
    AccountClass, DeadlineCause, DenialCause, EndReason, RecordLevel, ResourceName, Verb,
};
use curfew_gate::permit::{Cut, CutCause};
use curfew_gate::registrar::{Refusal, Unavailable};
use curfew_gate::{Denial, StepUp};

use super::frame::{Complaint, Severity};

/// What the texts need to know.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// Where people sign in.
    pub(crate) portal: String,
    /// The resource's name.
    pub(crate) resource: ResourceName,
    /// What the connection's account can do, where there is one for each class.
    pub(crate) account: Option<AccountClass>,
}

impl Words {
    fn sign_in(&self) -> String {
        format!(
            "Sign in at {} and connect with a new password, or use: curfew psql {}",
            self.portal, self.resource
        )
    }

    fn authenticate_again(&self) -> String {
        format!("Authenticate again at {}, then try again.", self.portal)
    }

    /// For a statement or a connection that there is no permit for.
    pub(crate) fn refusal(&self, refusal: &Refusal, verb: Verb) -> Complaint {
        let complaint = match refusal {
            Refusal::Unauthenticated => {
                Complaint::fatal("28000", "this password is no longer valid").hint(self.sign_in())
            }
            Refusal::Ended { reason, .. } => Complaint::fatal("28000", "your session has ended")
                .detail(end_reason(*reason))
                .hint(self.sign_in()),
            Refusal::StepUp(step_up) => self.step_up(step_up, verb),
            Refusal::Denied(denial) => self.denial(denial, verb),
            Refusal::Unavailable(unavailable) => unavailable_now(*unavailable),
        };
        if verb == Verb::SqlConnect {
            return Complaint {
                severity: Severity::Fatal,
                ..complaint
            };
        }
        complaint
    }

    /// For a connection that there is no permit for. `least` is the account with the least reach that
    /// it could have had, where there are several.
    pub(crate) fn no_connection(
        &self,
        refusal: &Refusal,
        least: Option<AccountClass>,
    ) -> Complaint {
        let complaint = self.refusal(refusal, Verb::SqlConnect);
        let by_policy = matches!(refusal, Refusal::StepUp(_) | Refusal::Denied(_));
        let needed = least.map_or(&[][..], AccountClass::verbs);
        if !by_policy || needed.is_empty() {
            return complaint;
        }
        let needed: Vec<&str> = needed.iter().map(|verb| verb.as_str()).collect();
        let why = format!(
            "The account with the least reach that there is here can do {}, so a connection needs \
             permission for that too.",
            needed.join(", ")
        );
        let detail = complaint.detail.clone().unwrap_or_default();
        complaint.detail(format!("{detail} {why}").trim().to_owned())
    }

    /// For a statement that policy permits, on a connection whose account cannot do it: there was no
    /// permission when it was opened, or there is no account for it.
    pub(crate) fn beyond_account(&self, verb: Verb) -> Option<Complaint> {
        let account = self
            .account
            .filter(|account| !account.verbs().contains(&verb))?;
        let opened_for = match account {
            AccountClass::Connect => "connecting only",
            AccountClass::Read => "reading",
            AccountClass::Write => "reading and writing",
            AccountClass::Ddl => "everything",
        };
        let detail = format!(
            "Its account at the database cannot do {verb}: that was not permitted when it was opened, \
             or no account of {} can.",
            self.resource
        );
        let message = format!("this connection was opened for {opened_for}");
        let complaint = Complaint::error("42501", message).detail(detail);
        Some(complaint.hint("Connect again to use what you may do now."))
    }

    fn step_up(&self, step_up: &StepUp, verb: Verb) -> Complaint {
        let mut detail = Vec::new();
        if let Some(passed) = step_up.passed {
            detail.push(format!(
                "The {} limit for {verb} on {} has run out.",
                passed.cause, self.resource
            ));
        }
        if let Some(level) = step_up.assurance {
            detail.push(format!("It needs assurance level {}.", u8::from(level)));
        }
        detail.extend(step_up.reason());
        detail.extend(named(
            "Rule",
            step_up.rules.iter().map(ToString::to_string).collect(),
        ));
        Complaint::error(
            "42501",
            format!("{verb} on {} needs fresh authentication", self.resource),
        )
        .detail(detail.join(" "))
        .hint(self.authenticate_again())
    }

    fn denial(&self, denial: &Denial, verb: Verb) -> Complaint {
        let rules: Vec<String> = denial.rules.iter().map(ToString::to_string).collect();
        let (why, hint) = match denial.cause {
            DenialCause::NotPermitted => (
                format!("No rule permits {verb} on {}.", self.resource),
                None,
            ),
            DenialCause::Forbidden => {
                (format!("A rule forbids {verb} on {}.", self.resource), None)
            }
            DenialCause::TooOld => (
                format!("Your session is too old for {verb} on {}.", self.resource),
                Some(self.sign_in()),
            ),
            DenialCause::WrongAudience => (
                "The password is for another resource.".to_owned(),
                Some(self.sign_in()),
            ),
            DenialCause::UnknownResource => ("The resource is not known.".to_owned(), None),
        };
        let detail = std::iter::once(why)
            .chain(denial.reason())
            .chain(named("Rule", rules))
            .collect::<Vec<_>>()
            .join(" ");
        let hint =
            hint.unwrap_or_else(|| "Whoever writes Curfew's policy can permit it.".to_owned());
        Complaint::error(
            "42501",
            format!("permission denied for {verb} on {}", self.resource),
        )
        .detail(detail)
        .hint(hint)
    }

    /// How to go on after a limit of the resource. With less reach there may be no limit.
    fn after_limit(&self) -> String {
        match self.account {
            Some(AccountClass::Write | AccountClass::Ddl) => format!(
                "Authenticate again at {}, or connect again for what needs no fresh authentication.",
                self.portal
            ),
            Some(AccountClass::Connect | AccountClass::Read) | None => self.authenticate_again(),
        }
    }

    /// For a connection that is cut. `status` is the server's newest transaction status.
    pub(crate) fn cut(&self, cut: &Cut, status: u8) -> Complaint {
        let in_transaction = status != b'I';
        let for_idling = || match in_transaction {
            true => Complaint::fatal(
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
            ),
            false => Complaint::fatal(
                "57P05",
                "terminating connection due to idle-session timeout",
            ),
        };
        let limit = |cause: DeadlineCause, what: &str| {
            let length = cut
                .limit
                .map(|limit| format!(": {limit}"))
                .unwrap_or_default();
            format!("The {cause} limit of {what} has run out{length}.")
        };
        match cut.cause {
            CutCause::SessionEnded(EndReason::Idle) => for_idling()
                .detail(limit(DeadlineCause::Idle, "your session"))
                .hint(self.sign_in()),
            CutCause::SessionEnded(reason) => {
                let clocks = [DeadlineCause::Reauth, DeadlineCause::Lifetime];
                let detail = match clocks.into_iter().find(|clock| reason == (*clock).into()) {
                    Some(clock) => limit(clock, "your session"),
                    None => end_reason(reason).to_owned(),
                };
                Complaint::fatal(
                    "57P01",
                    "terminating connection because your session has ended",
                )
                .detail(detail)
                .hint(self.sign_in())
            }
            CutCause::Limit(cause) => {
                let complaint = match cause {
                    DeadlineCause::Idle => for_idling(),
                    DeadlineCause::Reauth | DeadlineCause::Lifetime => Complaint::fatal(
                        "57P01",
                        format!("terminating connection due to a limit of {}", self.resource),
                    ),
                };
                complaint
                    .detail(limit(cause, self.resource.as_str()))
                    .hint(self.after_limit())
            }
            CutCause::PolicyChanged => {
                Complaint::fatal("57P01", "terminating connection because of a new policy")
                    .detail(format!(
                        "It no longer permits all that this connection's account at {} can do.",
                        self.resource
                    ))
                    .hint("Connect again to use what you may do now.")
            }
            CutCause::LedgerFailed => Complaint::fatal(
                "57P01",
                "terminating connection because the audit log cannot take entries",
            )
            .hint("Try again later; whoever runs Curfew has been told."),
            CutCause::Shutdown | CutCause::Released => stopping(),
        }
    }

    /// For a password of a session that is over, or one that has expired.
    /// For one connection more than a person may have.
    pub(crate) fn too_many_connections(&self, most: usize) -> Complaint {
        let message = format!("you have {most} connections to {} already", self.resource);
        Complaint::fatal("53300", message)
            .detail("That is as many as one person may have, on all machines and in all sessions.")
            .hint("Close some, or make pools smaller; whoever runs Curfew sets database_connections_per_person.")
    }

    /// For a text that is no SQL, and that may not be sent for the database to say so.
    pub(crate) fn mistaken(&self, mistake: &str, verb: Verb) -> Complaint {
        Complaint::error("42601", mistake).detail(format!(
            "What cannot be read is only sent to {} for whoever may do {verb} there now.",
            self.resource
        ))
    }

    /// For whoever knows the password of another database than the one that was asked for.
    pub(crate) fn other_database(&self, asked: &str, other: &ResourceName) -> Complaint {
        // The name comes from the client and goes back to it.
        let shown: String = asked.chars().filter(|c| !c.is_control()).take(63).collect();
        Complaint::fatal(
            "3D000",
            format!("this password does not open database \"{shown}\""),
        )
        .detail(format!("It is the password for database \"{other}\"."))
        .hint(format!(
            "Connect with dbname={other}, or take a password for another database from {}.",
            self.portal
        ))
    }

    pub(crate) fn no_password(&self) -> Complaint {
        Complaint::fatal("28P01", "password authentication failed").hint(format!(
            "The user is your Curfew user name, the database is the resource's name, and the \
                 password comes from {} or: curfew connect {}",
            self.portal, self.resource
        ))
    }
}

fn named(what: &str, names: Vec<String>) -> Option<String> {
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("{what}: {one}.")),
        more => Some(format!("{what}s: {}.", more.join(", "))),
    }
}

/// When nothing can be recorded, nothing is done.
fn unavailable_now(unavailable: Unavailable) -> Complaint {
    let hint = "Try again later; whoever runs Curfew has been told.";
    match unavailable {
        Unavailable::DiskFull => Complaint::error(
            "53100",
            "the audit log's disk is full, so nothing can be done",
        )
        .hint(hint),
        Unavailable::Ledger => Complaint::error(
            "57P03",
            "the audit log cannot take entries, so nothing can be done",
        )
        .hint(hint),
        Unavailable::Stopping => stopping(),
        Unavailable::Late(level) => Complaint::error(
            "57P03",
            match level {
                RecordLevel::Signed => {
                    "the audit log's entry for this was not signed in time, so it was not done"
                }
                RecordLevel::Witnessed => {
                    "too few witnesses confirmed the audit log in time, so this was not done"
                }
                RecordLevel::Timestamped => {
                    "the audit log's entry for this got no timestamp in time, so it was not done"
                }
            },
        )
        .hint(hint),
    }
}

/// For whoever is connected, or connects, while Curfew stops.
pub(crate) fn stopping() -> Complaint {
    Complaint::fatal("57P01", "terminating connection because Curfew is stopping")
        .hint("Connect again in a moment.")
}

fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "It was idle for too long.",
        EndReason::Reauth => "Its authentication grew too old.",
        EndReason::Lifetime => "It reached its longest lifetime.",
        EndReason::SignedOut => "You signed out.",
        EndReason::EndedByAdmin => "An administrator ended it.",
        EndReason::IdpSignedOut => "Your identity provider signed you out.",
        EndReason::SharedSignal => "Your identity provider sent a signal that ended it.",
        EndReason::Risk => "The risk grew too high.",
        EndReason::AccountDisabled => "Your account was disabled.",
        EndReason::TooManySessions => "You had too many sessions.",
        EndReason::CredentialChanged => "A credential of your account was changed.",
        EndReason::RefreshReused => "A token of it was used twice.",
        EndReason::PolicyChanged => "A new policy no longer allows it.",
        EndReason::Shutdown => "Curfew was stopped for good.",
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::Span;

    use super::*;

    fn words() -> Words {
        Words {
            portal: "https://curfew.test".into(),
            resource: "orders".parse().unwrap(),
            account: None,
        }
    }

    fn cut(cause: CutCause) -> Cut {
        Cut {
            cause,
            deadline: None,
            limit: Some(Span::from_secs(900)),
        }
    }

    #[test]
    fn each_end_has_its_code() {
        let idle = CutCause::SessionEnded(EndReason::Idle);
        let cases = [
            (idle, b'I', "57P05"),
            (idle, b'T', "25P03"),
            (idle, b'E', "25P03"),
            (CutCause::Limit(DeadlineCause::Idle), b'I', "57P05"),
            (CutCause::Limit(DeadlineCause::Reauth), b'I', "57P01"),
            (CutCause::SessionEnded(EndReason::Lifetime), b'T', "57P01"),
            (
                CutCause::SessionEnded(EndReason::EndedByAdmin),
                b'I',
                "57P01",
            ),
            (CutCause::LedgerFailed, b'I', "57P01"),
            (CutCause::Shutdown, b'I', "57P01"),
        ];
        for (cause, status, code) in cases {
            let complaint = words().cut(&cut(cause), status);
            assert_eq!(
                (complaint.code, complaint.severity),
                (code, Severity::Fatal),
                "{cause:?}"
            );
            assert!(complaint.hint.is_some());
        }
        let idle = words().cut(&cut(idle), b'I');
        assert_eq!(
            idle.detail.as_deref(),
            Some("The idle limit of your session has run out: 15m.")
        );
    }

    #[test]
    fn a_refused_connection_is_fatal_and_a_refused_statement_is_not() {
        let denied = Refusal::Denied(Denial {
            session: None,
            cause: DenialCause::Forbidden,
            rules: vec!["no-writes".parse().unwrap()],
            reasons: vec!["Nothing is changed on Fridays.".to_owned()],
        });
        let statement = words().refusal(&denied, Verb::SqlWrite);
        assert_eq!(
            (statement.severity, statement.code),
            (Severity::Error, "42501")
        );
        assert_eq!(
            statement.detail.as_deref(),
            Some(
                "A rule forbids sql.write on orders. Nothing is changed on Fridays. Rule: no-writes."
            )
        );
        assert_eq!(
            words().refusal(&denied, Verb::SqlConnect).severity,
            Severity::Fatal
        );
        let late = Unavailable::Late(RecordLevel::Witnessed);
        let late = words().refusal(&Refusal::Unavailable(late), Verb::SqlWrite);
        assert_eq!((late.severity, late.code), (Severity::Error, "57P03"));
        assert!(late.message.contains("witnesses"), "{}", late.message);
        let full = words().refusal(&Refusal::Unavailable(Unavailable::DiskFull), Verb::SqlRead);
        assert_eq!((full.severity, full.code), (Severity::Error, "53100"));
    }
}
