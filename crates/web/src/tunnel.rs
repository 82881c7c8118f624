//! WebSockets: bytes go through untouched, until one side closes or the permit ends.
//!
//! At the cut both directions stop at once. Where the client is between frames, or the rest of
//! its frame is already here, it gets a Close frame that says why.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use curfew_entry::{ClosedBy, DeadlineCause, EndReason};
use curfew_gate::permit::{Cut, CutCause, CutSignal, Permit};
use curfew_gate::secret;
use futures_util::FutureExt;
use futures_util::future::join;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::flow::Flow;
use super::frames::{Messages, Part, Splitter, close_frame};
use super::upstream::Lease;
use crate::config::Patterns;

/// Bytes in flight in each direction: two buffers of 16 kB for each of 10,000 WebSockets are
/// 330 MB.
const BUFFER_BYTES: usize = 16_384;

/// How long the client may take to answer a Close before the connection is dropped. Nothing of
/// the session flows any more by then.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// An endpoint goes away (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// What came was not the protocol.
const PROTOCOL_ERROR: u16 = 1002;
/// The service restarts (IANA registry).
const RESTART: u16 = 1012;
/// Try again later (IANA registry).
const TRY_LATER: u16 = 1013;
/// The session is gone (IANA registry: Unauthorized).
const UNAUTHORIZED: u16 = 3000;
/// Nothing was done for too long (IANA registry: Timeout).
const TIMEOUT: u16 = 3008;
/// The session reached its longest time (private use).
const LIFETIME: u16 = 4001;

/// A WebSocket whose handshake both sides have agreed on.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    pub(super) lease: Lease,
    pub(super) permit: Permit,
    pub(super) flow: Arc<Flow>,
    pub(super) heartbeats: Patterns,
}

/// Why a direction stopped.
enum Over {
    /// The sender has no more, or one side's connection broke.
    Eof,
    /// What came was no frame.
    NotFrames,
    Cut(Cut),
}

/// One direction. What has been read and not yet written stays here when the future that runs it
/// is dropped.
struct Pipe {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    read: Splitter,
    written: Splitter,
    close_written: bool,
}

impl Pipe {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            read: Splitter::default(),
            written: Splitter::default(),
            close_written: false,
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    async fn run(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cut: &CutSignal,
        mut note: impl FnMut(Part<'_>),
        count: impl Fn(usize),
    ) -> Over {
        loop {
            while self.start < self.end {
                if let Some(cut) = cut.now() {
                    return Over::Cut(cut);
                }
                let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
                match to.write(waiting).await {
                    Ok(0) | Err(_) => return Over::Eof,
                    Ok(count) => self.wrote(count),
                }
            }
            if to.flush().await.is_err() {
                return Over::Eof;
            }
            if let Some(cut) = cut.now() {
                return Over::Cut(cut);
            }
            let bytes = match from.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Over::Eof,
                Ok(bytes) => bytes,
            };
            (self.start, self.end) = (0, bytes);
            let chunk = self.buffer.get(..bytes).unwrap_or_default();
            if self.read.feed(chunk, &mut note).is_err() {
                // Nothing of a chunk that cannot be understood goes on.
                self.end = 0;
                return Over::NotFrames;
            }
            count(bytes);
        }
    }

    fn wrote(&mut self, count: usize) {
        let until = self.start.saturating_add(count).min(self.end);
        let bytes = self.buffer.get(self.start..until).unwrap_or_default();
        let mut closes = false;
        // These bytes went through `read` before, so they are frames.
        let _ = self.written.feed(bytes, |part| closes |= is_close(part));
        self.close_written |= closes;
        self.start = until;
    }

    /// The rest of the frame that is being written, if all of it is here.
    fn rest_of_frame(&self) -> Option<&[u8]> {
        let mut probe = self.written.clone();
        if probe.until_boundary() == Some(0) {
            return Some(&[]);
        }
        let waiting = self.waiting();
        let whole = waiting.iter().position(|byte| {
            probe.feed(std::slice::from_ref(byte), |_| {}).is_ok()
                && probe.until_boundary() == Some(0)
        })?;
        waiting.get(..=whole)
    }

    /// Writes a Close frame after the current one, as far as that goes without waiting. Whether
    /// it went.
    fn close(&self, to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> bool {
        if self.close_written {
            return false;
        }
        let Some(rest) = self.rest_of_frame() else {
            return false;
        };
        let bytes = [rest, frame].concat();
        let written = to.write_all(&bytes).now_or_never();
        let flushed = to.flush().now_or_never();
        matches!((written, flushed), (Some(Ok(())), Some(Ok(()))))
    }
}

impl Over {
    /// Who closed it, `by` where it ended by itself, and what the client is told.
    fn meaning(self, by: ClosedBy) -> (ClosedBy, Option<(u16, String)>) {
        match self {
            Self::Eof => (by, None),
            Self::NotFrames => {
                let told = (PROTOCOL_ERROR, "not a WebSocket frame".to_owned());
                (ClosedBy::Protocol, Some(told))
            }
            Self::Cut(cut) => (cut.cause.closed_by(), Some(farewell(cut))),
        }
    }
}

type Io = TokioIo<Upgraded>;

/// Both connections, once they have left HTTP behind.
async fn opened(
    client: OnUpgrade,
    upstream: OnUpgrade,
    signal: &CutSignal,
) -> Result<(Io, Io), ClosedBy> {
    tokio::select! {
        biased;
        cut = signal.fired() => Err(cut.cause.closed_by()),
        both = async { tokio::try_join!(client, upstream) } => match both {
            Ok((client, upstream)) => Ok((TokioIo::new(client), TokioIo::new(upstream))),
            Err(_) => Err(ClosedBy::Client),
        },
    }
}

impl Tunnel {
    /// Carries bytes both ways until it is over, and records how it ended.
    pub(super) async fn run(self) {
        let Self {
            client,
            upstream,
            lease,
            permit,
            flow,
            heartbeats,
        } = self;
        let signal = permit.cut().clone();
        let (client, upstream) = match opened(client, upstream, &signal).await {
            Ok(both) => both,
            Err(by) => return permit.close(flow.closing(by)),
        };
        let (mut client_read, mut client_write) = split(client);
        let (mut upstream_read, mut upstream_write) = split(upstream);
        let (mut inward, mut outward) = (Pipe::new(), Pipe::new());
        let first_close = OnceLock::new();
        let mut messages = Messages::new(heartbeats);
        let note_client = |part: Part<'_>| {
            if messages.is_activity(part) {
                flow.touch();
            }
            if is_close(part) {
                first_close.get_or_init(|| ClosedBy::Client);
            }
        };
        let note_upstream = |part: Part<'_>| {
            if is_close(part) {
                first_close.get_or_init(|| ClosedBy::Upstream);
            }
        };
        let to_resource = |bytes| flow.count_to_resource(bytes);
        let to_client = |bytes| flow.count_to_client(bytes);
        let (over, side) = tokio::select! {
            biased;
            cut = signal.fired() => (Over::Cut(cut), ClosedBy::Client),
            over = inward.run(
                &mut client_read, &mut upstream_write, &signal, note_client, to_resource,
            ) => (over, ClosedBy::Client),
            over = outward.run(
                &mut upstream_read, &mut client_write, &signal, note_upstream, to_client,
            ) => (over, ClosedBy::Upstream),
        };
        let (by, farewell) = over.meaning(first_close.get().copied().unwrap_or(side));
        let mut told = false;
        let mut permit = Some(permit);
        if let Some((code, reason)) = farewell {
            told = outward.close(&mut client_write, &close_frame(code, &reason, None));
            if let Ok(mask) = secret::random() {
                let bye = close_frame(GOING_AWAY, "", Some(mask));
                inward.close(&mut upstream_write, &bye);
            }
        }
        // A cut ends it now. Otherwise what was sent may still be on its way.
        if signal.now().is_some()
            && let Some(permit) = permit.take()
        {
            permit.close(flow.closing(by));
        }
        let leaving = part(client_read, client_write, told.then_some(inward.read));
        let parting = join(leaving, taken(upstream_read, upstream_write));
        let _ = tokio::time::timeout(CLOSE_TIME, parting).await;
        if let Some(permit) = permit {
            permit.close(flow.closing(by));
        }
        // What the upstream has not taken by now, it does not get.
        drop(lease);
    }
}

/// Ends the upstream's connection: waits until it has taken what was sent, and closes it too.
async fn taken(mut read: ReadHalf<Io>, mut write: WriteHalf<Io>) {
    let _ = write.shutdown().await;
    let mut discarded = [0; 1_024];
    while let Ok(1..) = read.read(&mut discarded).await {}
}

fn is_close(part: Part<'_>) -> bool {
    matches!(part, Part::Header(header) if header.is_close())
}

/// Ends the client's connection, after its own Close where it was told to go.
async fn part(mut read: ReadHalf<Io>, mut write: WriteHalf<Io>, told: Option<Splitter>) {
    if let Some(mut splitter) = told {
        // What was under way is thrown away, until its answer to the Close.
        let mut discarded = [0; 1_024];
        while let Ok(count @ 1..) = read.read(&mut discarded).await {
            let mut closes = false;
            let chunk = discarded.get(..count).unwrap_or_default();
            let fed = splitter.feed(chunk, |part| closes |= is_close(part));
            if closes || fed.is_err() {
                break;
            }
        }
    }
    let _ = write.shutdown().await;
}

/// Code and reason for the client.
fn farewell(cut: Cut) -> (u16, String) {
    let span = cut
        .limit
        .map(|limit| format!(" (limit {limit})"))
        .unwrap_or_default();
    match cut.cause {
        CutCause::SessionEnded(EndReason::Idle) => (TIMEOUT, format!("session ended: idle{span}")),
        CutCause::SessionEnded(EndReason::Lifetime) => (
            LIFETIME,
            format!("session ended: longest time reached{span}"),
        ),
        CutCause::SessionEnded(EndReason::Shutdown) | CutCause::Shutdown | CutCause::Released => {
            (RESTART, "the gateway is stopping".to_owned())
        }
        CutCause::SessionEnded(EndReason::Reauth) => (
            UNAUTHORIZED,
            format!("session ended: sign-in too old{span}"),
        ),
        CutCause::SessionEnded(_) => (UNAUTHORIZED, "session ended".to_owned()),
        CutCause::Limit(DeadlineCause::Idle) => (
            TIMEOUT,
            format!("idle here for too long{span}: sign in again"),
        ),
        CutCause::Limit(DeadlineCause::Reauth) => (
            UNAUTHORIZED,
            format!("sign-in too old for this{span}: sign in again"),
        ),
        CutCause::Limit(DeadlineCause::Lifetime) => {
            (LIFETIME, format!("session too old for this{span}"))
        }
        CutCause::PolicyChanged => (UNAUTHORIZED, "a new policy does not permit this".to_owned()),
        CutCause::LedgerFailed => (TRY_LATER, "the audit log cannot be written".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::Span;

    use super::super::frames::REASON_BYTES_MAX;
    use super::*;

    #[test]
    fn every_cut_has_a_code_that_may_be_sent_and_a_reason_that_fits() {
        let limit = Some(Span::from_micros(86_399_999_999));
        let ends = [
            EndReason::Idle,
            EndReason::Reauth,
            EndReason::Lifetime,
            EndReason::SignedOut,
        ];
        let limits = [
            DeadlineCause::Idle,
            DeadlineCause::Reauth,
            DeadlineCause::Lifetime,
        ];
        let causes = ends.into_iter().map(CutCause::SessionEnded);
        let causes = causes.chain(limits.into_iter().map(CutCause::Limit));
        let causes = causes.chain([CutCause::LedgerFailed, CutCause::Shutdown]);
        let codes: Vec<u16> = causes
            .map(|cause| {
                let (code, reason) = farewell(Cut {
                    cause,
                    deadline: None,
                    limit,
                });
                assert!(reason.len() <= REASON_BYTES_MAX, "{reason}");
                code
            })
            .collect();
        assert_eq!(
            codes,
            [3008, 3000, 4001, 3000, 3008, 3000, 4001, 1013, 1012]
        );
    }

    #[tokio::test]
    async fn a_close_comes_after_the_whole_frame_or_not_at_all() {
        // A text frame of 4 bytes; the first 3 bytes are written, and some of the rest is here.
        let frame = [0x81, 4, b'a', b'b', b'c', b'd'];
        let farewell = close_frame(3008, "", None);
        for (here, wanted) in [(6, true), (5, false), (3, false)] {
            let mut pipe = Pipe::new();
            pipe.buffer[..here].copy_from_slice(&frame[..here]);
            pipe.end = here;
            pipe.wrote(3);
            let mut out = Vec::new();
            assert_eq!(pipe.close(&mut out, &farewell), wanted);
            let expected = if wanted {
                [&frame[3..], &farewell].concat()
            } else {
                Vec::new()
            };
            assert_eq!(out, expected);
        }
    }
}
