//! Ledger time: the wall clock read once, carried on by the boot clock.
//!
//! The boot clock (`CLOCK_BOOTTIME`) counts suspend and is never stepped, so a wall-clock step
//! can neither extend a session nor cut one short. A step is noticed by [`Clock::wall_offset_us`]
//! and becomes an entry.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use curfew_authority::Authority;
use curfew_entry::{ClockSource, Timestamp, WallClock};
use rtime_clock::adjtime::{Timex, adjtimex};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Bits of the kernel's clock status (linux/timex.h): nobody keeps the clock in step, and the offset is
/// in nanoseconds.
const STA_UNSYNC: i32 = 0x0040;
const STA_NANO: i32 = 0x2000;

/// Where the last entry of an existing ledger left the clocks.
#[derive(Clone, Debug)]
pub struct LastSeen {
    /// Time of the last entry.
    pub entry: Timestamp,
    /// From the last `gateway.started`: its time, boot id and boot clock.
    pub start: Option<(Timestamp, String, u64)>,
}

impl LastSeen {
    /// Where the entries that lead to this state left them.
    pub fn of(authority: &Authority) -> Self {
        let start = authority.last_start();
        Self {
            entry: authority.time(),
            start: start.map(|start| (start.time, start.boot_id.clone(), start.boot_us)),
        }
    }
}

/// The source of ledger time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Anchor>);

#[derive(Debug)]
struct Anchor {
    /// Ledger time minus boot clock, in microseconds.
    base_us: u64,
    source: ClockSource,
    boot_id: String,
    /// How far tests have moved time on, in microseconds.
    #[cfg(test)]
    skipped: tokio::sync::watch::Sender<u64>,
}

impl Anchor {
    /// Ledger time minus boot clock now, in microseconds.
    fn ahead_us(&self) -> u64 {
        #[cfg(test)]
        return self.base_us.saturating_add(*self.skipped.borrow());
        #[cfg(not(test))]
        self.base_us
    }
}

fn boottime_us() -> u64 {
    micros(clock_gettime(ClockId::Boottime))
}

fn wall_us() -> u64 {
    micros(clock_gettime(ClockId::Realtime))
}

/// The wall clock, for what happens while ledger time stands still.
pub fn wall_now() -> Timestamp {
    Timestamp::from_micros(wall_us())
}

fn micros(moment: Timespec) -> u64 {
    let secs = u64::try_from(moment.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(moment.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

impl Clock {
    /// Finds ledger time. On the same boot as the last start it goes on by the boot clock;
    /// otherwise by the wall clock, unless that stands before the last entry.
    pub fn start(last: Option<&LastSeen>) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default();
        let (boot, wall) = (boottime_us(), wall_us());
        let from_wall = (wall.saturating_sub(boot), ClockSource::Wall);
        let (base_us, source) = match last {
            None => from_wall,
            Some(last) => {
                let same_boot = last
                    .start
                    .as_ref()
                    .filter(|(_, id, _)| !boot_id.is_empty() && *id == boot_id);
                if let Some((at, _, boot_then)) = same_boot {
                    (at.as_micros().saturating_sub(*boot_then), ClockSource::Boot)
                } else if wall <= last.entry.as_micros() {
                    let next = last.entry.as_micros().saturating_add(1);
                    (next.saturating_sub(boot), ClockSource::LastEntry)
                } else {
                    from_wall
                }
            }
        };
        Self(Arc::new(Anchor {
            base_us,
            source,
            boot_id,
            #[cfg(test)]
            skipped: tokio::sync::watch::Sender::default(),
        }))
    }

    /// Moves time on, for tests that wait for a deadline. Timers that are set ring by it.
    #[cfg(test)]
    pub(crate) fn skip(&self, span: std::time::Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.0.skipped.send_modify(|skipped| *skipped += micros);
    }

    /// Ledger time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.ahead_us().saturating_add(boottime_us()))
    }

    /// How ledger time was found at start.
    pub fn source(&self) -> ClockSource {
        self.0.source
    }

    /// The kernel's boot id, empty where it cannot be read.
    pub fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    /// The boot clock at a moment of ledger time, in microseconds.
    pub fn boot_us(&self, at: Timestamp) -> u64 {
        at.as_micros().saturating_sub(self.0.ahead_us())
    }

    /// Wall clock minus ledger time, in microseconds.
    pub fn wall_offset_us(&self) -> i64 {
        let wall = i64::try_from(wall_us()).unwrap_or(i64::MAX);
        let ledger = i64::try_from(self.now().as_micros()).unwrap_or(i64::MAX);
        wall.saturating_sub(ledger)
    }
}

/// How the wall clock stands, where the kernel tells: in a sandbox it may not.
pub fn wall() -> Option<WallClock> {
    let mut timex = Timex::new();
    // Nothing is to be changed: it is only asked.
    adjtimex(&mut timex).ok()?;
    let timex = timex.0;
    let offset_us = if timex.status & STA_NANO == 0 {
        timex.offset
    } else {
        timex.offset / 1_000
    };
    Some(WallClock {
        synced: timex.status & STA_UNSYNC == 0,
        offset_us,
        error_us: u64::try_from(timex.maxerror).unwrap_or(0),
    })
}

/// Whether somebody keeps the wall clock in step with others, where the kernel tells.
pub fn is_clock_synced() -> Option<bool> {
    wall().map(|wall| wall.synced)
}

/// A timer on the boot clock with the kernel's own precision, where the runtime's wheel would
/// round up to a whole millisecond.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
    clock: Clock,
    #[cfg(test)]
    skips: tokio::sync::Mutex<tokio::sync::watch::Receiver<u64>>,
}

impl Alarm {
    /// A timer that is not set.
    pub fn new(clock: Clock) -> std::io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its soundness depends on the type; an OwnedFd always names the same open file"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self {
            fd,
            #[cfg(test)]
            skips: tokio::sync::Mutex::new(clock.0.skipped.subscribe()),
            clock,
        })
    }

    /// Sets the timer to ring at `at`, at once where that is past; `None` silences it.
    pub fn set(&self, at: Option<Timestamp>) -> std::io::Result<()> {
        // Zero would disarm the timer, so a moment in the past becomes the first microsecond.
        let boot = at.map_or(0, |at| self.clock.boot_us(at).max(1));
        let value = Timespec {
            tv_sec: i64::try_from(boot / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(boot % 1_000_000).unwrap_or(0) * 1_000,
        };
        let interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval: interval,
            it_value: value,
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }

    /// Waits until the timer rings. Whoever waits looks at the clock, and sets it again.
    pub async fn rung(&self) -> std::io::Result<()> {
        #[cfg(test)]
        {
            let mut skips = self.skips.lock().await;
            tokio::select! {
                rung = self.timer() => rung,
                _ = skips.changed() => Ok(()),
            }
        }
        #[cfg(not(test))]
        self.timer().await
    }

    async fn timer(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0_u8; 8];
            match rustix::io::read(self.fd.get_ref(), &mut count) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_on_the_same_boot_goes_on_by_the_boot_clock() {
        let first = Clock::start(None);
        assert_eq!(first.source(), ClockSource::Wall);
        let at = first.now();
        // The log says that ledger time was an hour ahead of the wall clock.
        let ahead = Timestamp::from_micros(at.as_micros() + 3_600_000_000);
        let last = LastSeen {
            entry: ahead,
            start: Some((ahead, first.boot_id().to_owned(), first.boot_us(at))),
        };
        let second = Clock::start(Some(&last));
        assert_eq!(second.source(), ClockSource::Boot);
        assert!(second.now() >= ahead);
        assert!(second.wall_offset_us() < -3_500_000_000);
    }

    #[test]
    fn time_never_runs_before_the_last_entry() {
        let future = Timestamp::from_micros(Clock::start(None).now().as_micros() + 1_000_000_000);
        let last = LastSeen {
            entry: future,
            start: Some((future, "another boot".into(), 1)),
        };
        let clock = Clock::start(Some(&last));
        assert_eq!(clock.source(), ClockSource::LastEntry);
        assert!(clock.now() > future);
    }

    #[tokio::test]
    async fn the_alarm_rings_at_its_time() {
        let clock = Clock::start(None);
        let alarm = Alarm::new(clock.clone()).unwrap();
        let at = Timestamp::from_micros(clock.now().as_micros() + 20_000);
        alarm.set(Some(at)).unwrap();
        alarm.rung().await.unwrap();
        assert!(clock.now() >= at);
        alarm.set(Some(Timestamp::from_micros(0))).unwrap();
        alarm.rung().await.unwrap();
    }
}
