//! That the log has not been archived for too long, and that it is again: said once in diagnostics,
//! and once in the log itself.

use std::pin::pin;
use std::time::Duration;

use curfew_authority::{ArchiveNews, Command};
use curfew_entry::{ArchivingFault, LogArchivingFailed, Timestamp};
use curfew_gate::registrar::Registrar;
use tokio::time::{Instant, sleep_until};

use super::{ArchiveError, Archived};

/// After how long an entry that could not be recorded is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long nothing is done where nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);

/// Rounds that failed, one after the other.
#[derive(Clone, Copy, Debug)]
struct Outage {
    began: Instant,
    since: Timestamp,
    /// What stood in the way the last time.
    cause: ArchivingFault,
}

/// What is known of the rounds so far.
#[derive(Debug)]
struct Heard {
    alarm_after: Duration,
    outage: Option<Outage>,
    /// How many entries the archive covered when it was last up to date.
    size: Option<u64>,
    /// The log says that it is not archived.
    said: bool,
}

impl Heard {
    /// Takes note of how a round ended.
    fn hear(&mut self, outcome: &Result<Archived, ArchiveError>, now: (Instant, Timestamp)) {
        match outcome {
            Ok(archived) => {
                let size = archived.size;
                self.size = Some(size);
                if self.outage.take().is_some() {
                    tracing::warn!(size, "the log is archived again");
                }
                tracing::debug!(?archived, "archived");
            }
            Err(error) => {
                let Some(cause) = error.fault() else { return };
                if self.outage.is_none() {
                    tracing::error!(%error, "the log cannot be archived; it is tried again");
                }
                let (began, since) = now;
                let outage = self.outage.get_or_insert(Outage {
                    began,
                    since,
                    cause,
                });
                outage.cause = cause;
            }
        }
    }

    /// What the log has to say by now.
    fn due(&self, now: Instant) -> Option<ArchiveNews> {
        let Some(outage) = &self.outage else {
            let size = self.size.filter(|_| self.said)?;
            return Some(ArchiveNews::Resumed { size });
        };
        let is_long = now.duration_since(outage.began) >= self.alarm_after;
        (is_long && !self.said).then_some(ArchiveNews::Failed(LogArchivingFailed {
            since: outage.since,
            size: self.size,
            cause: outage.cause,
        }))
    }

    /// When that is to be looked at again, though nothing more is heard.
    fn next(&self, now: Instant) -> Instant {
        if self.due(now).is_some() {
            return now + RETRY;
        }
        let outage = self.outage.filter(|_| !self.said);
        outage.map_or(now + NEVER, |outage| outage.began + self.alarm_after)
    }
}

/// See the module text.
pub(super) struct Alarm {
    registrar: Registrar,
    heard: Heard,
}

impl Alarm {
    /// One that goes on from what the log says.
    pub(super) async fn new(registrar: Registrar, alarm_after: Duration) -> Self {
        let said = registrar.log().await.map(|log| log.archiving_failed);
        let heard = Heard {
            alarm_after,
            outage: None,
            size: None,
            said: said.unwrap_or(false),
        };
        Self { registrar, heard }
    }

    /// Takes note of how a round ended. What is to be said of it is said in [`Alarm::during`].
    pub(super) fn hear(&mut self, outcome: &Result<Archived, ArchiveError>) {
        let now = (Instant::now(), self.registrar.now());
        self.heard.hear(outcome, now);
    }

    /// Whether the last round failed.
    pub(super) fn is_failing(&self) -> bool {
        self.heard.outage.is_some()
    }

    /// Waits for something, and has the log say meanwhile what is due.
    pub(super) async fn during<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        loop {
            self.tell().await;
            tokio::select! {
                done = &mut something => return done,
                () = sleep_until(self.heard.next(Instant::now())) => {}
            }
        }
    }

    async fn tell(&mut self) {
        let Some(news) = self.heard.due(Instant::now()) else {
            return;
        };
        if self.registrar.note(Command::Archive(news)).await {
            self.heard.said = matches!(news, ArchiveNews::Failed(_));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALARM: Duration = Duration::from_secs(60);

    /// Rounds by seconds since the start, and what is due then.
    struct Stage {
        heard: Heard,
        start: Instant,
    }

    impl Stage {
        fn new(said: bool) -> Self {
            Self {
                heard: Heard {
                    alarm_after: ALARM,
                    outage: None,
                    size: None,
                    said,
                },
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn hear(&mut self, seconds: u64, outcome: Result<u64, ArchiveError>) -> String {
            let outcome = outcome.map(|size| Archived {
                before: 0,
                size,
                objects: 0,
                bytes: 0,
            });
            let now = (self.at(seconds), Timestamp::from_micros(seconds));
            self.heard.hear(&outcome, now);
            self.look(seconds)
        }

        /// What is due, and takes it as recorded.
        fn look(&mut self, seconds: u64) -> String {
            let Some(news) = self.heard.due(self.at(seconds)) else {
                return String::new();
            };
            self.heard.said = matches!(news, ArchiveNews::Failed(_));
            match news {
                ArchiveNews::Failed(told) => {
                    let (cause, since) = (told.cause.as_str(), told.since.as_micros());
                    format!("{cause} since {since} at {:?}", told.size)
                }
                ArchiveNews::Resumed { size } => format!("resumed at {size}"),
            }
        }
    }

    fn away() -> Result<u64, ArchiveError> {
        Err(ArchiveError::Store {
            object: "checkpoint".to_owned(),
            problem: "refused".to_owned(),
        })
    }

    fn other() -> Result<u64, ArchiveError> {
        Err(ArchiveError::Other {
            object: "tile/0/000".to_owned(),
        })
    }

    #[test]
    fn a_short_outage_is_not_said_and_a_long_one_once_whatever_is_tried() {
        let mut stage = Stage::new(false);
        assert_eq!(stage.hear(0, Ok(5)), "");
        assert_eq!(stage.hear(10, away()), "");
        assert_eq!(stage.heard.next(stage.at(10)), stage.at(70));
        assert_eq!(stage.hear(69, away()), "");
        assert_eq!(stage.hear(70, Ok(7)), "");

        assert_eq!(stage.hear(100, away()), "");
        assert_eq!(stage.hear(130, other()), "");
        // Between two rounds.
        let said = "other_content since 100 at Some(7)";
        assert_eq!(stage.look(160), said);
        assert_eq!(stage.look(161), "");
        assert_eq!(stage.heard.next(stage.at(161)), stage.at(161) + NEVER);
        assert_eq!(stage.hear(400, away()), "");
        assert_eq!(stage.hear(500, Err(ArchiveError::Unsigned)), "");
        assert_eq!(stage.hear(600, Ok(9)), "resumed at 9");
        assert_eq!(stage.hear(700, Ok(9)), "");
    }

    #[test]
    fn what_could_not_be_recorded_is_tried_again_and_an_outage_goes_on_over_a_restart() {
        let mut stage = Stage::new(false);
        assert_eq!(stage.hear(0, away()), "");
        let due = stage.at(60);
        assert!(stage.heard.due(due).is_some());
        assert_eq!(stage.heard.next(due), due + RETRY);

        let mut stage = Stage::new(true);
        assert_eq!(stage.look(0), "");
        assert_eq!(stage.hear(1, away()), "");
        assert_eq!(stage.look(600), "");
        assert_eq!(stage.hear(700, Ok(3)), "resumed at 3");
    }
}
