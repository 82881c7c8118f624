//! Asking a timestamping authority over HTTP (RFC 3161 §3.4).

use std::time::Duration;

use curfew_timestamp::{
    REQUEST_TYPE, RESPONSE_BYTES_MAX, Roots, Token, TokenError, request, verify,
};
use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use tokio::time::timeout;

use crate::client::{AGENT, HttpClient, Versions, post, system_tls};

/// How long an unused connection is kept: not until the next question, which is an hour away.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// Why there is no token. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It refuses.
    #[error("it answers with {0}")]
    Refused(StatusCode),
    /// What it answers proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no random number for the question.
    #[error("no random number: {0}")]
    Random(getrandom::Error),
}

/// Asks one authority.
#[derive(Debug)]
pub struct Asker {
    client: HttpClient,
    url: Uri,
    within: Duration,
}

impl Asker {
    /// Of the authority at `url`. A question and its answer may take `within`.
    ///
    /// # Errors
    /// When that is no URL, or TLS cannot be set up.
    pub fn new(url: &str, within: Duration) -> Result<Self, String> {
        Ok(Self {
            client: HttpClient::new(system_tls()?, Versions::One, IDLE_TIME),
            url: url.parse().map_err(|error| format!("`{url}`: {error}"))?,
            within,
        })
    }

    /// A token over `checkpoint`, verified, with the whole answer it came in.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(
        &self,
        checkpoint: &[u8],
        roots: &Roots,
    ) -> Result<(Token, Vec<u8>), AskError> {
        let nonce = getrandom::u64().map_err(AskError::Random)?;
        let mut question = post(&self.url, request(checkpoint, nonce)?);
        let headers = question.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(REQUEST_TYPE));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let silent = |_| AskError::Unreachable(format!("nothing for {:?}", self.within));
        let sent = self.client.send(question, RESPONSE_BYTES_MAX);
        let answer = timeout(self.within, sent).await.map_err(silent)?;
        let (head, body) = answer.map_err(AskError::Unreachable)?;
        if head.status != StatusCode::OK {
            return Err(AskError::Refused(head.status));
        }
        let token = verify(&body, checkpoint, Some(nonce), roots)?;
        Ok((token, body.to_vec()))
    }
}
