//! The one path: every question goes through here, and no answer leaves without its entry.
//!
//! One task owns the authority's state and the ledger's writer, so the order of entries is the
//! order in which state changed. Planes hold a [`Registrar`] and get [`Permit`]s.

mod ask;
mod conceal;
mod drive;
mod erase;
mod lookup;
mod record;
mod stop;
mod strangers;
mod task;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm
)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use curfew_authority::{Ask, Command, Denial, EndCause, StepUp, Verdict};
use curfew_entry::{
    AccountClass, DenialCause, EndReason, RecordLevel, RuleId, SessionId, Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::permit::{Cut, CutCause, Permit};
use crate::recorder::Unrecorded;

pub use conceal::Concealer;
pub use erase::Approved;
use lookup::Lookup;
pub use lookup::{CredentialFound, LogState, SessionFound};
use strangers::Strangers;
pub use task::{Ledger, Reopen, Start, start};

/// Questions that may wait for the registrar. One takes about 10 µs, so a full queue is about
/// 40 ms of work; whoever comes later waits in the sender.
const QUEUE_MAX: usize = 4_096;

/// When the record of an action must be durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record {
    /// Before anything is sent upstream, unless the verb only reads.
    ByVerb,
    /// Before anything is sent upstream, always.
    Before,
}

/// Why there is no permit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "nothing was done, or nothing was recorded"]
pub enum Refusal {
    /// The credential was never issued, is revoked or has expired.
    Unauthenticated,
    /// The session is over.
    Ended {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// Fresh or stronger authentication first.
    StepUp(StepUp),
    /// Refused; the session goes on.
    Denied(Denial),
    /// The ledger cannot take entries, so nothing is admitted.
    Unavailable(Unavailable),
}

/// Why nothing is admitted for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unavailable {
    /// The ledger's disk is full.
    DiskFull,
    /// The ledger failed to write or sync, or the gateway is stopping.
    Ledger,
    /// The gateway is stopping.
    Stopping,
    /// For this action alone: its entry did not come as far in time as its rules demand.
    Late(RecordLevel),
}

impl From<Unrecorded> for Refusal {
    fn from(unrecorded: Unrecorded) -> Self {
        Self::Unavailable(match unrecorded {
            Unrecorded::Failed => Unavailable::Ledger,
            Unrecorded::Late(level) => Unavailable::Late(level),
        })
    }
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotCarriedOut {
    /// It could not be recorded, or is not permitted.
    #[error("{0:?}")]
    Refused(Refusal),
    /// It cannot be carried out as it stands.
    #[error(transparent)]
    Impossible(#[from] curfew_authority::Refusal),
}

impl From<Refusal> for NotCarriedOut {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The handle that planes hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registrar {
    messages: mpsc::Sender<Message>,
    clock: Clock,
    strangers: Arc<Strangers>,
}

type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What came of several questions that were asked together.
#[derive(Debug)]
pub struct Asked {
    /// One permit for all that were allowed, with the strictest of their limits; none where none was.
    pub permit: Option<Permit>,
    /// How many were allowed, from the first on.
    pub allowed: usize,
    /// Why the next one was not. Those after it were not decided, and have no entry.
    pub refusal: Option<Refusal>,
}

enum Message {
    Ask {
        asks: Vec<Ask>,
        /// Of a connection: the classes of account there are for it.
        accounts: Vec<AccountClass>,
        answer: Answer<Asked>,
    },
    Command {
        command: Box<Command>,
        answer: Answer<Verdict>,
    },
    Lookup(Lookup),
    Stop {
        answer: Answer<()>,
    },
}

impl Registrar {
    /// Ledger time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Counts a device code (RFC 8628) that this address was not given, since too many wait.
    pub fn count_refused_device(&self, address: IpAddr) {
        self.strangers.refused_device(address, self.clock.now());
    }

    /// Asks for a permit. For a verb that only reads, the permit comes at once and the answer
    /// must wait for [`Permit::recorded`]; for all others the permit comes once its entry is
    /// durable.
    ///
    /// # Errors
    /// A [`Refusal`], itself recorded where there is a session or a credential to speak of.
    pub async fn ask(&self, ask: Ask, record: Record) -> Result<Permit, Refusal> {
        self.ask_to_connect(ask, Vec::new(), record).await
    }

    /// The same for a connection, for which there are accounts of these classes: the permit's grant
    /// names the one with the most reach that policy permits at that moment.
    ///
    /// # Errors
    /// As [`Self::ask`]. Where policy permits none of them, the refusal is that of the least.
    pub async fn ask_to_connect(
        &self,
        ask: Ask,
        accounts: Vec<AccountClass>,
        record: Record,
    ) -> Result<Permit, Refusal> {
        let asked = self.ask_about(vec![ask], accounts, record).await?;
        match (asked.permit, asked.refusal) {
            (_, Some(refusal)) => Err(refusal),
            (Some(permit), None) => Ok(permit),
            (None, None) => Err(Refusal::Unauthenticated),
        }
    }

    /// Asks for several actions of one session that follow each other, such as a pipeline of
    /// statements: they are decided and recorded in order, up to the first that is refused, and
    /// waited for once. As with [`Self::ask`] the permit comes once its entries are durable, unless
    /// all that it allows only reads.
    ///
    /// # Errors
    /// When nothing can be admitted at all, or none of the entries can be recorded.
    pub async fn ask_all(&self, asks: Vec<Ask>, record: Record) -> Result<Asked, Refusal> {
        self.ask_about(asks, Vec::new(), record).await
    }

    async fn ask_about(
        &self,
        asks: Vec<Ask>,
        accounts: Vec<AccountClass>,
        record: Record,
    ) -> Result<Asked, Refusal> {
        let reads: Vec<bool> = asks.iter().map(|ask| ask.action.verb.is_read()).collect();
        let asked = self
            .send(|answer| Message::Ask {
                asks,
                accounts,
                answer,
            })
            .await?;
        let waits = record == Record::Before || reads.iter().take(asked.allowed).any(|read| !read);
        if let (Some(permit), true) = (&asked.permit, waits) {
            tokio::select! {
                biased;
                recorded = permit.recorded() => recorded?,
                // Told below; nothing is waited for that can no longer be done.
                _ = permit.cut().fired() => {}
            }
            if let Some(cut) = permit.cut().now() {
                let rules = permit.grant().rules.clone();
                return Err(refusal_by(permit.session(), cut, rules));
            }
        }
        Ok(asked)
    }

    /// Carries out a command and waits until what it did is durable.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when it cannot be recorded. What the authority itself says is
    /// the verdict.
    pub async fn command(&self, command: Command) -> Result<Verdict, Refusal> {
        self.send(|answer| Message::Command {
            command: Box::new(command),
            answer,
        })
        .await
    }

    /// Carries out a command that is either done or cannot be, and waits until what it did is
    /// durable.
    ///
    /// # Errors
    /// When it cannot be recorded, or the authority refuses it.
    pub async fn carry_out(&self, command: Command) -> Result<(), NotCarriedOut> {
        match self.command(command).await? {
            Verdict::Refused(refusal) => Err(refusal.into()),
            Verdict::Deny(denial) => Err(Refusal::Denied(denial).into()),
            Verdict::StepUp(step_up) => Err(Refusal::StepUp(step_up).into()),
            Verdict::Unauthenticated => Err(Refusal::Unauthenticated.into()),
            Verdict::Done | Verdict::Allow(_) | Verdict::Ended { .. } => Ok(()),
        }
    }

    /// Has the log say something of itself. False where it can take nothing now: then it is still
    /// to be said.
    pub async fn note(&self, command: Command) -> bool {
        match self.carry_out(command).await {
            Ok(()) => true,
            Err(NotCarriedOut::Impossible(refusal)) => {
                tracing::error!(%refusal, "the log does not say this: it contradicts what it says");
                true
            }
            Err(NotCarriedOut::Refused(_)) => false,
        }
    }

    /// Ends a session, and waits until that is durable. False where none of this name is live or
    /// lately ended.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn end(&self, session: SessionId, cause: EndCause) -> Result<bool, Refusal> {
        let verdict = self.command(Command::End { session, cause }).await?;
        Ok(matches!(verdict, Verdict::Ended { .. }))
    }

    /// Stops: cuts what is live, records the end of work and closes the ledger.
    ///
    /// # Errors
    /// When the end of work could not be recorded.
    pub async fn stop(&self) -> Result<(), Refusal> {
        self.send(|answer| Message::Stop { answer }).await
    }

    /// Waits until its task is gone: after [`Self::stop`], or because it failed.
    pub async fn gone(&self) {
        self.messages.closed().await;
    }

    async fn send<T>(&self, message: impl FnOnce(Answer<T>) -> Message) -> Result<T, Refusal> {
        let stopping = || Refusal::Unavailable(Unavailable::Stopping);
        let (answer, waits) = oneshot::channel();
        self.messages
            .send(message(answer))
            .await
            .map_err(|_| stopping())?;
        waits.await.map_err(|_| stopping())?
    }
}

/// What became of whoever asks on something that was cut.
fn refusal_by(session: &SessionId, cut: Cut, rules: Vec<RuleId>) -> Refusal {
    let session = session.clone();
    match cut.cause {
        CutCause::SessionEnded(reason) => Refusal::Ended { session, reason },
        CutCause::Limit(_) => Refusal::StepUp(StepUp {
            session,
            passed: cut.deadline,
            assurance: None,
            max_age: None,
            rules,
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
    }
}
