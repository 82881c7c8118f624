//! Asking one witness to cosign one checkpoint (C2SP tlog-witness, the log's side).

use std::fmt;
use std::time::Duration;

use curfew_ledger::witness::{ANSWER_BYTES_MAX, SIZE_TYPE, cosigned, request, told_size};
use curfew_ledger::{CosignerKey, Hash, Published, VerifierKey};
use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};

use crate::client::{HttpClient, Versions, post, system_tls};

/// How long an unused connection is kept. Less than the 10 s that our own witness waits.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// The words of a witness that are told to the operator, in characters.
const WORDS_MAX: usize = 200;

/// Why a witness has not cosigned. For the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It says it has seen more of this log than there is: the log was rolled back, or it lies.
    #[error(
        "it says that it has cosigned {told} entries of this log, which has {size}: an old copy of \
         the log runs here, or the witness lies"
    )]
    Ahead {
        /// What it says.
        told: u64,
        /// What there is.
        size: u64,
    },
    /// It does not know the log, or the key that signs for it (403 and 404 of C2SP tlog-witness).
    #[error(
        "it does not know this key of the log ({status}: {words}). Until it does, it cosigns nothing: \
         whoever runs it must let it know {key} (`curfew witness trust DIR KEY`, where it is Curfew's)"
    )]
    Unknown {
        /// The status.
        status: StatusCode,
        /// What it says of it.
        words: String,
        /// The key it should know.
        key: String,
    },
    /// It refuses.
    #[error("it refuses with {status}: {words}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it says of it.
        words: String,
    },
    /// It answers what no witness answers.
    #[error("its answer is wrong: {0}")]
    Wrong(String),
    /// The proof for it could not be made.
    #[error("no proof can be made for it: {0}")]
    Proof(String),
}

/// What came of asking.
#[derive(Debug)]
pub(super) struct Asked {
    /// The last size it has cosigned, as far as is known now.
    pub(super) size: u64,
    /// It said that it had cosigned less than it has: it was set back.
    pub(super) set_back: Option<u64>,
    /// Its signature lines, checked.
    pub(super) outcome: Result<String, AskError>,
}

/// What is to be cosigned, and what is known of the witness.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) url: &'a Uri,
    pub(super) key: &'a CosignerKey,
    /// The last size it has cosigned, as far as is known.
    pub(super) known: u64,
    /// The log's key, by which the checkpoint is signed.
    pub(super) log: &'a VerifierKey,
    /// The signed checkpoint.
    pub(super) note: &'a str,
    /// Number of entries in it.
    pub(super) size: u64,
}

/// Asks witnesses, over connections that are kept.
#[derive(Debug)]
pub(super) struct Asker {
    client: HttpClient,
    log: Published,
}

impl Asker {
    /// For the log whose proofs are in `log`.
    pub(super) fn new(log: Published) -> Result<Self, String> {
        let client = HttpClient::new(system_tls()?, Versions::One, IDLE_TIME);
        Ok(Self { client, log })
    }

    /// Asks once, and once more where the witness says from which size the proof must go on.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Asked {
        let mut asked = Asked {
            size: question.known,
            set_back: None,
            outcome: Err(AskError::Wrong(
                "it names another size each time".to_owned(),
            )),
        };
        for _ in 0..2 {
            match self.send(question, asked.size).await {
                Ok(Answer::Lines(lines)) => {
                    asked.size = question.size;
                    asked.outcome = Ok(lines);
                    return asked;
                }
                Ok(Answer::Elsewhere(told)) => {
                    if told < question.known {
                        asked.set_back = Some(told);
                    }
                    asked.size = told;
                }
                Err(error) => {
                    asked.outcome = Err(error);
                    return asked;
                }
            }
        }
        asked
    }

    async fn send(&self, question: &Question<'_>, old: u64) -> Result<Answer, AskError> {
        let size = question.size;
        if old > size {
            return Err(AskError::Ahead { told: old, size });
        }
        let proof = self.proof(old, size).await?;
        let body = request(old, &proof, question.note);
        let sent = self.client.send(post(question.url, body), ANSWER_BYTES_MAX);
        let (head, body) = sent.await.map_err(AskError::Unreachable)?;
        let status = head.status;
        if status == StatusCode::OK {
            let wrong = |error: &dyn fmt::Display| AskError::Wrong(error.to_string());
            let text = std::str::from_utf8(&body).map_err(|error| wrong(&error))?;
            let checked = cosigned(question.key, question.note, text);
            let (lines, _) = checked.map_err(|error| wrong(&error))?;
            return Ok(Answer::Lines(lines));
        }
        let kind = head.headers.get(header::CONTENT_TYPE);
        let is_size = kind == Some(&HeaderValue::from_static(SIZE_TYPE));
        if status == StatusCode::CONFLICT
            && is_size
            && let Some(told) = told_size(&body)
        {
            return Ok(Answer::Elsewhere(told));
        }
        let words = String::from_utf8_lossy(&body);
        let words = words.trim().chars().filter(|c| !c.is_control());
        let words = words.take(WORDS_MAX).collect();
        let key = question.log.to_string();
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                AskError::Unknown { status, words, key }
            }
            status => AskError::Refused { status, words },
        })
    }

    /// Reads some tiles, off the threads of the runtime.
    async fn proof(&self, old: u64, size: u64) -> Result<Vec<Hash>, AskError> {
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let log = self.log.clone();
        let made = tokio::task::spawn_blocking(move || log.consistency_proof(old, size)).await;
        let failed = |error: &dyn fmt::Display| AskError::Proof(error.to_string());
        let made = made.map_err(|error| failed(&error))?;
        made.map_err(|error| failed(&error))
    }
}

enum Answer {
    /// It has cosigned.
    Lines(String),
    /// The proof must go on from this size.
    Elsewhere(u64),
}
