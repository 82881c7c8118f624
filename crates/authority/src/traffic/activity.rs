//! What the person of a session has been doing that has no entry of its own.
//!
//! It is looked at when the session would be over, which is always a little after that moment.
//! Whoever is active then as well must not have been silent before because of it: what comes after
//! the end is held apart until it has been found that the session lives on.

use curfew_entry::Timestamp;

/// When the person of one session was last active.
#[derive(Clone, Debug)]
pub struct LastActivity {
    /// The session is over then, by what is recorded.
    end: Timestamp,
    /// The newest activity before that.
    active: Timestamp,
    /// The newest activity from then on; none before the epoch.
    late: Timestamp,
    /// How much is running that the person started.
    running: u32,
    /// Since when that has been above zero.
    since: Timestamp,
}

/// A handle to the activity of one session, held by all its planes and by [`super::Traffic`].
pub trait ActivityCell: Clone {
    /// A handle to this.
    fn new(activity: LastActivity) -> Self;

    /// Looks at it, or changes it.
    fn with<T>(&self, look: impl FnOnce(&mut LastActivity) -> T) -> T;
}

impl LastActivity {
    /// Of a session that was last active at `active`, and is over at `end` unless it is again.
    pub fn new(active: Timestamp, end: Timestamp) -> Self {
        Self {
            end,
            active,
            late: Timestamp::default(),
            running: 0,
            since: Timestamp::default(),
        }
    }

    /// The person did something.
    pub fn note(&mut self, at: Timestamp) {
        let newest = if at < self.end {
            &mut self.active
        } else {
            &mut self.late
        };
        *newest = at.max(*newest);
    }

    /// Something begins to run that the person started.
    pub fn begin(&mut self, at: Timestamp) {
        if self.running == 0 {
            self.since = at;
        }
        self.running = self.running.saturating_add(1);
    }

    /// It is over. That is the newest activity.
    pub fn finish(&mut self, at: Timestamp) {
        let last = self.last();
        if self.since <= last && last < at {
            self.note(last);
        }
        self.note(at);
        self.running = self.running.saturating_sub(1);
    }

    /// The session is over at another moment, by what has been recorded.
    pub(super) fn ends(&mut self, end: Timestamp) {
        let (active, late) = (self.active, self.late);
        (self.active, self.late) = Default::default();
        self.end = end;
        self.note(active);
        self.note(late);
    }

    /// When the session is over, as it was last told.
    pub(super) fn end(&self) -> Timestamp {
        self.end
    }

    /// When the session was last active before its end, as seen at `now`. What came after does not
    /// count; something that began before and still runs was active up to it.
    pub(super) fn active(&self, now: Timestamp) -> Timestamp {
        let last = self.last().min(now);
        if self.running > 0 && self.since <= last {
            last
        } else {
            // Something may have come since `now` was read.
            self.active.min(now)
        }
    }

    /// The last moment that counts.
    fn last(&self) -> Timestamp {
        Timestamp::from_micros(self.end.as_micros().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    #[test]
    fn what_comes_after_the_end_hides_nothing_that_was_before() {
        let mut activity = LastActivity::new(at(0), at(100));
        activity.note(at(90));
        activity.note(at(101));
        assert_eq!(activity.active(at(102)), at(90));
        // That has been recorded: now the rest counts too.
        activity.ends(at(190));
        assert_eq!(activity.active(at(103)), at(101));
        activity.note(at(180));
        activity.note(at(191));
        activity.note(at(192));
        assert_eq!(activity.active(at(193)), at(180));
        activity.ends(at(280));
        assert_eq!(activity.active(at(193)), at(192));
        // A moment ago.
        assert_eq!(activity.active(at(150)), at(150));
        // Limits have become stricter: it is not told what came before.
        activity.ends(at(120));
        assert_eq!(activity.active(at(193)), at(0));
    }

    #[test]
    fn what_comes_after_the_end_alone_does_not_count() {
        let mut activity = LastActivity::new(at(5), at(100));
        activity.note(at(100));
        assert_eq!(activity.active(at(101)), at(5));
    }

    #[test]
    fn what_runs_is_active_up_to_the_end_though_it_stops_right_after() {
        let mut activity = LastActivity::new(at(5), at(100));
        activity.begin(at(20));
        activity.begin(at(30));
        assert_eq!(activity.active(at(50)), at(50));
        assert_eq!(activity.active(at(200)), at(99));
        activity.finish(at(60));
        activity.finish(at(101));
        assert_eq!(activity.active(at(102)), at(99));
        // What begins after the end was not active before.
        let mut activity = LastActivity::new(at(5), at(100));
        activity.begin(at(100));
        assert_eq!(activity.active(at(101)), at(5));
        activity.finish(at(102));
        assert_eq!(activity.active(at(103)), at(5));
    }
}
