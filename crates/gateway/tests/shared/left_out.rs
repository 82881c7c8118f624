//! What becomes of a test whose tool is not here.
#![allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "what is left out is said; a test asks its environment where it runs"
)]

use std::env;

/// Says that a test is left out for want of `tool`, and why. Where `CI` is set, that is a failure: a
/// test that is not run proves nothing. What a CI cannot have it names in `CURFEW_WITHOUT`, with commas.
#[track_caller]
pub(crate) fn left_out(tool: &str, why: &str) {
    let ci = env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"));
    let known = env::var("CURFEW_WITHOUT").unwrap_or_default();
    let is_known = known.split(',').any(|known| known.trim() == tool);
    assert!(
        !ci || is_known,
        "not run: {why}. `cargo xtask test` installs what it can; CURFEW_WITHOUT={tool} leaves it out"
    );
    eprintln!("left out: {why}");
}
