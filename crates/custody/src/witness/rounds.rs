//! Round after round: the newest checkpoint to all witnesses, until a quorum has cosigned it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{CHECKPOINT_BYTES_MAX, Command, WitnessNews, Witnessed};
use curfew_entry::Timestamp;
use curfew_gate::clock;
use curfew_gate::recorder::Durability;
use curfew_gate::registrar::Registrar;
use curfew_ledger::trust::TrustPolicy;
use curfew_ledger::{Published, VerifierKey};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Setup;
use super::ask::{AskError, Asked, Asker, Question};
use crate::progress::Progress;

/// How long a round may take. A witness far away needs under a second.
const ROUND_TIME: Duration = Duration::from_secs(5);

/// How long the others may take once a quorum has cosigned: those who are a little slower are heard
/// all the same, and those who are silent do not hold up the next checkpoint.
const LINGER: Duration = Duration::from_secs(2);

/// How long the last round of all may take: less than the gateway waits for its tasks to end.
const FINISH_TIME: Duration = Duration::from_millis(1_500);

/// How long a witness that failed is left alone: twice as long each time.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long nothing is done where nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);

/// One witness.
#[derive(Debug)]
struct Peer {
    url: Uri,
    /// The last size it has cosigned, as far as is known.
    size: u64,
    /// How often in a row it has failed.
    failures: u32,
    /// When it may be asked again.
    again: Instant,
    /// What went wrong the last time; none where it cosigned.
    trouble: Option<(Discriminant<AskError>, String)>,
}

impl Peer {
    /// Gives whether this kind of failure is new.
    fn failed(&mut self, now: Instant, error: &AskError) -> bool {
        let kind = discriminant(error);
        let before = self.trouble.replace((kind, error.to_string()));
        let wait = BACKOFF.saturating_mul(1_u32 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.again = now + wait.min(BACKOFF_MAX);
        before.is_none_or(|(before, _)| before != kind)
    }
}

/// The checkpoint that is being cosigned.
#[derive(Debug)]
struct Current {
    note: Arc<str>,
    size: u64,
    /// Signature lines by witness.
    lines: BTreeMap<usize, String>,
}

impl Current {
    fn cosigned(&self) -> BTreeSet<usize> {
        self.lines.keys().copied().collect()
    }

    /// The checkpoint with the signatures that are there.
    fn whole(&self) -> String {
        let lines: String = self.lines.values().map(String::as_str).collect();
        format!("{}{lines}", self.note)
    }

    /// The same, shortest signatures first, as far as an entry holds them. Gives who they are of.
    fn bounded(&self) -> (String, Vec<usize>) {
        let mut lines: Vec<(&usize, &String)> = self.lines.iter().collect();
        lines.sort_by_key(|(at, line)| (line.len(), **at));
        let (mut note, mut signers) = (self.note.to_string(), Vec::new());
        for (at, line) in lines {
            if note.len() + line.len() <= CHECKPOINT_BYTES_MAX {
                note.push_str(line);
                signers.push(*at);
            }
        }
        (note, signers)
    }
}

/// See the module text.
pub(super) struct Rounds {
    policy: Arc<TrustPolicy>,
    asker: Arc<Asker>,
    key: Arc<VerifierKey>,
    log: Published,
    progress: Arc<Progress>,
    registrar: Registrar,
    durability: Arc<Durability>,
    alarm_after: Duration,
    record_every: Duration,
    peers: Vec<Peer>,
    current: Option<Current>,
    /// Number of entries in the newest checkpoint that a quorum has cosigned.
    witnessed: u64,
    /// When the first checkpoint came that no quorum has cosigned.
    unmet: Option<(Instant, Timestamp)>,
    /// Whether it was noted, as far as is known, that no quorum cosigns.
    lost: bool,
    /// When a cosigned checkpoint was noted last, and of which size.
    noted: Option<(Instant, u64)>,
}

impl Rounds {
    pub(super) fn new(setup: Setup, registrar: Registrar, durability: Arc<Durability>) -> Self {
        let now = Instant::now();
        let peer = |url| Peer {
            url,
            size: 0,
            failures: 0,
            again: now,
            trouble: None,
        };
        let witnessed = setup.kept();
        Self {
            policy: Arc::new(setup.policy),
            asker: Arc::new(setup.asker),
            key: Arc::new(setup.key),
            log: setup.log,
            progress: setup.progress,
            registrar,
            durability,
            alarm_after: setup.config.alarm_after.0,
            record_every: setup.config.record_every.0,
            peers: setup.urls.into_iter().map(peer).collect(),
            current: None,
            witnessed,
            unmet: None,
            lost: false,
            noted: None,
        }
    }

    pub(super) async fn run(&mut self) {
        self.reached();
        let lost = self.registrar.log().await.map(|log| log.quorum_lost);
        self.lost = lost.unwrap_or(false);
        let mut notes = self.durability.checkpoints();
        loop {
            let note = notes.borrow_and_update().clone();
            self.take(note);
            self.round().await;
            self.tell().await;
            tokio::select! {
                changed = notes.changed() => if changed.is_err() { return },
                () = sleep_until(self.due()) => {}
            }
        }
    }

    /// Has the checkpoint of the end of work cosigned, when the ledger is closed. Whoever does not
    /// do so at once does after the next start.
    pub(super) async fn finish(&mut self) {
        let note = self.durability.checkpoints().borrow().clone();
        self.take(note);
        let _ = tokio::time::timeout(FINISH_TIME, self.round()).await;
    }

    /// Takes up the newest checkpoint.
    fn take(&mut self, note: Option<(u64, Arc<str>)>) {
        let Some((size, note)) = note else { return };
        if self.current.as_ref().is_some_and(|held| held.size == size) {
            return;
        }
        if size > self.witnessed && self.unmet.is_none() {
            self.unmet = Some((Instant::now(), self.registrar.now()));
        }
        self.current = Some(Current {
            note,
            size,
            lines: BTreeMap::new(),
        });
    }

    /// When something is to be done though no checkpoint comes.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let cosigned = self.current.as_ref().map(Current::cosigned);
        let peers = self.peers.iter().enumerate();
        let missing = peers.filter(|(at, _)| cosigned.as_ref().is_some_and(|c| !c.contains(at)));
        let again = missing.map(|(_, peer)| peer.again).min();
        // Said already, it is not said again.
        let alarm = self.unmet.filter(|_| !self.lost);
        let alarm = alarm.map(|(since, _)| since + self.alarm_after);
        // What could not be recorded just now can be in a second.
        let floor = now + BACKOFF;
        let next = [again, alarm].into_iter().flatten().min();
        next.map_or(now + NEVER, |next| next.max(floor))
    }

    /// Asks every witness that is due, all at once.
    async fn round(&mut self) {
        let Some(current) = &self.current else { return };
        let started = Instant::now();
        let (note, size) = (Arc::clone(&current.note), current.size);
        let mut silent = BTreeSet::new();
        let mut asks = FuturesUnordered::new();
        for (at, peer) in self.peers.iter().enumerate() {
            if peer.again > started || current.lines.contains_key(&at) {
                continue;
            }
            silent.insert(at);
            let (asker, policy) = (Arc::clone(&self.asker), Arc::clone(&self.policy));
            let (note, log) = (Arc::clone(&note), Arc::clone(&self.key));
            let (url, known) = (peer.url.clone(), peer.size);
            asks.push(async move {
                let question = Question {
                    url: &url,
                    key: &policy.witnesses()[at].key,
                    known,
                    log: &log,
                    note: &note,
                    size,
                };
                (at, asker.ask(&question).await)
            });
        }
        let mut end = started + ROUND_TIME;
        let mut kept = 0;
        while let Ok(Some((at, asked))) = timeout_at(end, asks.next()).await {
            silent.remove(&at);
            self.heard(at, asked);
            if kept == 0 && self.is_met() {
                kept = self.keep().await;
                end = end.min(Instant::now() + LINGER);
            }
        }
        drop(asks);
        for at in silent {
            let error = AskError::Unreachable(format!("nothing for {:?}", started.elapsed()));
            self.failed(at, &error);
        }
        // Whoever came after the quorum is kept as well.
        let there = self.current.as_ref().map_or(0, |held| held.lines.len());
        if self.is_met() && there > kept {
            self.keep().await;
        }
    }

    fn heard(&mut self, at: usize, asked: Asked) {
        let Some(peer) = self.peers.get_mut(at) else {
            return;
        };
        let witness = &self.policy.witnesses()[at].name;
        if let Some(told) = asked.set_back {
            tracing::error!(
                %witness,
                cosigned = peer.size,
                told,
                "this witness has forgotten what it cosigned: it runs from an old copy, and would \
                 have cosigned another history from there"
            );
        }
        peer.size = asked.size;
        match asked.outcome {
            Ok(lines) => {
                if peer.failures > 0 {
                    tracing::warn!(%witness, "this witness cosigns again");
                }
                peer.failures = 0;
                peer.trouble = None;
                if let Some(current) = &mut self.current {
                    current.lines.insert(at, lines);
                }
            }
            Err(error) => self.failed(at, &error),
        }
    }

    fn failed(&mut self, at: usize, error: &AskError) {
        let Some(peer) = self.peers.get_mut(at) else {
            return;
        };
        // Said once: it is tried again for as long as it takes.
        if peer.failed(Instant::now(), error) {
            let witness = &self.policy.witnesses()[at].name;
            tracing::error!(%witness, %error, "this witness does not cosign");
        }
    }

    /// Tells how many entries a quorum has cosigned.
    fn reached(&self) {
        self.durability.reached_witnesses(self.witnessed);
        self.progress.reached(self.witnessed);
    }

    /// What stands in the way, by witness.
    fn troubles(&self) -> String {
        let peers = self.peers.iter().zip(self.policy.witnesses());
        let told = peers.filter_map(|(peer, witness)| {
            let (_, trouble) = peer.trouble.as_ref()?;
            Some(format!("{}: {trouble}", witness.name))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn is_met(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| self.policy.is_met(&current.cosigned()))
    }

    /// Keeps the cosigned checkpoint, durably, before anything rests on it. Gives how many
    /// signatures are kept.
    async fn keep(&mut self) -> usize {
        let Some(current) = &self.current else {
            return 0;
        };
        let (size, count) = (current.size, current.lines.len());
        let (log, note) = (self.log.clone(), current.whole());
        let kept = tokio::task::spawn_blocking(move || log.keep_witnessed(&note)).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "a cosigned checkpoint could not be kept");
                return 0;
            }
            Err(error) => {
                tracing::error!(%error, "a cosigned checkpoint could not be kept");
                return 0;
            }
        }
        self.witnessed = self.witnessed.max(size);
        self.unmet = None;
        self.reached();
        count
    }

    /// Records what there is to say of the witnesses.
    async fn tell(&mut self) {
        let Some(current) = &self.current else { return };
        if self.witnessed < current.size {
            self.progress
                .failed("no quorum of witnesses cosigns", self.troubles());
            self.tell_lost().await;
            return;
        }
        if self.lost {
            let news = WitnessNews::QuorumMet {
                size: self.witnessed,
            };
            tracing::warn!(size = self.witnessed, "a quorum of witnesses cosigns again");
            self.lost = !self.note(news).await;
        }
        self.tell_witnessed().await;
    }

    async fn tell_lost(&mut self) {
        let due = self.unmet.filter(|_| !self.lost);
        let due = due.filter(|(since, _)| since.elapsed() >= self.alarm_after);
        let (Some((_, since)), Some(current)) = (due, &self.current) else {
            return;
        };
        let witnesses = self.policy.witnesses().iter().enumerate();
        let missing = witnesses.filter(|(at, _)| !current.lines.contains_key(at));
        let missing: Vec<String> = missing.map(|(_, witness)| witness.name.clone()).collect();
        tracing::error!(
            missing = missing.join(", "),
            witnessed = self.witnessed,
            "NO QUORUM of witnesses cosigns the log"
        );
        let news = WitnessNews::QuorumLost {
            since,
            size: self.witnessed,
            missing,
        };
        self.lost = self.note(news).await;
    }

    async fn note(&self, news: WitnessNews) -> bool {
        self.registrar.note(Command::Witness(news)).await
    }

    /// Notes a cosigned checkpoint now and then, and only where something else than notes of the log
    /// on itself has come since the last one: otherwise each would call for the next.
    async fn tell_witnessed(&mut self) {
        let Some(current) = &self.current else { return };
        if let Some((at, size)) = self.noted {
            if at.elapsed() < self.record_every || current.size <= size {
                return;
            }
            let log = self.registrar.log().await;
            if log.is_ok_and(|log| log.substance <= size) {
                return;
            }
        }
        let (checkpoint, signers) = current.bounded();
        let name = |at: usize| self.policy.witnesses()[at].name.clone();
        let size = current.size;
        let news = WitnessNews::Cosigned(Witnessed {
            size,
            witnesses: signers.into_iter().map(name).collect(),
            checkpoint,
            wall: clock::wall(),
        });
        if self.note(news).await {
            self.noted = Some((Instant::now(), size));
        }
    }
}
