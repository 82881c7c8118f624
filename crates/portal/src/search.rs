//! Searching the ledger: the index that follows it, and how much searching goes on at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_entry::{SessionId, Timestamp};
use curfew_gate::conditions::{Conditions, Part};
use curfew_gate::recorder::Durability;
use curfew_search::{Answer, Asked, Bounds, Follower, Query, Searcher};
use tokio::sync::Semaphore;

/// Searches at once. Each may read the ledger for [`SEARCH_TIME`]; with two, one that does leaves
/// the other free.
const SEARCHES_MAX: usize = 2;

/// How long a search waits for its turn: two of the longest before it.
const TURN: Duration = Duration::from_secs(10);

/// How long a search may take. Through the index it is some milliseconds; without one this is
/// enough for a million entries, and the answer says where it stopped.
const SEARCH_TIME: Duration = Duration::from_secs(5);

/// Bytes of entries in one answer: 1,000 of the usual 400 bytes are 0.4 MB, but one may have 64 KiB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a search gave no answer. What went wrong is in Curfew's own diagnostics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unanswered {
    /// Too many are under way.
    Busy,
    /// The ledger could not be read.
    Failed,
}

/// Searches over the ledger.
#[derive(Debug)]
pub struct Search {
    searcher: Searcher,
    follower: Option<Follower>,
    durability: Arc<Durability>,
    turns: Semaphore,
}

impl Search {
    /// Starts to follow the ledger with an index, where one is configured.
    ///
    /// # Errors
    /// When the system gives no thread for the index.
    pub fn start(
        ledger: &Path,
        index: Option<PathBuf>,
        durability: &Arc<Durability>,
        conditions: &Arc<Conditions>,
    ) -> std::io::Result<Self> {
        let follower = if let Some(index) = index {
            let durable = Arc::clone(durability);
            let conditions = Arc::clone(conditions);
            let started = Follower::start(
                ledger.to_owned(),
                index,
                move || durable.size(),
                move |standing| conditions.look(Part::Search, &standing),
            );
            Some(started?)
        } else {
            None
        };
        let searcher = match &follower {
            Some(follower) => follower.searcher().clone(),
            None => Searcher::new(ledger),
        };
        Ok(Self {
            searcher,
            follower,
            durability: Arc::clone(durability),
            turns: Semaphore::new(SEARCHES_MAX),
        })
    }

    /// Tells the index to stop following. It does so on its own thread.
    pub fn stop(&self) {
        if let Some(follower) = &self.follower {
            follower.stop();
        }
    }

    /// The entries with which these sessions start, as far as the index has them; none without one.
    pub(crate) async fn starts_of(&self, sessions: Vec<SessionId>) -> Vec<Vec<u8>> {
        let asked = Asked {
            kind: "session.started".to_owned(),
            ..Asked::default()
        };
        let (true, Ok(mut query)) = (self.follower.is_some(), asked.check(Timestamp::default()))
        else {
            return Vec::new();
        };
        query.limit = sessions.len();
        query.sessions = sessions;
        match self.answer(query).await {
            Ok(answer) => answer.hits.into_iter().map(|hit| hit.bytes).collect(),
            Err(Unanswered::Busy | Unanswered::Failed) => Vec::new(),
        }
    }

    /// Answers a query out of what is durable.
    pub(crate) async fn answer(&self, query: Query) -> Result<Answer, Unanswered> {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Unanswered::Busy);
        };
        let searcher = self.searcher.clone();
        let bounds = Bounds {
            size: Some(self.durability.size()),
            time: SEARCH_TIME,
            bytes: ANSWER_BYTES_MAX,
        };
        let found = tokio::task::spawn_blocking(move || searcher.search(&query, &bounds)).await;
        match found {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger could not be searched");
                Err(Unanswered::Failed)
            }
            Err(error) => {
                tracing::error!(%error, "a search was cut short");
                Err(Unanswered::Failed)
            }
        }
    }
}
