//! HTTP/1.1 to an upstream: one exchange at a time on a connection.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::socket::Breaker;
use super::{ANSWER_HEAD_BYTES_MAX, Dialled, Failure, Outgoing, Tried};
use crate::Body;

/// Fields in the head of an answer. The parser sets aside 32 bytes for each: 16 kB.
const ANSWER_FIELDS_MAX: usize = 512;

/// A connection.
#[derive(Debug)]
pub(super) struct H1 {
    pub(super) sender: http1::SendRequest<Body>,
    task: AbortHandle,
    breaker: Breaker,
}

impl H1 {
    pub(super) async fn new(dialled: Dialled) -> Result<Self, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(ANSWER_FIELDS_MAX)
            .max_buf_size(ANSWER_HEAD_BYTES_MAX as usize)
            .handshake(TokioIo::new(dialled.io))
            .await
            .map_err(|_| Failure::Broken)?;
        let task = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Self {
            sender,
            task,
            breaker: dialled.breaker,
        })
    }

    /// Ends it at once, with all that waits to be sent.
    pub(super) fn break_off(&self) {
        self.breaker.break_off();
        self.task.abort();
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        outgoing: Outgoing,
        authority: &str,
    ) -> Result<Response<Incoming>, Tried> {
        let Outgoing {
            mut head,
            body,
            length,
            wanted,
            ..
        } = outgoing;
        // The path in the request line, and the host in a header.
        let path = head.uri.path_and_query().cloned().ok_or(Tried::Broken)?;
        head.uri = Uri::from(path);
        head.version = Version::HTTP_11;
        let host = HeaderValue::from_str(authority).map_err(|_| Tried::Broken)?;
        head.headers.insert(header::HOST, host);
        let has_body = body.is_some();
        frame(&mut head.headers, length, has_body);
        let body = body.unwrap_or_else(crate::answer::empty);
        let mut request = Request::from_parts(head, body);
        if let Some(wanted) = wanted {
            hyper::ext::on_informational(&mut request, move |told| {
                if told.status() == StatusCode::CONTINUE {
                    wanted.cancel();
                }
            });
        }
        let mut error = match self.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if let Some(unsent) = error.take_message() {
            return Err(Tried::Unsent(has_body.then(|| unsent.into_body())));
        }
        let error = error.into_error();
        tracing::debug!(%error, "an upstream broke off");
        Err(if error.is_parse_too_large() {
            Tried::TooLarge
        } else if error.is_parse() {
            Tried::Broken
        } else {
            Tried::Closed
        })
    }
}

/// Says how the body of a request ends. Left to itself, hyper sends none with a GET whose length
/// is not known.
fn frame(headers: &mut HeaderMap, length: Option<u64>, has_body: bool) {
    match length {
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        None if has_body => {
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        None => {}
    }
}
