//! Whether a database may be connected to: what its accounts can do there has been looked at, and
//! is no more than their classes say.
//!
//! Looked at when the gateway starts, from time to time after that, and again and again where the
//! server could not be asked or had something to be put right.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::frame::Complaint;
use super::rights::{self, Problem, Severity};
use super::upstream::{ConnectError, Database};
use crate::config::{Access, PostgresResource};

/// How long what was found holds: rights that somebody gives meanwhile are noticed after at most so
/// long. A look takes some 20 ms of the server's time for each account.
const HOLDS: Duration = Duration::from_secs(300);
/// The pause before the next look where something has to be put right: an operator at work is not
/// kept waiting.
const WRONG_PAUSE: Duration = Duration::from_secs(10);
/// The pause before the next look where the server could not be asked.
const DOWN_PAUSE: Duration = Duration::from_secs(2);

/// How a database stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nobody has looked yet.
    Unchecked,
    /// It is served.
    Served {
        /// What to know all the same.
        problems: Vec<Problem>,
    },
    /// It is not served: an account can do more than its class.
    Refused {
        /// What has to be put right.
        problems: Vec<Problem>,
    },
    /// It is not served: the server could not be asked what its accounts can do.
    Down {
        /// Why.
        error: String,
    },
}

/// A database, for whoever runs the gateway.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DatabaseStatus {
    /// Its name in policy and log.
    pub name: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

/// Why a client gets no connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotServed {
    /// Nobody has looked yet, or the server could not be asked.
    Down,
    /// Something has to be put right first.
    Refused,
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "the server could not be asked yet what its accounts can do",
            Self::Refused => "an account can do more than its class",
        })
    }
}

impl NotServed {
    /// What the client is told: nothing of the account Curfew uses or what it can do.
    pub(crate) fn complaint(self) -> Complaint {
        match self {
            Self::Down => Complaint::fatal("57P03", "the database server cannot be reached yet")
                .detail("What Curfew's accounts can do there has to be looked at first.")
                .hint("Try again in a moment; whoever runs Curfew finds the reason in its status."),
            Self::Refused => Complaint::fatal("57P03", "the database is not served")
                .detail("What Curfew's accounts can do there has to be put right first.")
                .hint("Whoever runs Curfew finds the reason in its status."),
        }
    }
}

/// How a database stands, written by its watcher and read by everybody.
#[derive(Debug)]
pub(crate) struct Health {
    state: watch::Sender<State>,
    /// Problems keep it from being served.
    enforced: bool,
    /// What is to be said of it in any case.
    relied_on: Option<Problem>,
}

impl Health {
    pub(crate) fn of(config: &PostgresResource) -> Self {
        let relied_on = rights::relied_on(config);
        let enforced = matches!(config.access, Access::Enforced(_));
        let state = match enforced {
            true => State::Unchecked,
            false => State::Served {
                problems: relied_on.clone().into_iter().collect(),
            },
        };
        Self {
            state: watch::Sender::new(state),
            enforced,
            relied_on,
        }
    }

    /// Waits until somebody has looked, if nobody has.
    pub(crate) async fn served(&self) -> Result<(), NotServed> {
        let mut state = self.state.subscribe();
        let looked = state.wait_for(|state| *state != State::Unchecked).await;
        let looked = looked.map_err(|_| NotServed::Down)?;
        match &*looked {
            State::Served { .. } => Ok(()),
            State::Refused { .. } => Err(NotServed::Refused),
            State::Unchecked | State::Down { .. } => Err(NotServed::Down),
        }
    }

    /// Takes in what a look has found, and says what is new in it. Gives the pause to the next.
    fn learn(&self, found: Result<Vec<Problem>, ConnectError>) -> Duration {
        let state = self.judge(found);
        let pause = match &state {
            State::Served { .. } => HOLDS,
            State::Refused { .. } => WRONG_PAUSE,
            State::Unchecked | State::Down { .. } => DOWN_PAUSE,
        };
        let before = self.state.send_replace(state.clone());
        if before != state {
            tell(&before, &state);
        }
        pause
    }

    fn judge(&self, found: Result<Vec<Problem>, ConnectError>) -> State {
        let found = match found {
            Ok(found) => found,
            Err(error) if self.enforced => {
                return State::Down {
                    error: error.to_string(),
                };
            }
            Err(error) => vec![Problem::warning(format!(
                "the server could not be asked what its accounts can do: {error}"
            ))],
        };
        let problems = self.relied_on.clone().into_iter().chain(found);
        if !self.enforced {
            let problems = problems.map(rights::only_a_warning).collect();
            return State::Served { problems };
        }
        let problems: Vec<Problem> = problems.collect();
        let wrong = problems.iter().any(|one| one.severity == Severity::Error);
        match wrong {
            true => State::Refused { problems },
            false => State::Served { problems },
        }
    }
}

/// Says what has become of a database, each problem once.
fn tell(before: &State, state: &State) {
    let known = match before {
        State::Served { problems } | State::Refused { problems } => problems.as_slice(),
        State::Unchecked | State::Down { .. } => &[],
    };
    match state {
        State::Served { problems } | State::Refused { problems } => {
            for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                match problem.severity {
                    Severity::Error => tracing::error!("not served: {problem}"),
                    Severity::Warning => tracing::warn!("{problem}"),
                }
            }
        }
        State::Down { error } => tracing::warn!(%error, "a database server could not be asked"),
        State::Unchecked => {}
    }
}

impl Database {
    /// How it stands.
    pub fn status(&self) -> DatabaseStatus {
        DatabaseStatus {
            name: self.name.to_string(),
            state: self.health.state.borrow().clone(),
        }
    }
}

/// Looks at a database's accounts until told to stop.
pub(super) async fn watch(database: Database, stopping: CancellationToken) {
    if let State::Served { problems } = &database.status().state {
        // What is relied on is said at each start.
        for problem in problems {
            tracing::warn!("{problem}");
        }
    }
    loop {
        let looked = tokio::select! {
            () = stopping.cancelled() => return,
            looked = rights::inspect(&database) => looked,
        };
        let pause = database.health.learn(looked);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
