//! The log over HTTP in C2SP tlog-tiles form, for any client of transparency logs.
//!
//! Every request is judged as `log.read`. Were each recorded, the reading of a log would make it
//! grow for ever; so a session's reading is one entry a stretch, which is no longer than it takes
//! until the session would end for want of activity.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use curfew_entry::{ResourceName, SessionId, Span, Timestamp, Verb};
use curfew_gate::Refusal;
use curfew_ledger::Published;
use curfew_ledger::tile::{Tile, TileKind};
use tokio::sync::Semaphore;

use super::Portal;
use super::viewer::{Access, Caller, Viewer, Visit};
use crate::oauth::Problem;

/// How long one entry stands for a session's reading, at most. A session that may be idle for less
/// than twice as long has half of that, so that its reading counts as activity in time.
const STRETCH_MAX: Span = Span::from_secs(300);

/// Files read at once. A bundle of the longest entries has 16 MiB, a usual one 0.1 MiB: 8 are at
/// most 128 MiB and usually 1.
const READS_MAX: usize = 8;

/// How long a request waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// How soon it is worth asking again, in seconds.
const RETRY_SECS: u64 = 5;

/// Sessions whose reading is remembered, some 100 bytes each. Were there more, the next request of
/// each would be an entry again.
const READERS_MAX: usize = 1_024;

/// A full tile of hashes is the same for ever and tells of nobody.
const FOREVER: &str = "private, max-age=31536000, immutable";

/// The next checkpoint comes within a second, a partial tile gives way to the full one, and what
/// entries tell does not stay behind in a browser.
const NEVER: &str = "no-store";

/// What a signed note is served as (C2SP tlog-tiles).
const NOTE: &str = "text/plain; charset=utf-8";

/// The log as it is read, by whom, and how many at once.
#[derive(Debug)]
pub(super) struct Reading {
    log: Published,
    turns: Semaphore,
    /// Until when each session's reading stands recorded.
    recorded: Mutex<BTreeMap<SessionId, Timestamp>>,
}

impl Reading {
    /// Of the log in this folder.
    pub(super) fn new(dir: &FilePath) -> Self {
        Self {
            log: Published::new(dir),
            turns: Semaphore::new(READS_MAX),
            recorded: Mutex::default(),
        }
    }

    fn is_recorded(&self, session: &SessionId, now: Timestamp) -> bool {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.get(session).is_some_and(|until| now < *until)
    }

    fn note(&self, session: SessionId, now: Timestamp, idle: Span) {
        let half = Span::from_micros(idle.as_micros() / 2);
        let until = now.saturating_add(half.min(STRETCH_MAX));
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.retain(|_, until| now < *until);
        if recorded.len() >= READERS_MAX {
            recorded.clear();
        }
        recorded.insert(session, until);
    }
}

/// A session that may read the log, with its reading on record.
#[derive(Debug)]
pub(super) struct Reader;

impl FromRequestParts<Arc<Portal>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        portal: &Arc<Portal>,
    ) -> Result<Self, Self::Rejection> {
        let refused = |refusal| Problem::refused(&refusal, &portal.setup.site.portal_url());
        let Ok(visit) = Visit::from_request_parts(parts, portal).await else {
            return Err(Problem::unavailable("Curfew could not finish this"));
        };
        let viewer = if visit.bearer().is_some() {
            Caller::from_request_parts(parts, portal).await?.0
        } else {
            let signed_in = visit.signed_in(portal).await.map_err(refused)?;
            signed_in.ok_or_else(Problem::no_token)?
        };
        permitted(portal, viewer).await.map_err(refused)?;
        Ok(Self)
    }
}

/// Makes sure that this session may read the log now, and that its reading is on record.
async fn permitted(portal: &Arc<Portal>, mut viewer: Viewer) -> Result<(), Refusal> {
    // Whoever reads is active, whatever the address says.
    viewer.passive = false;
    if portal.reading.is_recorded(&viewer.session.id, viewer.now) {
        let gateway = ResourceName::gateway();
        let access = viewer.access(portal, Verb::LogRead, &gateway).await?;
        if access == Access::Open {
            return Ok(());
        }
    }
    let permit = viewer.ask(portal, Verb::LogRead, None).await?;
    viewer.settle(portal, permit).await?;
    let session = &viewer.session;
    portal
        .reading
        .note(session.id.clone(), viewer.now, session.limits.idle);
    Ok(())
}

/// `GET /log/checkpoint`: the newest signed checkpoint.
pub(super) async fn checkpoint(_: Reader, State(portal): State<Arc<Portal>>) -> Response {
    answer(&portal, NOTE, NEVER, Published::checkpoint).await
}

/// `GET /log/witnessed`: the newest checkpoint that a quorum of witnesses has cosigned, with their
/// signatures. There is none where there are no witnesses.
pub(super) async fn witnessed(_: Reader, State(portal): State<Arc<Portal>>) -> Response {
    answer(&portal, NOTE, NEVER, Published::witnessed).await
}

/// `GET /log/horizon`: what stands for entries that were pruned.
pub(super) async fn horizon(_: Reader, State(portal): State<Arc<Portal>>) -> Response {
    let read = |log: &Published| log.prune_point();
    answer(&portal, "text/plain; charset=utf-8", NEVER, read).await
}

/// `GET /log/tile/…`: hashes, and bundles of entries.
pub(super) async fn tile(
    _: Reader,
    State(portal): State<Arc<Portal>>,
    Path(path): Path<String>,
) -> Response {
    let Some(tile) = Tile::parse(&format!("tile/{path}")) else {
        return nothing().into_response();
    };
    let lasts = tile == tile.full() && tile.kind != TileKind::Entries;
    let kept = if lasts { FOREVER } else { NEVER };
    let read = move |log: &Published| log.tile(tile);
    answer(&portal, "application/octet-stream", kept, read).await
}

fn nothing() -> Problem {
    Problem::not_found("The log has no such file")
}

async fn answer(
    portal: &Portal,
    kind: &'static str,
    kept: &'static str,
    read: impl FnOnce(&Published) -> Result<Option<Vec<u8>>, curfew_ledger::FileError> + Send + 'static,
) -> Response {
    let turn = tokio::time::timeout(TURN_WAIT, portal.reading.turns.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        let text = "Too many read the log at once; try again soon";
        return Problem::too_many(text, RETRY_SECS).into_response();
    };
    let log = portal.reading.log.clone();
    let error = match tokio::task::spawn_blocking(move || read(&log)).await {
        Ok(Ok(Some(bytes))) => {
            return ([(CONTENT_TYPE, kind), (CACHE_CONTROL, kept)], bytes).into_response();
        }
        Ok(Ok(None)) => return nothing().into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(%error, "a file of the ledger could not be read for a client");
    Problem::unavailable("The log cannot be read at the moment").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading::new(FilePath::new("/nowhere"))
    }

    #[test]
    fn one_entry_stands_for_five_minutes_or_half_the_time_a_session_may_be_idle() {
        let now = Timestamp::from_micros(1_764_000_000_000_000);
        for (idle, seconds) in [(900, 300), (600, 300), (60, 30)] {
            let reading = reading();
            let session = SessionId::from_random([1; 12]);
            assert!(!reading.is_recorded(&session, now));
            reading.note(session.clone(), now, Span::from_secs(idle));
            let end = now.saturating_add(Span::from_secs(seconds));
            let last = Timestamp::from_micros(end.as_micros() - 1);
            assert!(reading.is_recorded(&session, last));
            assert!(!reading.is_recorded(&session, end));
            assert!(!reading.is_recorded(&SessionId::from_random([2; 12]), now));
        }
    }

    #[test]
    fn those_remembered_are_bounded() {
        let reading = reading();
        for at in 0..=READERS_MAX as u64 {
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&at.to_be_bytes());
            let session = SessionId::from_random(bytes);
            reading.note(session, Timestamp::from_micros(1), Span::from_secs(900));
        }
        assert_eq!(reading.recorded.lock().unwrap().len(), 1);
    }
}
