//! The one place that prints. Answers go to standard output, everything about them to standard
//! error, so that answers can be piped.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place of this crate that prints"
)]

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

use curfew_entry::visible;
use serde::Serialize;

/// How colours begin and end: ESC, `[`, numbers, `m` (ECMA-48 section 8.3.117, SGR).
const COLOUR: &str = "\u{1b}[";

/// The text as it may go to a terminal: of what is invisible only line ends and colours are left.
/// Whatever prints texts from outside quotes them itself; this is what keeps the terminal whole where
/// something was forgotten.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if matches!(visible(text), Cow::Borrowed(_)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = rest.strip_prefix(COLOUR).and_then(|sequence| {
            let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            let end = sequence.get(end..)?.starts_with('m').then_some(end)?;
            Some(COLOUR.len() + end + 1)
        });
        let taken = colour.unwrap_or(c.len_utf8());
        let (piece, after) = rest.split_at(taken);
        if colour.is_some() || c == '\n' {
            out.push_str(piece);
        } else {
            out.push_str(&visible(piece));
        }
        rest = after;
    }
    Cow::Owned(out)
}

/// A line of the answer. A reader that has gone away is no error.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{}", harmless(&text.to_string()));
}

/// The answer as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => json_line(&text),
        Err(error) => note(format_args!("cannot write JSON: {error}")),
    }
}

/// A line that is JSON: byte for byte as it is for programs, and for people the same JSON with what is
/// invisible spelled out.
pub(crate) fn json_line(text: &str) {
    let shown = if to_terminal() {
        visible(text)
    } else {
        Cow::Borrowed(text)
    };
    let _ = writeln!(std::io::stdout(), "{shown}");
}

/// A line beside the answer.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", harmless(&text.to_string()));
}

/// Something doubtful, beside the answer.
pub(crate) fn warning(text: impl Display) {
    note(format_args!("warning: {text}"));
}

/// A question beside the answer; the cursor stays behind it.
pub(crate) fn ask(text: impl Display) {
    let mut err = std::io::stderr();
    let _ = write!(err, "{}", harmless(&text.to_string()));
    let _ = err.flush();
}

/// How far long work has come, in the place of what was said of it before.
pub(crate) fn progress(text: impl Display) {
    let mut err = std::io::stderr();
    let _ = write!(err, "\r{}", harmless(&text.to_string()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_and_lines_and_nothing_else_that_moves_it() {
        let plain = "a\u{1b}[1;31mred\u{1b}[0m\nb ü";
        assert_eq!(harmless(plain), plain);
        let cases = [
            ("\u{1b}]0;pwn\u{7}", "\\u001b]0;pwn\\u0007"),
            ("\u{1b}[2J", "\\u001b[2J"),
            ("\u{1b}[31", "\\u001b[31"),
            ("\u{1b}[?25l", "\\u001b[?25l"),
            ("\u{9b}2J\r\t\u{202e}", "\\u009b2J\\u000d\\u0009\\u202e"),
        ];
        for (text, wanted) in cases {
            assert_eq!(harmless(text), wanted);
        }
    }
}
