//! OTLP logs over HTTP, in protobuf: one request at a time, acknowledged by a status of success.

use std::time::Duration;

use curfew_export::otlp::{BYTES_MAX, RECORDS_MAX, encode, left_out};
use curfew_export::{Record, Source, visible};
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Uri};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::{Room, Trouble};
use crate::client::{AGENT, HttpClient, Versions, post};

/// One request's worth.
pub(super) const ROOM: Room = Room {
    records: RECORDS_MAX,
    bytes: BYTES_MAX,
};

/// How long a request and its answer may take: what OpenTelemetry's own exporters grant.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// The longest answer: some hundred bytes are usual.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The words of a receiver that are told to the operator, in characters.
const WORDS_MAX: usize = 200;

/// See the module text.
pub(super) struct Otlp {
    client: HttpClient,
    url: Uri,
    token: Option<SecretString>,
    source: Source,
    /// Records in a request: fewer once one was too much.
    limit: usize,
}

/// What an answer says.
enum Answer {
    Taken,
    /// The request itself is refused, and would be each time.
    Unfit(Trouble),
}

impl Otlp {
    pub(super) fn new(
        url: &str,
        token: Option<SecretString>,
        tls: ClientConfig,
        source: Source,
    ) -> Result<Self, String> {
        Ok(Self {
            client: HttpClient::new(tls, Versions::Two, IDLE_TIME),
            url: url.parse().map_err(|error| format!("`{url}`: {error}"))?,
            token,
            source,
            limit: RECORDS_MAX,
        })
    }

    /// Sends some of these, the first ones. Gives how many.
    pub(super) async fn deliver(&mut self, records: &[Record]) -> Result<usize, Trouble> {
        loop {
            let count = records.len().min(self.limit);
            let batch = records.get(..count).unwrap_or_default();
            match self.send(batch).await? {
                Answer::Taken => {
                    self.limit = self.limit.saturating_mul(2).min(RECORDS_MAX);
                    return Ok(count);
                }
                Answer::Unfit(_) if count > 1 => self.limit = count / 2,
                Answer::Unfit(trouble) => return self.send_bare(batch, trouble).await,
            }
        }
    }

    /// One record that is refused as it is. If only it is, nothing that somebody put into it may
    /// hold up what comes after; if everything is, nothing may be passed over.
    async fn send_bare(&self, batch: &[Record], trouble: Trouble) -> Result<usize, Trouble> {
        let bare: Vec<Record> = batch.iter().map(Record::bare).collect();
        match self.send(&bare).await? {
            Answer::Taken => {
                let index = bare.first().map(|record| record.index);
                tracing::error!(
                    index,
                    %trouble,
                    "a receiver refuses this entry: it got its kind, index and leaf hash only"
                );
                Ok(bare.len())
            }
            Answer::Unfit(_) => Err(trouble),
        }
    }

    async fn send(&self, batch: &[Record]) -> Result<Answer, Trouble> {
        let mut request = post(&self.url, encode(batch, &self.source));
        let headers = request.headers_mut();
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(token) = &self.token {
            let value = format!("Bearer {}", token.expose_secret());
            let value = HeaderValue::try_from(value);
            let mut value = value.map_err(|_| Trouble::Wrong("the token is none".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let silent = || Trouble::Unreachable(format!("no answer within {ANSWER_TIME:?}"));
        let sent = self.client.send(request, ANSWER_BYTES_MAX);
        let answer = timeout(ANSWER_TIME, sent).await.map_err(|_| silent())?;
        let (head, body) = answer.map_err(Trouble::Unreachable)?;
        judge(head.status, &head.headers, &body, batch)
    }
}

fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    batch: &[Record],
) -> Result<Answer, Trouble> {
    if status.is_success() {
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let left_out = left_out(kind, body).map_err(|problem| {
            Trouble::Wrong(format!(
                "it answers {status}, but is no OTLP receiver: {problem}"
            ))
        })?;
        let words = cut(&left_out.message);
        let index = |record: Option<&Record>| record.map(|record| record.index);
        let (from, to) = (index(batch.first()), index(batch.last()));
        if left_out.count > 0 {
            let count = left_out.count;
            tracing::error!(
                from,
                to,
                count,
                words,
                "a receiver has left out some entries"
            );
        } else if !words.is_empty() {
            tracing::warn!(from, to, words, "a receiver took entries with a warning");
        }
        return Ok(Answer::Taken);
    }
    let trouble = Trouble::Refused {
        status,
        words: cut(&String::from_utf8_lossy(body)),
        wait: retry_after(headers),
    };
    let unfit = [
        StatusCode::BAD_REQUEST,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    if unfit.contains(&status) {
        return Ok(Answer::Unfit(trouble));
    }
    Err(trouble)
}

fn cut(words: &str) -> String {
    let words = words.chars().filter(|c| !c.is_control());
    visible(&words.take(WORDS_MAX).collect::<String>()).into_owned()
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a moment by the receiver's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let told = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text| jiff::fmt::rfc2822::parse(text).ok();
    let (then, now) = (moment(told)?, moment(text(header::DATE)?)?);
    Duration::try_from(then.duration_since(&now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again_is_seconds_or_a_moment_by_the_receivers_clock() {
        let told = |retry: &str, date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, retry.parse().unwrap());
            headers.insert(header::DATE, date.parse().unwrap());
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = "Wed, 25 Nov 2026 09:00:00 GMT";
        assert_eq!(told("7", now), Some(7));
        assert_eq!(told("Wed, 25 Nov 2026 09:00:30 GMT", now), Some(30));
        assert_eq!(told("Wed, 25 Nov 2026 08:00:00 GMT", now), None);
        assert_eq!(told("soon", now), None);
    }

    #[test]
    fn success_counts_only_from_something_that_speaks_otlp() {
        let mut headers = HeaderMap::new();
        assert!(matches!(
            judge(StatusCode::OK, &headers, b"", &[]),
            Ok(Answer::Taken)
        ));
        headers.insert(header::CONTENT_TYPE, "text/html".parse().unwrap());
        let page = judge(StatusCode::OK, &headers, b"<html>", &[]);
        assert!(matches!(page, Err(Trouble::Wrong(_))));
        headers.insert(
            header::CONTENT_TYPE,
            "application/json; charset=x".parse().unwrap(),
        );
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"1"}}"#;
        assert!(matches!(
            judge(StatusCode::OK, &headers, json, &[]),
            Ok(Answer::Taken)
        ));
        let refused = judge(StatusCode::UNAUTHORIZED, &headers, b"", &[]);
        assert!(matches!(refused, Err(Trouble::Refused { .. })));
        let unfit = judge(StatusCode::BAD_REQUEST, &headers, b"", &[]);
        assert!(matches!(unfit, Ok(Answer::Unfit(_))));
    }
}
