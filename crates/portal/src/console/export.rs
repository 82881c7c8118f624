//! The log in the format of another system, streamed to a session for as long as its permit holds.
//!
//! ```text
//! task: Chunks, a piece at a time ─▶ channel of one ─▶ Flow (the answer's body) ─▶ client
//!   └── the permit; sees the cut even where nobody reads any more
//! ```
//!
//! An answer that is whole ends as HTTP says; one that was cut or failed breaks off, so that nobody
//! takes it for whole. Its `action.closed` entry says how it ended and how many bytes left.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use curfew_entry::{ClosedBy, Verb};
use curfew_export::range::{self, Place};
use curfew_export::{Chunks, Format, LogReader, Opener, Packing, Source};
use curfew_gate::permit::{Cut, CutSignal};
use curfew_gate::{Closing, Permit, Refusal, Registrar};
use curfew_values::{Held, Shown, Store};
use futures_util::Stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::Portal;
use super::viewer::{Caller, Viewer};
use crate::oauth::Problem;

/// Exports at once. Each holds what it knows of sessions, 13 MB of ended ones at most, and a piece:
/// 0.1 MB, or a Parquet row group of up to 24 MB.
const EXPORTS_MAX: usize = 4;

/// How soon it is worth asking again where too many are under way, in seconds.
const RETRY_SECS: u64 = 30;

/// How long a client may take to make room for a piece.
const STALL: Duration = Duration::from_secs(60);

/// The first index that is in the answer.
const FROM: HeaderName = HeaderName::from_static("curfew-from");

/// The first index after it that is not.
const TO: HeaderName = HeaderName::from_static("curfew-to");

/// How many exports may be under way.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(EXPORTS_MAX)))
    }
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    format: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    reveal: bool,
}

/// The same, checked.
#[derive(Debug)]
struct Asked {
    format: Format,
    packing: Packing,
    from: Option<Place>,
    to: Option<Place>,
    reveal: bool,
}

impl Asked {
    fn of(sent: Result<Query<Sent>, QueryRejection>, headers: &HeaderMap) -> Result<Self, Problem> {
        let Query(sent) = sent.map_err(|rejection| {
            let text = rejection.body_text();
            let problem = text.rsplit_once("string: ").map(|(_, problem)| problem);
            Problem::bad_request(problem.unwrap_or(&text))
                .with_hint("there are `format`, `from`, `to`, and `reveal=true`")
        })?;
        let place = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|problem| Problem::bad_request(format!("{name}: {problem}"))),
        };
        let format: Format = sent
            .format
            .parse()
            .map_err(|problem| Problem::bad_request(format!("format: {problem}")))?;
        let packing = if format.is_worth_packing() && takes_gzip(headers) {
            Packing::Gzip
        } else {
            Packing::Plain
        };
        Ok(Self {
            format,
            packing,
            from: place("from", &sent.from)?,
            to: place("to", &sent.to)?,
            reveal: sent.reveal,
        })
    }

    /// As the log keeps it.
    fn recorded(&self) -> String {
        let mut text = format!("export={}", self.format.as_str());
        for (name, place) in [("from", self.from), ("to", self.to)] {
            if let Some(place) = place {
                text.push_str(&format!(" {name}={place}"));
            }
        }
        if self.reveal {
            text.push_str(" reveal=true");
        }
        text
    }
}

/// Whether the client takes gzip (RFC 9110 section 12.5.3). One that says nothing gets it plain.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings = codings
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().unwrap_or_default();
        let refused = parts
            .filter_map(|part| part.strip_prefix("q="))
            .any(|weight| weight.trim_end_matches(['0', '.']).is_empty());
        (named.eq_ignore_ascii_case("gzip") || named == "x-gzip") && !refused
    })
}

/// `GET /api/v1/log/export`.
pub(super) async fn api(
    State(portal): State<Arc<Portal>>,
    Caller(viewer): Caller,
    sent: Result<Query<Sent>, QueryRejection>,
) -> Result<Response, Problem> {
    let asked = Asked::of(sent, &viewer.visit.headers)?;
    let permits = permitted(&portal, &viewer, &asked)
        .await
        .map_err(|refusal| Problem::refused(&refusal, &portal.setup.site.portal_url()))?;
    let turn = Arc::clone(&portal.exports.0).try_acquire_owned();
    let turn = turn.map_err(|_| {
        let text = "Too many exports are under way; try again later";
        Problem::too_many(text, RETRY_SECS)
    })?;
    let (format, packing) = (asked.format, asked.packing);
    let begun = begin(&portal, asked).await.ok_or_else(|| {
        // Why is in Curfew's own diagnostics.
        Problem::unavailable("The log cannot be read at the moment")
    })?;
    let (chunks, range) = begun;
    let body = Run::start(&portal, permits, turn, chunks);
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static(format.media_type());
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if packing == Packing::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(FROM, range.start.into());
    headers.insert(TO, range.end.into());
    Ok(response)
}

/// What an export rests on.
struct Permits {
    read: Permit,
    /// To see what the log only commits to.
    reveal: Option<Permit>,
}

impl Permits {
    /// The signals that take them back.
    fn cuts(&self) -> Cuts {
        let reveal = self.reveal.as_ref().unwrap_or(&self.read);
        Cuts([self.read.cut().clone(), reveal.cut().clone()])
    }

    fn close(self, closing: Closing) {
        if let Some(reveal) = self.reveal {
            reveal.close(closing);
        }
        self.read.close(closing);
    }
}

/// Either of them ends the export.
#[derive(Clone, Debug, Default)]
struct Cuts([CutSignal; 2]);

impl Cuts {
    async fn fired(&self) -> Cut {
        let [read, reveal] = &self.0;
        tokio::select! {
            cut = read.fired() => cut,
            cut = reveal.fired() => cut,
        }
    }

    fn have_fired(&self) -> bool {
        self.0.iter().any(|cut| cut.now().is_some())
    }
}

/// Asks for the permits, and waits until they are recorded.
async fn permitted(portal: &Portal, viewer: &Viewer, asked: &Asked) -> Result<Permits, Refusal> {
    let ask = |verb| viewer.ask_to_search(portal, verb, asked.recorded());
    // The rarer right first: who lacks it has not read anything.
    let reveal = if asked.reveal {
        Some(ask(Verb::LogReveal).await?)
    } else {
        None
    };
    let read = ask(Verb::LogRead).await?;
    read.recorded().await?;
    if let Some(reveal) = &reveal {
        reveal.recorded().await?;
    }
    Ok(Permits { read, reveal })
}

/// Shows concealed values as the store has them at that moment.
fn opener(store: Option<Arc<Store>>) -> Box<Opener> {
    let mut held = Held::default();
    Box::new(move |index, concealed| {
        let fields = match &store {
            Some(store) => store
                .read_on(&mut held, index, concealed)
                .map_err(|error| error.to_string())?,
            None => {
                let missing = concealed.keys().map(|field| (*field, Shown::Missing));
                missing.collect()
            }
        };
        Ok(curfew_values::told(fields, concealed))
    })
}

/// Finds the range, of signed entries alone: what leaves cannot be taken back.
async fn begin(portal: &Portal, asked: Asked) -> Option<(Box<Chunks>, Range<u64>)> {
    let (dir, origin) = (portal.setup.ledger.clone(), portal.setup.origin.clone());
    let values = portal.setup.values.clone();
    let found = tokio::task::spawn_blocking(move || {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let reader = LogReader::open(&dir).map_err(|error| failed(&error))?;
        let signed = range::checkpoint(&dir).map_or(0, |checkpoint| checkpoint.size);
        let size = signed.min(reader.size());
        let range = range::between(&reader, asked.from, asked.to, size);
        let range = range.map_err(|error| failed(&error))?;
        let source = Source::of(&origin);
        let chunks = Chunks::new(
            &reader,
            range.clone(),
            asked.format,
            asked.packing,
            source,
            curfew_gate::replay::sessions_kept,
        );
        let mut chunks = chunks.map_err(|error| failed(&error))?;
        if asked.reveal {
            chunks = chunks.revealing(opener(values));
        }
        Ok::<_, String>((Box::new(chunks), range))
    });
    let error = match found.await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) => error,
        Err(error) => error.to_string(),
    };
    tracing::error!(%error, "an export of the log could not begin");
    None
}

/// What goes through the channel.
enum Piece {
    Bytes(Bytes),
    /// It is whole.
    End,
}

/// What both sides see.
#[derive(Debug, Default)]
struct Seen {
    bytes_out: AtomicU64,
    /// The client was given the end.
    whole: AtomicBool,
}

/// An export under way.
struct Run {
    chunks: Box<Chunks>,
    permits: Permits,
    pieces: mpsc::Sender<Piece>,
    seen: Arc<Seen>,
    registrar: Registrar,
    _turn: OwnedSemaphorePermit,
}

impl Run {
    fn start(
        portal: &Portal,
        permits: Permits,
        turn: OwnedSemaphorePermit,
        chunks: Box<Chunks>,
    ) -> Body {
        let (pieces, coming) = mpsc::channel(1);
        let seen = Arc::new(Seen::default());
        let flow = Flow {
            coming,
            cut: permits.cuts(),
            seen: Arc::clone(&seen),
        };
        let run = Self {
            chunks,
            permits,
            pieces,
            seen,
            registrar: portal.setup.registrar.clone(),
            _turn: turn,
        };
        tokio::spawn(run.go());
        Body::from_stream(flow)
    }

    /// Makes pieces until the end, the cut, or until nobody takes them. What is not whole ends
    /// without its end, which breaks the answer off.
    async fn go(self) {
        let Self {
            chunks,
            permits,
            pieces,
            seen,
            registrar,
            _turn,
        } = self;
        let cut = permits.cuts();
        let by = {
            // A person started it, and it runs: as with a statement, that is activity.
            let _busy = permits.read.activity().busy();
            tokio::select! {
                biased;
                cut = cut.fired() => cut.cause.closed_by(),
                by = feed(chunks, pieces, &seen) => by,
            }
        };
        permits.close(Closing {
            by,
            closed: registrar.now(),
            bytes_in: 0,
            bytes_out: seen.bytes_out.load(Ordering::Relaxed),
        });
    }
}

/// Gives the client piece after piece. Says who ended it.
async fn feed(mut chunks: Box<Chunks>, pieces: mpsc::Sender<Piece>, seen: &Seen) -> ClosedBy {
    loop {
        let made = tokio::task::spawn_blocking(move || {
            let piece = chunks.piece();
            (chunks, piece)
        });
        let error = match made.await {
            Ok((_, Ok(None))) => break,
            Ok((kept, Ok(Some(bytes)))) => {
                chunks = kept;
                let taken = if bytes.is_empty() {
                    !pieces.is_closed()
                } else {
                    let sent = pieces.send(Piece::Bytes(bytes.into()));
                    matches!(timeout(STALL, sent).await, Ok(Ok(())))
                };
                if taken {
                    continue;
                }
                return ClosedBy::Client;
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(%error, "an export of the log broke off");
        return ClosedBy::Upstream;
    }
    let told = async {
        // Once the body is gone, nothing more of it can flow.
        let _ = pieces.send(Piece::End).await;
        pieces.closed().await;
    };
    let in_time = timeout(STALL, told).await.is_ok();
    if in_time && seen.whole.load(Ordering::Acquire) {
        ClosedBy::Upstream
    } else {
        ClosedBy::Client
    }
}

/// The answer broke off.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokenOff;

/// The body of the answer.
struct Flow {
    coming: mpsc::Receiver<Piece>,
    cut: Cuts,
    seen: Arc<Seen>,
}

impl Stream for Flow {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.seen.whole.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        // A cut drops the sender, which wakes whoever waits here.
        let piece = ready!(self.coming.poll_recv(cx));
        if self.cut.have_fired() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        Poll::Ready(match piece {
            Some(Piece::Bytes(bytes)) => {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.seen.bytes_out.fetch_add(count, Ordering::Relaxed);
                Some(Ok(bytes))
            }
            Some(Piece::End) => {
                self.seen.whole.store(true, Ordering::Release);
                None
            }
            None => Some(Err(BrokenOff)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accepted: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for accepted in accepted {
            headers.append(ACCEPT_ENCODING, accepted.parse().unwrap());
        }
        headers
    }

    #[test]
    fn gzip_is_given_to_those_who_name_it_and_do_not_refuse_it() {
        for accepted in ["gzip", "br, GZip;q=0.5", "x-gzip", "gzip; q=1.0"] {
            assert!(takes_gzip(&headers(&[accepted])), "{accepted}");
        }
        assert!(takes_gzip(&headers(&["br", "gzip"])));
        for accepted in ["", "identity", "*", "gzip;q=0", "gzip; q=0.000, br"] {
            assert!(!takes_gzip(&headers(&[accepted])), "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    fn flow() -> (mpsc::Sender<Piece>, Flow) {
        let (pieces, coming) = mpsc::channel(1);
        let flow = Flow {
            coming,
            cut: Cuts::default(),
            seen: Arc::default(),
        };
        (pieces, flow)
    }

    #[tokio::test]
    async fn only_what_was_told_to_be_whole_ends_as_whole() {
        use futures_util::StreamExt;
        let (pieces, mut flow) = flow();
        assert!(pieces.send(Piece::Bytes("a".into())).await.is_ok());
        assert_eq!(flow.next().await.unwrap().unwrap(), "a");
        drop(pieces);
        assert!(flow.next().await.unwrap().is_err(), "its maker is gone");

        let (pieces, mut flow) = self::flow();
        assert!(pieces.send(Piece::End).await.is_ok());
        assert!(flow.next().await.is_none());
        drop(pieces);
        assert!(flow.next().await.is_none());
        assert!(flow.seen.whole.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_waits_to_be_read_is_not_let_out_after_the_cut() {
        use futures_util::StreamExt;
        let (pieces, mut flow) = flow();
        assert!(pieces.send(Piece::Bytes("late".into())).await.is_ok());
        let cause = curfew_gate::permit::CutCause::Shutdown;
        flow.cut.0[1].fire(curfew_gate::permit::Cut::of(cause));
        assert!(flow.next().await.unwrap().is_err());
        assert_eq!(flow.seen.bytes_out.load(Ordering::Relaxed), 0);
    }
}
