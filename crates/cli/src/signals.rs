//! Signals to programs that run on: none of them ends one without a word.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Doing, Outcome};
use crate::say;

/// What a signal asks for.
pub(crate) enum Asking {
    /// To stop.
    Stop,
    /// To take in what has changed.
    Reload,
    /// Something that would end other programs without a word.
    Nothing(&'static str),
}

/// The signals that are heard, and do not end it any more from when this is made.
pub(crate) struct Asked {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user: [Signal; 2],
}

impl Asked {
    pub(crate) fn listen() -> Outcome<Self> {
        let listen = |kind, name| signal(kind).doing(format_args!("cannot listen for {name}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            quit: listen(SignalKind::quit(), "SIGQUIT")?,
            hang_up: listen(SignalKind::hangup(), "SIGHUP")?,
            user: [
                listen(SignalKind::user_defined1(), "SIGUSR1")?,
                listen(SignalKind::user_defined2(), "SIGUSR2")?,
            ],
        })
    }

    /// The next that is asked for.
    pub(crate) async fn next(&mut self) -> Asking {
        let [one, two] = &mut self.user;
        tokio::select! {
            _ = self.terminate.recv() => Asking::Stop,
            _ = self.interrupt.recv() => Asking::Stop,
            _ = self.quit.recv() => Asking::Stop,
            _ = self.hang_up.recv() => Asking::Reload,
            _ = one.recv() => Asking::Nothing("SIGUSR1"),
            _ = two.recv() => Asking::Nothing("SIGUSR2"),
        }
    }

    /// Waits until it is asked to stop.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Goes on with something that never ends until somebody asks it to stop, and says that it did. There is
/// nothing that it could take in anew.
pub(crate) async fn until_asked<T>(
    mut asked: Asked,
    serving: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return Some(ended),
            what = asked.next() => match what {
                Asking::Stop => {
                    say::note("stopped");
                    return None;
                }
                Asking::Reload => tracing::warn!("there is nothing to reload: start it again"),
                Asking::Nothing(signal) => {
                    tracing::warn!(signal, "this signal means nothing to Curfew");
                }
            },
        }
    }
}
