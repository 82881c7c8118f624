//! What is noted of the wall clock.

use curfew_entry::{Event, WallClock};

use super::Authority;

impl Authority {
    /// That it is not kept in step any more, or is again, is said once. Where the last start said
    /// nothing of it, nothing has changed that anybody could tell.
    pub(super) fn watching(&self, wall: WallClock) -> Vec<Event> {
        match self.state.synced {
            Some(synced) if synced != wall.synced => vec![Event::ClockSyncChanged { wall }],
            Some(_) | None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{ClockSource, Entry, Timestamp};

    use super::*;
    use crate::command::Command;

    #[test]
    fn a_change_is_said_once_and_only_where_it_can_be_told() {
        let wall = |synced| WallClock {
            synced,
            offset_us: -3,
            error_us: 500,
        };
        let mut authority = Authority::new();
        let mut says = |command: Command| {
            let time = Timestamp::from_micros(5);
            let events = authority.decide(&command, time).events;
            for event in events.iter().cloned() {
                authority.apply(&Entry { time, event });
            }
            events.len()
        };
        let start = |wall| Command::StartGateway {
            version: "1".to_owned(),
            clock: ClockSource::Wall,
            boot_id: "b".to_owned(),
            boot_us: 0,
            wall,
        };
        let origin = "o".to_owned();
        says(Command::OpenLog { origin });
        says(start(None));
        assert_eq!(says(Command::WatchClock(wall(false))), 0);
        says(start(Some(wall(true))));
        assert_eq!(says(Command::WatchClock(wall(true))), 0);
        assert_eq!(says(Command::WatchClock(wall(false))), 1);
        assert_eq!(says(Command::WatchClock(wall(false))), 0);
        assert_eq!(says(Command::WatchClock(wall(true))), 1);
    }
}
