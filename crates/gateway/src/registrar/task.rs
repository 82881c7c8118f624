//! The task that owns the authority's state and the ledger's writer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{
    ActionClosed, Ask, Authority, ClosedBy, Command, Decision, Grant, Presenter, SessionId,
    Timestamp, Verdict,
};
use curfew_ledger::Writer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::conceal::Concealer;
use super::erase::{Approved, Erasing};
use super::live::{Live, LivePermit};
use super::outage::Outage;
use super::strangers::Strangers;
use super::{Answer, Asked, Message, QUEUE_MAX, Refusal, Registrar, Unavailable};
use crate::clock::{self, Alarm, Clock};
use crate::permit::{Activity, Cut, CutCause, Permit, Recording, Released};
use crate::recorder::Durability;

/// How often clocks are compared, and how often a failed ledger is opened again.
const TICK: Duration = Duration::from_secs(1);

/// A wall clock this far off its last known offset has been stepped: NTP slews at most 0.5 ms a
/// second, so this is twenty minutes of slewing within one tick.
const STEP_US: u64 = 600_000;

/// How long a stop waits for planes to give their permits back. A cut takes milliseconds; this is
/// for a client that does not read.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Opens the ledger again after a failure and gives its size. Blocking.
pub(crate) type Reopen =
    Arc<dyn Fn(Arc<Durability>) -> Result<(Writer, u64), String> + Send + Sync>;

/// The ledger, as the registrar takes it over.
pub(crate) struct Ledger {
    pub(crate) writer: Writer,
    pub(crate) reopen: Reopen,
    pub(crate) durability: Arc<Durability>,
    pub(crate) concealer: Option<Concealer>,
    pub(crate) failures: mpsc::UnboundedReceiver<String>,
}

/// What the registrar starts from.
pub(crate) struct Start {
    pub(crate) authority: Authority,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    pub(crate) outage_grace: Duration,
    pub(crate) record_wait: Duration,
    /// What was approved and not done when the gateway last stopped.
    pub(crate) approved: Vec<Approved>,
}

pub(super) type Reopening = JoinHandle<Result<(Writer, u64), String>>;

pub(super) struct Task {
    pub(super) authority: Authority,
    /// None while the ledger has failed.
    pub(super) writer: Option<Writer>,
    reopen: Reopen,
    pub(super) durability: Arc<Durability>,
    /// Entries not known to be durable, to be written again after a failure.
    pub(super) pending: VecDeque<(u64, Vec<u8>)>,
    /// None where nothing is concealed.
    pub(super) concealer: Option<Concealer>,
    pub(super) erasing: Erasing,
    pub(super) live: Live,
    pub(super) outage: Option<Outage>,
    outage_grace: Duration,
    record_wait: Duration,
    pub(super) clock: Clock,
    alarm: Alarm,
    armed: Option<Timestamp>,
    wall_offset_us: i64,
    pub(super) strangers: Arc<Strangers>,
    released: mpsc::UnboundedSender<Released>,
}

/// Starts the task.
///
/// # Errors
/// When the kernel gives no timer.
pub(crate) fn start(start: Start) -> std::io::Result<Registrar> {
    let (messages, inbox) = mpsc::channel(QUEUE_MAX);
    // Bounded by the permits that are out: each is given back once.
    let (released, returns) = mpsc::unbounded_channel();
    let mut erasing = Erasing::default();
    for approved in start.approved {
        erasing.push(approved);
    }
    let strangers = Arc::<Strangers>::default();
    let task = Task {
        erasing,
        alarm: Alarm::new(start.clock.clone())?,
        armed: None,
        wall_offset_us: start.clock.wall_offset_us(),
        clock: start.clock.clone(),
        authority: start.authority,
        writer: Some(start.ledger.writer),
        reopen: start.ledger.reopen,
        durability: start.ledger.durability,
        pending: VecDeque::new(),
        concealer: start.ledger.concealer,
        live: Live::default(),
        outage: None,
        outage_grace: start.outage_grace,
        record_wait: start.record_wait,
        strangers: Arc::clone(&strangers),
        released,
    };
    tokio::spawn(task.run(inbox, returns, start.ledger.failures));
    Ok(Registrar {
        messages,
        clock: start.clock,
        strangers,
    })
}

/// Waits for the reopening under way; for ever where there is none.
async fn reopened(reopening: &mut Option<Reopening>) -> Result<(Writer, u64), String> {
    match reopening {
        Some(handle) => match handle.await {
            Ok(result) => result,
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut returns: mpsc::UnboundedReceiver<Released>,
        mut failures: mpsc::UnboundedReceiver<String>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reopening: Option<Reopening> = None;
        let stop = loop {
            self.arm();
            tokio::select! {
                biased;
                rung = self.alarm.rung() => {
                    if let Err(error) = rung {
                        tracing::error!(%error, "the deadline timer failed");
                    }
                    self.armed = None;
                    self.ring();
                }
                Some(cause) = failures.recv() => self.fail(Unavailable::Ledger, cause),
                Some(released) = returns.recv() => self.release(&released),
                result = reopened(&mut reopening) => {
                    reopening = None;
                    self.reopened(result);
                }
                result = self.erasing.wiped() => self.wiped(result),
                message = inbox.recv() => match message {
                    Some(Message::Stop { answer }) => break Some(answer),
                    Some(message) => self.take(message),
                    None => break None,
                },
                _ = tick.tick() => {
                    self.tick();
                    if self.writer.is_none() && reopening.is_none() {
                        let (open, durability) =
                            (Arc::clone(&self.reopen), Arc::clone(&self.durability));
                        reopening = Some(tokio::task::spawn_blocking(move || open(durability)));
                    }
                }
            }
        };
        inbox.close();
        self.stop(&mut returns, stop).await;
    }

    /// Sets the timer to the nearest moment at which something must end.
    fn arm(&mut self) {
        let own = match &self.outage {
            Some(outage) if !outage.has_reserve() => outage.grace_end(self.outage_grace),
            Some(outage) => [
                outage.grace_end(self.outage_grace),
                self.authority.next_deadline(),
            ]
            .into_iter()
            .flatten()
            .min(),
            None => self.authority.next_deadline(),
        };
        let next = [own, self.live.next_timer()].into_iter().flatten().min();
        if next != self.armed {
            self.armed = next;
            if let Err(error) = self.alarm.set(next) {
                tracing::error!(%error, "the deadline timer could not be set");
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ask { asks, answer } => self.answer_asks(asks, answer),
            Message::Command { command, answer } => self.answer_command(*command, answer),
            Message::Query(query) => query(&self.authority, self.clock.now()),
            // The loop takes this one itself.
            Message::Stop { .. } => {}
        }
    }

    fn answer_asks(&mut self, asks: Vec<Ask>, answer: Answer<Asked>) {
        if let Err(refusal) = self.admitting() {
            let _ = answer.send(Err(refusal));
            return;
        }
        let mut granted: Option<Grant> = None;
        let mut entries = Vec::new();
        let mut refused = None;
        for ask in asks {
            match self.decide_ask(ask) {
                Ok((entry, grant)) => {
                    entries.push(entry);
                    granted = Some(match granted {
                        None => grant,
                        Some(before) => before.and(&grant),
                    });
                }
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        let allowed = entries.len();
        let permit = granted.and_then(|grant| self.mint(entries, grant));
        let (entry, refusal) = match refused {
            Some((entry, refusal)) => (entry, Some(refusal)),
            None => (None, None),
        };
        let asked = Asked {
            permit,
            allowed,
            refusal,
        };
        // The one who asked may be gone: the permit then gives itself back.
        self.answer_when_durable(entry, Ok(asked), answer);
    }

    /// Decides and records one question. A refusal comes with its entry, where it has one.
    fn decide_ask(&mut self, ask: Ask) -> Result<(u64, Grant), (Option<u64>, Refusal)> {
        let session = match &ask.presenter {
            Presenter::Session(session) => Some(session.clone()),
            Presenter::Credential { hash, .. } => self
                .authority
                .credential(hash)
                .map(|(session, _)| session.clone()),
        };
        let command = Command::Ask(ask);
        let now = self.clock.now();
        let mut decision = self.authority.decide(&command, now);
        // A refusal may rest on activity that has no entry yet; that is noted first.
        if !matches!(decision.verdict, Verdict::Allow(_))
            && let Some(session) = session
            && self.observe(&session, now)
        {
            decision = self.authority.decide(&command, now);
        }
        let verdict = decision.verdict.clone();
        let entry = self
            .record(&command, decision, now)
            .map_err(|kind| (None, Refusal::Unavailable(kind)))?;
        let refusal = match verdict {
            Verdict::Allow(grant) => {
                return match entry {
                    Some(entry) => Ok((entry, grant)),
                    None => Err((None, Refusal::Unauthenticated)),
                };
            }
            Verdict::StepUp(step_up) => Refusal::StepUp(step_up),
            Verdict::Deny(denial) => Refusal::Denied(denial),
            Verdict::Ended { session, reason } => Refusal::Ended { session, reason },
            Verdict::Refused(fault) => {
                tracing::error!(%fault, "a question that cannot be asked");
                Refusal::Unauthenticated
            }
            Verdict::Unauthenticated | Verdict::Done => Refusal::Unauthenticated,
        };
        Err((entry, refusal))
    }

    fn answer_command(&mut self, command: Command, answer: Answer<Verdict>) {
        if let Err(refusal) = self.admitting() {
            if let (Command::End { session, cause }, Some(outage)) = (&command, &mut self.outage) {
                // Ending cannot wait for the record: the traffic stops now, the entry follows.
                self.live
                    .end(session, Cut::of(CutCause::SessionEnded(cause.reason)));
                outage.cut.insert(session.clone(), self.clock.now());
                outage.defer(command);
            }
            let _ = answer.send(Err(refusal));
            return;
        }
        let now = self.clock.now();
        let decision = self.authority.decide(&command, now);
        let verdict = decision.verdict.clone();
        match self.record(&command, decision, now) {
            Ok(entry) => self.answer_when_durable(entry, Ok(verdict), answer),
            Err(kind) => {
                let _ = answer.send(Err(Refusal::Unavailable(kind)));
            }
        }
    }

    /// Answers once the entry is durable: a refusal is recorded like everything else.
    fn answer_when_durable<T: Send + 'static>(
        &self,
        entry: Option<u64>,
        result: Result<T, Refusal>,
        answer: Answer<T>,
    ) {
        let Some(entry) = entry else {
            let _ = answer.send(result);
            return;
        };
        let durability = Arc::clone(&self.durability);
        tokio::spawn(async move {
            let result = match durability.wait(entry).await {
                Ok(()) => result,
                Err(unrecorded) => Err(unrecorded.into()),
            };
            let _ = answer.send(result);
        });
    }

    fn mint(&mut self, entries: Vec<u64>, grant: Grant) -> Option<Permit> {
        let session = self.authority.session(&grant.session)?;
        let last = entries.last().copied()?;
        let (id, cut, pulse) = self.live.admit(session, entries, grant.limits);
        let activity = Activity::new(pulse, self.clock.clone());
        let recording = Recording::new(Arc::clone(&self.durability), self.record_wait);
        Some(Permit::mint(
            id,
            last,
            grant,
            cut,
            activity,
            recording,
            self.released.clone(),
        ))
    }

    /// Notes activity that has no entry yet. True where there was some.
    fn observe(&mut self, session: &SessionId, now: Timestamp) -> bool {
        let seen = self
            .authority
            .session(session)
            .and_then(|session| self.live.unrecorded_activity(session, now));
        let Some(active_at) = seen else { return false };
        self.carry_out(
            &Command::Observe {
                session: session.clone(),
                active_at,
            },
            now,
        )
    }

    /// Decides and records a command that nobody waits for. False where it could not be recorded.
    pub(super) fn carry_out(&mut self, command: &Command, now: Timestamp) -> bool {
        let decision: Decision = self.authority.decide(command, now);
        self.record(command, decision, now).is_ok()
    }

    /// Some deadline has come. What is due is cut first and recorded after.
    fn ring(&mut self) {
        let now = self.clock.now();
        if let Some(outage) = &mut self.outage
            && outage
                .grace_end(self.outage_grace)
                .is_some_and(|end| end <= now)
        {
            outage.grace_over = true;
            self.live.cut_all(CutCause::LedgerFailed);
            tracing::error!("the grace is over: all live traffic is cut");
        }
        let due = self.live.ring(&self.authority, now);
        if let Some(outage) = &mut self.outage
            && !outage.has_reserve()
        {
            let cut_at = self.clock.now();
            let ended = due
                .into_iter()
                .filter(|due| due.ends)
                .map(|due| due.session);
            outage.cut.extend(ended.map(|session| (session, cut_at)));
            return;
        }
        for due in due {
            if let Some(active_at) = due.active_at {
                let command = Command::Observe {
                    session: due.session,
                    active_at,
                };
                self.carry_out(&command, now);
            }
        }
        let now = self.clock.now();
        if self.authority.next_deadline().is_some_and(|at| at <= now) {
            self.carry_out(&Command::Expire, now);
        }
    }

    fn release(&mut self, released: &Released) {
        let Some(permit) = self.live.release(released.id) else {
            return;
        };
        let durable = self.durability.size();
        for (place, entry) in permit.entries.iter().copied().enumerate() {
            let unrecorded = self.outage.is_some() && entry >= durable;
            let closed_by = match &released.closing {
                _ if unrecorded => ClosedBy::Unrecorded,
                Some(closing) => closing.by,
                None if released.skipped.contains(&place) => ClosedBy::Skipped,
                None => continue,
            };
            let closed = self.closing(&permit, entry, released, closed_by);
            let command = Command::Close(closed);
            let recordable = self.outage.as_ref().is_none_or(Outage::has_reserve);
            if recordable && self.carry_out(&command, self.clock.now()) {
                continue;
            }
            if let Some(outage) = &mut self.outage {
                outage.defer(command);
            }
        }
    }

    /// How what one entry allowed was closed.
    fn closing(
        &self,
        permit: &LivePermit,
        action: u64,
        released: &Released,
        by: ClosedBy,
    ) -> ActionClosed {
        let closed = released
            .closing
            .map_or_else(|| self.clock.now(), |closing| closing.closed);
        let cut_by_us = matches!(by, ClosedBy::Limit | ClosedBy::SessionEnd);
        let deadline = permit
            .cut
            .now()
            .filter(|_| cut_by_us)
            .and_then(|cut| cut.deadline);
        ActionClosed {
            session: permit.session.clone(),
            action,
            by,
            deadline,
            closed,
            late: deadline.map(|deadline| closed.saturating_since(deadline.at)),
            bytes_in: released.closing.map_or(0, |closing| closing.bytes_in),
            bytes_out: released.closing.map_or(0, |closing| closing.bytes_out),
        }
    }

    fn tick(&mut self) {
        let offset = self.clock.wall_offset_us();
        if self.outage.is_none() && offset.abs_diff(self.wall_offset_us) > STEP_US {
            tracing::warn!(wall_offset_us = offset, "the wall clock was stepped");
            let command = Command::StepClock {
                wall_offset_us: offset,
            };
            self.carry_out(&command, self.clock.now());
        }
        self.wall_offset_us = offset;
        self.watch_clock();
        self.look_for_space();
        self.summarize(false);
        self.erase_next();
    }

    /// Records how many attempts without a live session have no entries of their own.
    fn summarize(&mut self, at_end: bool) {
        let now = self.clock.now();
        let authority = &self.authority;
        self.strangers
            .forget(now, |session| authority.ended(session).is_some());
        if self.outage.is_some() {
            return;
        }
        let Some(counted) = self.strangers.take(now, at_end) else {
            return;
        };
        if !self.carry_out(&Command::SummarizeAttempts(counted.told()), now) {
            self.strangers.put_back(counted);
        }
    }

    /// Says it where the wall clock is not kept in step any more, or is again.
    fn watch_clock(&mut self) {
        if self.outage.is_some() {
            return;
        }
        if let Some(wall) = clock::wall() {
            self.carry_out(&Command::WatchClock(wall), self.clock.now());
        }
    }

    async fn stop(
        mut self,
        returns: &mut mpsc::UnboundedReceiver<Released>,
        answer: Option<Answer<()>>,
    ) {
        self.live.cut_all(CutCause::Shutdown);
        let given_back = async {
            while self.live.permits() > 0 {
                match returns.recv().await {
                    Some(released) => self.release(&released),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(STOP_WAIT, given_back).await.is_err() {
            tracing::warn!(permits = self.live.permits(), "some clients did not let go");
        }
        self.summarize(true);
        let recorded =
            self.outage.is_none() && self.carry_out(&Command::StopGateway, self.clock.now());
        let closed = match self.writer.take() {
            Some(writer) => tokio::task::spawn_blocking(move || writer.close()).await,
            None => return,
        };
        let whole = match closed {
            Ok(Ok(())) => recorded,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger did not close");
                false
            }
            Err(_) => false,
        };
        if let Some(answer) = answer {
            let result = if whole {
                Ok(())
            } else {
                Err(Refusal::Unavailable(Unavailable::Ledger))
            };
            let _ = answer.send(result);
        }
    }
}
