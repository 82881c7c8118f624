//! The one place that prints.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this module is for"
)]

use std::time::Duration;

/// A heading before a step.
pub(crate) fn step(title: &str) {
    println!("\n▸ {title}");
}

/// A step that went well, and how long it took.
pub(crate) fn done(title: &str, took: Duration) {
    println!("✓ {title} ({:.1} s)", took.as_secs_f64());
}

/// A line to read.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}

/// A line for programs.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Something went wrong.
pub(crate) fn problem(text: &str) {
    eprintln!("xtask: {text}");
}
