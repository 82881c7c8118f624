//! The one place that prints. Answers go to standard output, everything about them to standard
//! error, so that answers can be piped.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place of this crate that prints"
)]

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;

/// A line of the answer. A reader that has gone away is no error.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The answer as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(error) => note(format_args!("cannot write JSON: {error}")),
    }
}

/// A line beside the answer.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Something doubtful, beside the answer.
pub(crate) fn warning(text: impl Display) {
    note(format_args!("warning: {text}"));
}

/// A question beside the answer; the cursor stays behind it.
pub(crate) fn ask(text: impl Display) {
    let mut err = std::io::stderr();
    let _ = write!(err, "{text}");
    let _ = err.flush();
}

/// Whether people, not programs, read the answer.
pub(crate) fn to_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether people read what stands beside the answer.
pub(crate) fn notes_to_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether what stands beside the answer may have colours.
pub(crate) fn errors_in_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn paint(code: &str, text: impl Display) -> String {
    if to_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

/// Bold on a terminal.
pub(crate) fn bold(text: impl Display) -> String {
    paint("1", text)
}

/// Dim on a terminal.
pub(crate) fn dim(text: impl Display) -> String {
    paint("2", text)
}

/// Green on a terminal.
pub(crate) fn good(text: impl Display) -> String {
    paint("32", text)
}

/// Red on a terminal.
pub(crate) fn bad(text: impl Display) -> String {
    paint("31", text)
}
