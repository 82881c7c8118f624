//! Talking to a person at a terminal: passwords without echo, codes to scan.

use std::io::{BufRead, IsTerminal};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// Asks for a new password twice, without showing it.
pub(crate) fn new_password(of: &str) -> Outcome<String> {
    let first = password(&format!("New password for {of}: "))?;
    let second = password("Once more: ")?;
    if first != second {
        return Err(Failure::new(
            Exit::Usage,
            "the two passwords are not the same",
        ));
    }
    Ok(first)
}

/// Asks for a password without showing it.
pub(crate) fn password(question: &str) -> Outcome<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::hint(
            Exit::Usage,
            "a password is asked for at a terminal, and there is none",
            "give it on standard input with --password-stdin",
        ));
    }
    say::ask(question);
    let shown = tcgetattr(&stdin).doing("cannot ask the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).doing("cannot hide what is typed")?;
    let line = read_line();
    tcsetattr(&stdin, OptionalActions::Now, &shown).doing("cannot show again what is typed")?;
    line
}

/// The first line of standard input, without its end.
pub(crate) fn read_line() -> Outcome<String> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .doing("cannot read standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A QR code made of half blocks, for a terminal.
pub(crate) fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    // Light modules are drawn, so that it reads on a dark terminal.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(image)
}
