//! What a session has been doing that has no entry of its own.
//!
//! The registrar looks at it when the session would be over, which is always a little after that
//! moment. Whoever is active then as well must not have been silent before because of it: what comes
//! after the end is held apart until the registrar has found that the session lives on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use curfew_entry::Timestamp;

/// The activity of one session, noted by all its planes.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
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

impl Beat {
    fn note(&mut self, at: Timestamp) {
        let newest = if at < self.end {
            &mut self.active
        } else {
            &mut self.late
        };
        *newest = at.max(*newest);
    }

    /// The last moment that counts.
    fn last(&self) -> Timestamp {
        Timestamp::from_micros(self.end.as_micros().saturating_sub(1))
    }
}

impl Pulse {
    /// Of a session that was last active at `active`, and is over at `end` unless it is again.
    pub(crate) fn new(active: Timestamp, end: Timestamp) -> Self {
        Self(Mutex::new(Beat {
            end,
            active,
            late: Timestamp::default(),
            running: 0,
            since: Timestamp::default(),
        }))
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The person did something.
    pub(crate) fn note(&self, at: Timestamp) {
        self.beat().note(at);
    }

    /// Something begins to run that the person started.
    pub(crate) fn begin(&self, at: Timestamp) {
        let mut beat = self.beat();
        if beat.running == 0 {
            beat.since = at;
        }
        beat.running = beat.running.saturating_add(1);
    }

    /// It is over. That is the newest activity.
    pub(crate) fn finish(&self, at: Timestamp) {
        let mut beat = self.beat();
        let last = beat.last();
        if beat.since <= last && last < at {
            beat.note(last);
        }
        beat.note(at);
        beat.running = beat.running.saturating_sub(1);
    }

    /// The session is over at another moment, by what has been recorded.
    pub(crate) fn ends(&self, end: Timestamp) {
        let mut beat = self.beat();
        let (active, late) = (beat.active, beat.late);
        (beat.active, beat.late) = Default::default();
        beat.end = end;
        beat.note(active);
        beat.note(late);
    }

    /// When the session was last active before its end, as seen at `now`. What came after does not
    /// count; something that began before and still runs was active up to it.
    pub(crate) fn active(&self, now: Timestamp) -> Timestamp {
        let beat = self.beat();
        let last = beat.last().min(now);
        if beat.running > 0 && beat.since <= last {
            last
        } else {
            // Something may have come since `now` was read.
            beat.active.min(now)
        }
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
        let pulse = Pulse::new(at(0), at(100));
        pulse.note(at(90));
        pulse.note(at(101));
        assert_eq!(pulse.active(at(102)), at(90));
        // The registrar has recorded that: now the rest counts too.
        pulse.ends(at(190));
        assert_eq!(pulse.active(at(103)), at(101));
        pulse.note(at(180));
        pulse.note(at(191));
        pulse.note(at(192));
        assert_eq!(pulse.active(at(193)), at(180));
        pulse.ends(at(280));
        assert_eq!(pulse.active(at(193)), at(192));
        // A moment ago.
        assert_eq!(pulse.active(at(150)), at(150));
        // Limits have become stricter: it is not told what came before.
        pulse.ends(at(120));
        assert_eq!(pulse.active(at(193)), at(0));
    }

    #[test]
    fn what_comes_after_the_end_alone_does_not_count() {
        let pulse = Pulse::new(at(5), at(100));
        pulse.note(at(100));
        assert_eq!(pulse.active(at(101)), at(5));
    }

    #[test]
    fn what_runs_is_active_up_to_the_end_though_it_stops_right_after() {
        let pulse = Pulse::new(at(5), at(100));
        pulse.begin(at(20));
        pulse.begin(at(30));
        assert_eq!(pulse.active(at(50)), at(50));
        assert_eq!(pulse.active(at(200)), at(99));
        pulse.finish(at(60));
        pulse.finish(at(101));
        assert_eq!(pulse.active(at(102)), at(99));
        // What begins after the end was not active before.
        let pulse = Pulse::new(at(5), at(100));
        pulse.begin(at(100));
        assert_eq!(pulse.active(at(101)), at(5));
        pulse.finish(at(102));
        assert_eq!(pulse.active(at(103)), at(5));
    }
}
