//! How many connections each person has to a database, so that nobody takes all that its server has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use curfew_entry::ResourceName;

type Counts = Mutex<HashMap<(String, ResourceName), usize>>;

/// The connections that stand, by person and database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd(Arc<Counts>);

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    counts: Arc<Counts>,
    key: (String, ResourceName),
}

impl Crowd {
    /// A place for one more connection of this person, unless `max` of them stand.
    pub(crate) fn enter(&self, person: &str, database: &ResourceName, max: usize) -> Option<Place> {
        let key = (person.to_owned(), database.clone());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= max.max(1) {
            return None;
        }
        *count += 1;
        Some(Place {
            counts: Arc::clone(&self.0),
            key,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_persons_own_and_comes_back() {
        let (crowd, orders) = (Crowd::default(), "orders".parse().unwrap());
        let first = crowd.enter("ana", &orders, 2).unwrap();
        let _second = crowd.enter("ana", &orders, 2).unwrap();
        assert!(crowd.enter("ana", &orders, 2).is_none());
        assert!(crowd.enter("bob", &orders, 2).is_some());
        assert!(crowd.enter("ana", &"other".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(crowd.enter("ana", &orders, 2).is_some());
    }
}
