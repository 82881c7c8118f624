//! Time after time: the newest checkpoint to the authority, once one is due.

use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{Command, StampNews};
use curfew_entry::{LogTimestamped, Timestamp};
use curfew_gate::clock;
use curfew_gate::recorder::Durability;
use curfew_gate::registrar::Registrar;
use curfew_ledger::{FileError, KeyChain, Published, Stamped};
use curfew_timestamp::{Roots, Token, verify};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::Setup;
use super::ask::{AskError, Asker};

/// How long witnesses may take to cosign a checkpoint that is to be stamped. After that it is stamped
/// without them. A round with them takes a second or two.
const WITNESS_TIME: Duration = Duration::from_secs(10);

/// How long the last question of all may take: less than the gateway waits for its tasks to end.
const FINISH_TIME: Duration = Duration::from_millis(1_500);

/// How long an authority that failed is left alone: twice as long each time.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long nothing is done where nothing is due. The next checkpoint ends it.
const NEVER: Duration = Duration::from_secs(3_600);

/// Why a checkpoint is not stamped. For the operator.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The authority.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// No checkpoint covers what is to be stamped.
    #[error("no checkpoint covers the entries that are to be stamped")]
    NoCheckpoint,
    /// A token is there that nobody vouches for, and it is not overwritten.
    #[error("timestamps/{size}.tsr, which is there: {problem}")]
    There {
        /// Number of entries it is over.
        size: u64,
        /// Why it does not hold.
        problem: String,
    },
    /// It cannot be kept.
    #[error("the token cannot be kept: {0}")]
    Keep(String),
}

/// See the module text.
pub(super) struct Stamper {
    asker: Asker,
    roots: Arc<Roots>,
    keys: KeyChain,
    is_witnessed: bool,
    log: Published,
    registrar: Registrar,
    durability: Arc<Durability>,
    interval: Duration,
    alarm_after: Duration,
    /// Number of entries in the newest checkpoint with a token that holds.
    stamped: u64,
    /// When the next token is due.
    next: Instant,
    /// When the authority may be asked again.
    again: Instant,
    /// Since when a token has been wanted, where one is.
    wanted: Option<(Instant, Timestamp)>,
    /// How often in a row it has failed.
    failures: u32,
    /// What went wrong the last time.
    trouble: String,
    /// Whether it was noted, as far as is known, that no tokens come.
    stopped: bool,
    /// A token that is kept and not noted yet.
    untold: Option<LogTimestamped>,
}

impl Stamper {
    pub(super) fn new(setup: Setup, registrar: Registrar, durability: Arc<Durability>) -> Self {
        Self {
            asker: setup.asker,
            roots: Arc::new(setup.roots),
            keys: setup.keys,
            is_witnessed: setup.is_witnessed,
            log: setup.log,
            registrar,
            durability,
            interval: setup.config.interval.0,
            alarm_after: setup.config.alarm_after.0,
            stamped: 0,
            next: Instant::now(),
            again: Instant::now(),
            wanted: None,
            failures: 0,
            trouble: String::new(),
            stopped: false,
            untold: None,
        }
    }

    pub(super) async fn run(&mut self) {
        self.recall().await;
        let mut notes = self.durability.checkpoints();
        let mut demands = self.durability.demanded_stamps();
        loop {
            notes.borrow_and_update();
            demands.borrow_and_update();
            self.look().await;
            self.tell().await;
            tokio::select! {
                changed = notes.changed() => if changed.is_err() { return },
                changed = demands.changed() => if changed.is_err() { return },
                () = sleep_until(self.due()) => {}
            }
        }
    }

    /// Has the last checkpoint stamped, when the ledger is closed. It is noted after the next start.
    pub(super) async fn finish(&mut self) {
        let Some((size, note)) = self.durability.checkpoints().borrow().clone() else {
            return;
        };
        if size > self.stamped {
            let stamped = self.stamp(size, note.as_bytes().to_vec());
            let stamped = tokio::time::timeout(FINISH_TIME, stamped).await;
            if let Ok(Err(error)) = stamped {
                tracing::warn!(%error, "the last checkpoint has no timestamp");
            }
        }
    }

    /// Finds out where the last run has left off.
    async fn recall(&mut self) {
        let Ok(log) = self.registrar.log().await else {
            return;
        };
        let (told, now) = (log.stamped, log.now);
        self.stopped = log.stamping_stopped;
        let newest = self.off(|log| log.timestamps()).await;
        let Some(size) = newest.ok().and_then(|sizes| sizes.last().copied()) else {
            return;
        };
        // What does not hold, under a new authority's certificates perhaps, is as good as none.
        let Ok(Some(held)) = self.held(size).await else {
            return;
        };
        self.stamped = size;
        self.durability.reached_stamps(size);
        let told = told.filter(|(told, _)| *told >= size);
        let at = told.map_or(now, |(_, at)| at);
        if told.is_none() {
            self.untold = Some(held);
        }
        let passed = Duration::from_micros(now.as_micros().saturating_sub(at.as_micros()));
        self.next = Instant::now() + self.interval.saturating_sub(passed);
    }

    /// Has a checkpoint stamped if one is due.
    async fn look(&mut self) {
        let now = Instant::now();
        if now < self.again {
            return;
        }
        let Some(target) = self.target(now).await else {
            return;
        };
        let (since, _) = *self.wanted.get_or_insert((now, self.registrar.now()));
        let done = match self.checkpoint(target, since).await {
            Some((size, note)) => self.stamp(size, note).await,
            None if since.elapsed() < WITNESS_TIME => return,
            None => Err(Trouble::NoCheckpoint),
        };
        match done {
            Ok(told) => self.succeeded(told),
            Err(error) => self.failed(&error),
        }
    }

    /// How many entries are to be stamped: those that somebody waits for, at once; all that are more
    /// than notes of the log on itself, when their time has come. One question a second at most comes
    /// of it, as there is one checkpoint a second.
    async fn target(&self, now: Instant) -> Option<u64> {
        let demanded = *self.durability.demanded_stamps().borrow();
        if demanded > self.stamped {
            return Some(demanded);
        }
        if now < self.next {
            return None;
        }
        let log = self.registrar.log().await.ok();
        log.map(|log| log.substance)
            .filter(|target| *target > self.stamped)
    }

    /// The newest checkpoint that covers `target` entries: with the signatures of witnesses, unless
    /// they take too long. A token over it proves when they had cosigned, too.
    async fn checkpoint(&self, target: u64, since: Instant) -> Option<(u64, Vec<u8>)> {
        if self.is_witnessed {
            let note = match self.durability.witnessed() >= target {
                true => self.off(|log| log.witnessed()).await.ok().flatten(),
                false => None,
            };
            let size = |note: &[u8]| {
                let checkpoint = self.keys.verify(note);
                checkpoint.ok().map(|checkpoint| checkpoint.size)
            };
            let found = note.and_then(|note| size(&note).map(|size| (size, note)));
            let found = found.filter(|(size, _)| *size >= target);
            if found.is_some() || since.elapsed() < WITNESS_TIME {
                return found;
            }
        }
        let newest = self.durability.checkpoints().borrow().clone();
        let newest = newest.filter(|(size, _)| *size >= target);
        newest.map(|(size, note)| (size, note.as_bytes().to_vec()))
    }

    /// Asks, and keeps what is answered if it holds. What is there already is not asked for again.
    async fn stamp(&self, size: u64, checkpoint: Vec<u8>) -> Result<LogTimestamped, Trouble> {
        if let Some(held) = self.held(size).await? {
            return Ok(held);
        }
        let asked = self.registrar.now();
        let (token, response) = self.asker.ask(&checkpoint, &self.roots).await?;
        let answered = self.registrar.now();
        let mut told = told(size, token, &response);
        told.asked = Some(asked);
        told.wall = clock::wall();
        told.off_us = LogTimestamped::off(told.tsa_time, told.accuracy_us, asked, answered);
        let stamped = Stamped {
            checkpoint,
            response,
        };
        let kept = self
            .off(move |log| log.keep_timestamp(size, &stamped))
            .await;
        if kept.map_err(Trouble::Keep)? {
            return Ok(told);
        }
        // A command was quicker.
        let held = self.held(size).await?;
        held.ok_or_else(|| Trouble::Keep("it is there, and is not".to_owned()))
    }

    /// What the token over the checkpoint of `size` entries says that is there.
    async fn held(&self, size: u64) -> Result<Option<LogTimestamped>, Trouble> {
        let held = self.off(move |log| log.timestamp(size)).await;
        let Some(held) = held.map_err(Trouble::Keep)? else {
            return Ok(None);
        };
        let there = |problem: String| Trouble::There { size, problem };
        let checkpoint = self.keys.verify(&held.checkpoint);
        let checkpoint = checkpoint.map_err(|error| there(error.to_string()))?;
        if checkpoint.size != size {
            return Err(there(format!("it is over {} entries", checkpoint.size)));
        }
        let token = verify(&held.response, &held.checkpoint, None, &self.roots);
        let token = token.map_err(|error| there(error.to_string()))?;
        Ok(Some(told(size, token, &held.response)))
    }

    /// Does something with the log's files, off the threads of the runtime.
    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(Published) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, String> {
        let log = self.log.clone();
        let done = tokio::task::spawn_blocking(move || work(log)).await;
        let done = done.map_err(|error| error.to_string())?;
        done.map_err(|error| error.to_string())
    }

    fn succeeded(&mut self, told: LogTimestamped) {
        let (size, tsa) = (told.size, &told.tsa);
        if self.failures > 0 {
            tracing::warn!(size, tsa, "timestamps over the log come again");
        }
        if let Some(off_us) = told.off_us {
            tracing::error!(
                size,
                tsa,
                off_us,
                "the clock of the timestamping authority and that of the log CONTRADICT each other"
            );
        }
        self.stamped = size;
        self.durability.reached_stamps(size);
        self.next = Instant::now() + self.interval;
        self.wanted = None;
        self.failures = 0;
        self.untold = Some(told);
    }

    fn failed(&mut self, error: &Trouble) {
        // Said once: it is tried again for as long as it takes.
        if self.failures == 0 {
            tracing::error!(%error, "the log gets no timestamp");
        }
        self.trouble = error.to_string();
        let wait = BACKOFF.saturating_mul(1_u32 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.again = Instant::now() + wait.min(BACKOFF_MAX);
    }

    /// When something is to be done though no checkpoint comes.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let Some((since, _)) = self.wanted else {
            // Past it, only the next checkpoint brings something to be stamped.
            let is_ahead = self.next > now || self.untold.is_some();
            return if is_ahead {
                self.next.max(now + BACKOFF)
            } else {
                now + NEVER
            };
        };
        let alarm = Some(since + self.alarm_after).filter(|_| !self.stopped);
        let next = alarm.map_or(self.again, |alarm| alarm.min(self.again));
        next.max(now + BACKOFF)
    }

    /// Records what there is to say.
    async fn tell(&mut self) {
        if let Some(told) = self.untold.take() {
            let size = told.size;
            if !self.note(StampNews::Kept(told.clone())).await {
                self.untold = Some(told);
                return;
            }
            if self.stopped {
                self.stopped = !self.note(StampNews::Resumed { size }).await;
            }
            return;
        }
        // Nothing has gone wrong while a checkpoint is on its way.
        let due = self.wanted.filter(|_| !self.stopped && self.failures > 0);
        let due = due.filter(|(since, _)| since.elapsed() >= self.alarm_after);
        let Some((_, since)) = due else { return };
        let (size, cause) = (self.stamped, self.trouble.clone());
        tracing::error!(stamped = size, cause, "NO TIMESTAMPS over the log");
        let news = StampNews::Stopped { since, size, cause };
        self.stopped = self.note(news).await;
    }

    async fn note(&self, news: StampNews) -> bool {
        self.registrar.note(Command::Stamp(news)).await
    }
}

/// What is noted of a token.
fn told(size: u64, token: Token, response: &[u8]) -> LogTimestamped {
    let digest = Sha256::digest(response);
    LogTimestamped {
        size,
        tsa: token.tsa,
        tsa_time: Timestamp::from_micros(token.time_us),
        accuracy_us: token.accuracy_us,
        asked: None,
        off_us: None,
        wall: None,
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
