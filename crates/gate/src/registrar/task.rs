//! The task that owns the authority's state and the ledger's writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::traffic::{Input, PermitId, Traffic};
use curfew_authority::{Authority, Command, Decision, Verdict};
use curfew_entry::{SessionId, Span, Timestamp};
use curfew_ledger::Writer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::conceal::Concealer;
use super::erase::{Approved, Erasing};
use super::strangers::Strangers;
use super::{Answer, Message, QUEUE_MAX, Refusal, Registrar, Unavailable};
use crate::clock::{self, Alarm, Clock};
use crate::conditions::Conditions;
use crate::permit::{CutSignal, Released, SharedActivity};
use crate::recorder::Durability;

/// How often clocks are compared, and how often a failed ledger is opened again.
const TICK: Duration = Duration::from_secs(1);

/// How long entries wait that the ledger's queue had no room for: in 5 ms a disk of 200 MB/s writes
/// a megabyte of that queue.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Messages that are taken in between two pieces of what is due: at about 10 µs each under 3 ms, so
/// that neither cuts nor questions wait for long.
const LET_IN_MAX: usize = 256;

/// A wall clock this far off its last known offset has been stepped: NTP slews at most 0.5 ms a
/// second, so this is twenty minutes of slewing within one tick.
const STEP_US: u64 = 600_000;

/// Opens the ledger again after a failure and gives its size. Blocking.
pub type Reopen = Arc<dyn Fn(Arc<Durability>) -> Result<(Writer, u64), String> + Send + Sync>;

/// The ledger, as the registrar takes it over.
pub struct Ledger {
    /// What appends.
    pub writer: Writer,
    /// What opens it again.
    pub reopen: Reopen,
    /// Where the writer tells what is durable.
    pub durability: Arc<Durability>,
    /// What takes values out of entries, where any are.
    pub concealer: Option<Concealer>,
    /// Why the ledger failed, each time it did.
    pub failures: mpsc::UnboundedReceiver<String>,
}

/// What the registrar starts from.
pub struct Start {
    /// The state that the entries lead to.
    pub authority: Authority,
    /// The ledger behind that state.
    pub ledger: Ledger,
    /// Ledger time.
    pub clock: Clock,
    /// How long what is open goes on while nothing can be recorded.
    pub outage_grace: Duration,
    /// How long whoever asks waits for its record.
    pub record_wait: Duration,
    /// What was approved and not done when the gateway last stopped.
    pub approved: Vec<Approved>,
    /// Where it is told what is out of order.
    pub conditions: Arc<Conditions>,
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
    /// The writer was given the entries below this index; the others follow once it has room.
    pub(super) handed: u64,
    /// None where nothing is concealed.
    pub(super) concealer: Option<Concealer>,
    pub(super) erasing: Erasing,
    pub(super) traffic: Traffic<SharedActivity>,
    /// How whoever holds a permit hears of its cut.
    pub(super) cuts: BTreeMap<PermitId, CutSignal>,
    pub(super) record_wait: Duration,
    pub(super) clock: Clock,
    pub(super) alarm: Alarm,
    pub(super) armed: Option<Timestamp>,
    wall_offset_us: i64,
    pub(super) strangers: Arc<Strangers>,
    pub(super) conditions: Arc<Conditions>,
    pub(super) released: mpsc::UnboundedSender<Released>,
}

/// Starts the task.
///
/// # Errors
/// When the kernel gives no timer.
pub fn start(start: Start) -> std::io::Result<Registrar> {
    let (messages, inbox) = mpsc::channel(QUEUE_MAX);
    // Bounded by the permits that are out: each is given back once.
    let (released, returns) = mpsc::unbounded_channel();
    let mut erasing = Erasing::default();
    for approved in start.approved {
        erasing.push(approved);
    }
    let strangers = Arc::<Strangers>::default();
    let grace = Span::from_duration(start.outage_grace);
    let traffic = Traffic::new(&start.authority, grace);
    let task = Task {
        erasing,
        alarm: Alarm::new(start.clock.clone())?,
        armed: None,
        wall_offset_us: start.clock.wall_offset_us(),
        clock: start.clock.clone(),
        handed: start.authority.entries(),
        authority: start.authority,
        writer: Some(start.ledger.writer),
        reopen: start.ledger.reopen,
        durability: start.ledger.durability,
        pending: VecDeque::new(),
        concealer: start.ledger.concealer,
        traffic,
        cuts: BTreeMap::new(),
        record_wait: start.record_wait,
        strangers: Arc::clone(&strangers),
        conditions: start.conditions,
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

/// Why a command that nobody waits for was not carried out.
#[derive(Debug)]
pub(super) enum NotDone {
    /// The ledger takes nothing now.
    Unavailable,
    /// It cannot be; nothing happened.
    Refused,
}

/// Whether a decision can be refused while as many entries wait for the disk as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Urgency {
    /// Somebody asked, and can ask again.
    CanWait,
    /// It is so, and must be said: there is one for each session and permit that is there.
    Due,
}

/// Somebody asked to stop, and waits for it; or nobody is left to ask anything.
pub(super) type Stop = Option<Answer<()>>;

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
                    self.ring();
                    // Where more is due than is done at once, the door is open in between.
                    if self.has_work() && let Some(stop) = self.let_in(&mut inbox) {
                        break stop;
                    }
                }
                Some(cause) = failures.recv() => self.fail(Unavailable::Ledger, cause),
                Some(released) = returns.recv() => self.release(released),
                result = reopened(&mut reopening) => {
                    reopening = None;
                    self.reopened(result);
                }
                result = self.erasing.wiped() => self.wiped(result),
                () = tokio::time::sleep(PAUSE), if self.is_behind() => self.catch_up(),
                message = inbox.recv() => if let Some(stop) = self.receive(message) {
                    break stop;
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

    /// Takes a message in, unless it is the last.
    fn receive(&mut self, message: Option<Message>) -> Option<Stop> {
        match message {
            Some(Message::Stop { answer }) => Some(Some(answer)),
            Some(message) => {
                self.take(message);
                None
            }
            None => Some(None),
        }
    }

    /// Takes in some of the messages that wait.
    fn let_in(&mut self, inbox: &mut mpsc::Receiver<Message>) -> Option<Stop> {
        for _ in 0..LET_IN_MAX {
            let message = inbox.try_recv().ok()?;
            if let Some(stop) = self.receive(Some(message)) {
                return Some(stop);
            }
        }
        None
    }

    /// Whether the writer has room for what waits, or may have soon.
    pub(super) fn is_behind(&self) -> bool {
        self.writer.is_some() && self.handed < self.authority.entries()
    }

    /// Ledger time, never before the newest entry.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().max(self.authority.time())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ask {
                asks,
                accounts,
                answer,
            } => {
                self.settle();
                self.answer_asks(asks, &accounts, answer);
            }
            Message::Command { command, answer } => {
                self.settle();
                self.answer_command(*command, answer);
            }
            Message::Lookup(lookup) => lookup.answer(&self.authority, self.now()),
            // The loop takes this one itself.
            Message::Stop { .. } => {}
        }
    }

    /// What the authority decides now, and when that is.
    pub(super) fn decide(&self, command: &Command) -> (Decision, Timestamp) {
        let now = self.now();
        (self.authority.decide(command, now), now)
    }

    fn answer_command(&mut self, command: Command, answer: Answer<Verdict>) {
        if let Err(refusal) = self.admitting() {
            if let Command::End { session, cause } = &command {
                self.tell(Input::End(session, cause));
            }
            let _ = answer.send(Err(refusal));
            return;
        }
        let (decision, now) = self.decide(&command);
        let verdict = decision.verdict.clone();
        match self.record(&command, decision, now, Urgency::CanWait) {
            Ok(entry) => self.answer_when_durable(entry, Ok(verdict), answer),
            Err(kind) => {
                let _ = answer.send(Err(Refusal::Unavailable(kind)));
            }
        }
    }

    /// Answers once the entry is durable: a refusal is recorded like everything else.
    pub(super) fn answer_when_durable<T: Send + 'static>(
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

    /// Notes activity that has no entry yet. True where there was some.
    pub(super) fn observe(&mut self, session: &SessionId) -> Result<bool, NotDone> {
        let now = self.now();
        let Some(observed) = self.traffic.unrecorded(session, &self.authority, now) else {
            return Ok(false);
        };
        self.carry_out(&observed)?;
        Ok(true)
    }

    /// Decides and records a command that nobody waits for.
    pub(super) fn carry_out(&mut self, command: &Command) -> Result<(), NotDone> {
        let (decision, now) = self.decide(command);
        if let Verdict::Refused(refusal) = &decision.verdict {
            tracing::error!(%refusal, ?command, "nothing of this is recorded: it cannot be so");
            return Err(NotDone::Refused);
        }
        let recorded = self.record(command, decision, now, Urgency::Due);
        recorded.map(drop).map_err(|_| NotDone::Unavailable)
    }

    /// Has the log say something that is said again, or is out of date, where it cannot be said now.
    pub(super) fn mention(&mut self, command: &Command) {
        if let Err(problem) = self.carry_out(command) {
            tracing::debug!(?problem, ?command, "not said");
        }
    }

    fn tick(&mut self) {
        let offset = self.clock.wall_offset_us();
        if self.traffic.outage().is_none() && offset.abs_diff(self.wall_offset_us) > STEP_US {
            tracing::warn!(wall_offset_us = offset, "the wall clock was stepped");
            let command = Command::StepClock {
                wall_offset_us: offset,
            };
            self.mention(&command);
        }
        self.wall_offset_us = offset;
        self.watch_clock();
        self.look_for_space();
        self.summarize(false);
        self.erase_next();
    }

    /// Records how many attempts without a live session have no entries of their own.
    pub(super) fn summarize(&mut self, at_end: bool) {
        let now = self.now();
        let authority = &self.authority;
        self.strangers
            .forget(now, |session| authority.ended(session).is_some());
        if self.traffic.outage().is_some() {
            return;
        }
        let Some(counted) = self.strangers.take(now, at_end) else {
            return;
        };
        let summary = Command::SummarizeAttempts(counted.told());
        if self.carry_out(&summary).is_err() {
            self.strangers.put_back(counted);
        }
    }

    /// Says it where the wall clock is not kept in step any more, or is again.
    fn watch_clock(&mut self) {
        if self.traffic.outage().is_some() {
            return;
        }
        if let Some(wall) = clock::wall() {
            self.mention(&Command::WatchClock(wall));
        }
    }
}
