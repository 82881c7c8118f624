//! Diagnostics of the program itself, on standard error.
//!
//! What somebody else can cause must not fill the disk: each place of the program writes so many
//! lines in a span of time, and how many more there would have been.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::say;

/// Lines that one place writes within [`SPAN`]. A line has about 200 bytes: 17 MB a day from a
/// place that somebody keeps busy.
const LINES_MAX: u64 = 10;

/// The span of time.
const SPAN: Duration = Duration::from_secs(10);

/// Of which lines are counted together at most. The program has a few hundred; past it, everything
/// is one place.
const PLACES_MAX: usize = 1_024;

/// Says how many lines were left out; itself never left out.
const COUNT_TARGET: &str = "curfew::diagnostics";

/// Begins to write diagnostics. `CURFEW_LOG` says how much, `CURFEW_LOG_JSON=1` in which form.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("CURFEW_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,curfew=info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(say::errors_in_colour())
        // It would say so on standard error and panic where that fails too, as on a full disk.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let lines = if std::env::var_os("CURFEW_LOG_JSON").is_some_and(|on| on == "1") {
        lines.json().with_filter(Throttle::default()).boxed()
    } else {
        lines.with_filter(Throttle::default()).boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
}

/// Where in a program a line comes from: module and line.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Place(String, u32);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u64,
    left_out: u64,
}

/// Lets through so many lines of each place, and counts the rest.
#[derive(Clone, Debug, Default)]
struct Throttle(Arc<Mutex<BTreeMap<Place, Window>>>);

impl Throttle {
    fn windows(&self) -> MutexGuard<'_, BTreeMap<Place, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this line of a place may be written at `now`, and whether it is the first that may
    /// not.
    fn admit(&self, place: &mut Place, now: Instant) -> (bool, bool) {
        let mut windows = self.windows();
        if windows.len() >= PLACES_MAX && !windows.contains_key(place) {
            *place = Place::default();
        }
        let window = windows.entry(place.clone()).or_insert(Window {
            since: now,
            lines: 0,
            left_out: 0,
        });
        // What is still to be told of an earlier span is told by whoever waits for its end.
        if window.left_out == 0 && now.duration_since(window.since) >= SPAN {
            window.since = now;
            window.lines = 0;
        }
        if window.lines < LINES_MAX {
            window.lines += 1;
            return (true, false);
        }
        window.left_out += 1;
        (false, window.left_out == 1)
    }

    /// How many lines of a place were left out; a new span begins.
    fn count(&self, place: &Place) -> u64 {
        let window = self.windows().remove(place);
        window.map_or(0, |window| window.left_out)
    }

    /// Tells the count once the span is over, though no further line may come.
    fn tell_later(&self, place: Place) {
        let (throttle, counted) = (self.clone(), place.clone());
        let waiting = std::thread::Builder::new().name("diagnostics".to_owned());
        let told = waiting.spawn(move || {
            std::thread::sleep(SPAN);
            let left_out = throttle.count(&counted);
            let Place(module, line) = counted;
            tracing::warn!(
                target: COUNT_TARGET,
                left_out,
                place = %format_args!("{module}:{line}"),
                "more lines like those before were left out"
            );
        });
        if told.is_err() {
            // Without a thread to tell it, the lines go on.
            self.count(&place);
        }
    }
}

fn place(metadata: &Metadata<'_>) -> Place {
    Place(
        metadata.target().to_owned(),
        metadata.line().unwrap_or_default(),
    )
}

impl<S: Subscriber> Filter<S> for Throttle {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Lines of crates that use `log` all seem to come from one place otherwise.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if metadata.target() == COUNT_TARGET {
            return true;
        }
        let mut place = place(metadata);
        let (admitted, first_out) = self.admit(&mut place, Instant::now());
        if first_out {
            self.tell_later(place);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_writes_so_many_lines_and_the_rest_is_counted() {
        let throttle = Throttle::default();
        let mut busy = Place("busy".to_owned(), 1);
        let start = Instant::now();
        let admitted = (0..1_000).filter(|_| throttle.admit(&mut busy, start).0);
        assert_eq!(admitted.count() as u64, LINES_MAX);
        let mut quiet = Place("quiet".to_owned(), 1);
        assert_eq!(throttle.admit(&mut quiet, start), (true, false));
        assert_eq!(throttle.count(&busy), 1_000 - LINES_MAX);
        assert_eq!(throttle.admit(&mut busy, start), (true, false));
        // Only the first that is left out has the count told.
        let first = (0..100).filter(|_| throttle.admit(&mut busy, start).1);
        assert_eq!(first.count(), 1);
        // After a span without too many of them all is forgotten.
        for _ in 1..LINES_MAX {
            assert_eq!(throttle.admit(&mut quiet, start), (true, false));
        }
        assert_eq!(throttle.admit(&mut quiet, start + SPAN), (true, false));
        // Nobody fills memory with places.
        for line in 0..2_000 {
            throttle.admit(&mut Place("many".to_owned(), line), start);
        }
        assert!(throttle.windows().len() <= PLACES_MAX + 1);
    }
}
