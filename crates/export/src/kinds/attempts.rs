//! Attempts by clients without a live session, told in numbers.

use curfew_entry::AttemptsSummarized;

use crate::facts::{Class, Decision, Facts, Severity};

/// Attempts that have no entries of their own.
pub(super) fn facts(told: &AttemptsSummarized) -> Facts {
    let counts = &told.counts;
    let named = [
        ("sign-ins refused", counts.sign_in_refused),
        ("uses after the end", counts.session_used_after_end),
        ("unknown credentials", counts.credential_unknown),
        ("credentials refused", counts.credential_refused),
        ("device codes refused", counts.device_refused),
    ];
    let named: Vec<String> = named
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let text = format!(
        "{} attempts without a live session since {}, from {} {}: {}",
        counts.total(),
        told.since,
        told.addresses,
        if told.addresses == 1 {
            "address"
        } else {
            "addresses at least"
        },
        named.join(", ")
    );
    super::plain(
        "attempts.summarized",
        Class::Finding,
        Severity::Medium,
        text,
    )
    .refused(Decision::Blocked)
}
