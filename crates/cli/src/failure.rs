//! Why a command did not succeed, told to a person, and the exit code that tells a program.

use std::fmt::Display;

use miette::Diagnostic;

use crate::say::harmless;

/// What the exit codes mean, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed
  2  the command line, the configuration or the policy is wrong
  3  not signed in, or the session is over: run `curfew login`
  4  the policy does not permit it
`curfew log verify` has its own; see its --help.";

/// The width of lines where no terminal has one: texts stay in one piece for whoever searches them.
const PIPED_COLUMNS: usize = 1_000;

/// Has failures told in lines as wide as the terminal, or unbroken where there is none.
pub(crate) fn start_telling() {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        return;
    }
    let hook = miette::set_hook(Box::new(|_| {
        Box::new(
            miette::MietteHandlerOpts::new()
                .width(PIPED_COLUMNS)
                .build(),
        )
    }));
    // Somebody else's hook only looks different.
    drop(hook);
}

/// The kinds of failure, by exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// Command line, configuration or policy.
    Usage = 2,
    /// Not signed in.
    SignIn = 3,
    /// Not permitted.
    Refused = 4,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    report: miette::Report,
}

/// What a command gives.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

#[derive(Debug, Diagnostic, thiserror::Error)]
#[error("{text}")]
struct Told {
    text: String,
    #[help]
    hint: Option<String>,
}

impl Failure {
    /// A failure in a sentence.
    pub(crate) fn new(exit: Exit, text: impl Display) -> Self {
        Self {
            exit,
            report: Told {
                text: harmless(&text.to_string()).into_owned(),
                hint: None,
            }
            .into(),
        }
    }

    /// A failure in a sentence, and what to do about it.
    pub(crate) fn hint(exit: Exit, text: impl Display, hint: impl Display) -> Self {
        Self {
            exit,
            report: Told {
                text: harmless(&text.to_string()).into_owned(),
                hint: Some(harmless(&hint.to_string()).into_owned()),
            }
            .into(),
        }
    }

    /// A failure with its place in a file.
    pub(crate) fn diagnostic(
        exit: Exit,
        diagnostic: impl Diagnostic + Send + Sync + 'static,
    ) -> Self {
        Self {
            exit,
            report: diagnostic.into(),
        }
    }

    /// It failed, whatever it was.
    pub(crate) fn failed(text: impl Display) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// In a sentence, for a line of diagnostics.
    pub(crate) fn brief(&self) -> String {
        self.report.to_string()
    }

    /// For the terminal.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.report)
    }
}

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    /// `doing: error`.
    fn doing(self, doing: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl Display) -> Outcome<T> {
        self.map_err(|error| Failure::failed(format_args!("{doing}: {error}")))
    }
}
