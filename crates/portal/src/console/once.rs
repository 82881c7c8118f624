//! One answer to one form, however often a browser sends it.
//!
//! A double click sends a sign-in form twice, and a one-time code works once. So what is the same form
//! in the same browser is one attempt: whoever comes second waits for what comes of the first, and for
//! a minute gets the same where that was a sign-in.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long the same form gets the same answer: the time in which people press a button again.
const LIFE: Duration = Duration::from_secs(60);

/// Forms that are remembered: 1,024 of about 500 bytes are 0.5 MB. Those beyond are looked at each for
/// itself.
const FORMS_MAX: usize = 1_024;

/// A form in a browser, by a keyed hash of both.
pub(super) type Key = [u8; 32];

struct Form<T> {
    since: Instant,
    outcome: watch::Receiver<Option<T>>,
}

type Forms<T> = BTreeMap<Key, Form<T>>;

/// The forms that were sent lately.
pub(super) struct Once<T>(Arc<Mutex<Forms<T>>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> std::fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once")
    }
}

fn lock<T>(forms: &Mutex<Forms<T>>) -> MutexGuard<'_, Forms<T>> {
    // A panic while holding the map leaves it whole: each change is one insert or remove.
    forms.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone + Send + Sync + 'static> Once<T> {
    /// What comes of a form. `look` runs to its end even if whoever sent the form has gone: a browser
    /// that sends it again lets go of its first request. Only what `keep` says is remembered.
    ///
    /// Nothing where looking at it broke down.
    pub(super) async fn answer(
        &self,
        key: Key,
        keep: impl Fn(&T) -> bool + Send + 'static,
        look: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut outcome = self.join(key, keep, look);
        let outcome = outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }

    /// Forgets a form, so that it is looked at anew.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }

    fn join(
        &self,
        key: Key,
        keep: impl Fn(&T) -> bool + Send + 'static,
        look: impl Future<Output = T> + Send + 'static,
    ) -> watch::Receiver<Option<T>> {
        let mut forms = lock(&self.0);
        forms.retain(|_, form| form.since.elapsed() < LIFE);
        if let Some(form) = forms.get(&key) {
            return form.outcome.clone();
        }
        let (told, outcome) = watch::channel(None);
        let remembered = forms.len() < FORMS_MAX;
        if remembered {
            let outcome = outcome.clone();
            let since = Instant::now();
            forms.insert(key, Form { since, outcome });
        }
        drop(forms);
        let forms = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut forget = Forget {
                forms,
                key: Some(key),
            };
            let found = look.await;
            if remembered && keep(&found) {
                forget.key = None;
            }
            drop(forget);
            let _ = told.send(Some(found));
        });
        outcome
    }
}

/// Forgets a form when dropped, also where looking at it panicked.
struct Forget<T> {
    forms: Arc<Mutex<Forms<T>>>,
    key: Option<Key>,
}

impl<T> Drop for Forget<T> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            lock(&self.forms).remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_form_is_looked_at_once_while_it_is_under_way_and_kept_where_it_led_to_something() {
        let once = Arc::new(Once::<usize>::default());
        let looks = Arc::new(AtomicUsize::new(0));
        let answer = |kept: bool| {
            let (once, looks) = (Arc::clone(&once), Arc::clone(&looks));
            async move {
                let look = async move {
                    tokio::task::yield_now().await;
                    looks.fetch_add(1, Ordering::SeqCst)
                };
                once.answer([1; 32], move |_| kept, look).await
            }
        };
        let both = futures_util::future::join(answer(false), answer(false)).await;
        assert_eq!(both, (Some(0), Some(0)), "two at once are one");
        assert_eq!(answer(true).await, Some(1), "it came to nothing before");
        assert_eq!(answer(true).await, Some(1), "it came to something");
        once.forget(&[1; 32]);
        assert_eq!(answer(true).await, Some(2));
    }

    #[tokio::test]
    async fn whoever_leaves_does_not_stop_it_and_a_panic_is_told() {
        let once = Once::<u8>::default();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let look = async move { wait.await.map_or(0, |()| 7) };
        drop(once.join([2; 32], |_| true, look));
        go.send(()).unwrap();
        let again = once.answer([2; 32], |_| true, async { 8 }).await;
        assert_eq!(again, Some(7));
        let broken = once.answer([3; 32], |_| true, async { panic!("on purpose") });
        assert_eq!(broken.await, None);
        assert_eq!(once.answer([3; 32], |_| true, async { 9 }).await, Some(9));
    }
}
