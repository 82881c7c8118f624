//! Ordered maps in 256 parts: one step finds the part, and few keys are left to look through.
//!
//! A session is looked for several times for each entry, and each time it is another one, so that the
//! levels of one large tree are what takes the time. The parts are trees themselves: however an
//! attacker chooses the keys, it is never slower than one tree, and the order is that of the keys.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use curfew_entry::SessionId;

/// How many parts there are: one for each value of a byte.
const PARTS: usize = 256;

/// A key that tells which part it is in.
pub(crate) trait Spread: Ord {
    /// The number of its part.
    fn part(&self) -> u8;
}

impl Spread for SessionId {
    /// Its first byte, which is random. Parts are thus in order of their keys.
    fn part(&self) -> u8 {
        self.first_byte()
    }
}

impl Spread for u64 {
    /// Its last byte, which differs most among numbers that were given one after the other.
    fn part(&self) -> u8 {
        self.to_le_bytes()[0]
    }
}

/// A map whose keys are spread over parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SpreadMap<K, V>(Box<[BTreeMap<K, V>; PARTS]>);

impl<K, V> Default for SpreadMap<K, V> {
    fn default() -> Self {
        Self(Box::new([const { BTreeMap::new() }; PARTS]))
    }
}

impl<K: Spread, V> SpreadMap<K, V> {
    fn part(&self, key: &K) -> &BTreeMap<K, V> {
        &self.0[usize::from(key.part())]
    }

    fn part_mut(&mut self, key: &K) -> &mut BTreeMap<K, V> {
        &mut self.0[usize::from(key.part())]
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.part(key).get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.part_mut(key).get_mut(key)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.part(key).contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.part_mut(&key).insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.part_mut(key).remove(key)
    }

    /// The value at `key`, which is the default where there was none.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.part_mut(&key).entry(key).or_default()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().flatten()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(BTreeMap::clear);
    }
}

/// In order of the keys.
impl<V> SpreadMap<SessionId, V> {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(BTreeMap::len).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SessionId, &V)> {
        self.0.iter().flatten()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// As one ordered map is kept.
impl<V: Serialize> Serialize for SpreadMap<SessionId, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for SpreadMap<SessionId, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Parts(PhantomData))
    }
}

/// Reads a map entry by entry.
struct Parts<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Parts<V> {
    type Value = SpreadMap<SessionId, V>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map by session")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = SpreadMap::default();
        while let Some((key, value)) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids that are spread, and ids of one part.
    fn ids() -> Vec<SessionId> {
        let id = |first: u64, last: u8| {
            let mut bytes = [last; 12];
            bytes[..8].copy_from_slice(&first.to_be_bytes());
            SessionId::from_random(bytes)
        };
        let spread = (1..=700_u64).map(|n| id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 7));
        spread.chain((0..200).map(|n| id(3, n))).collect()
    }

    #[test]
    fn it_is_kept_and_iterated_as_one_ordered_map_is() {
        let mut spread = SpreadMap::default();
        let mut plain = BTreeMap::new();
        for (number, id) in ids().into_iter().enumerate() {
            spread.insert(id.clone(), number);
            plain.insert(id, number);
        }
        for id in ids().iter().step_by(3) {
            assert_eq!(spread.remove(id), plain.remove(id));
            assert!(!spread.contains_key(id));
        }
        assert!(spread.iter().eq(plain.iter()) && spread.values().eq(plain.values()));
        assert_eq!(spread.len(), plain.len());
        let kept = serde_json::to_string(&spread).unwrap();
        assert_eq!(kept, serde_json::to_string(&plain).unwrap());
        let again: SpreadMap<SessionId, usize> = serde_json::from_str(&kept).unwrap();
        assert_eq!(again, spread);
        for id in ids() {
            assert_eq!(spread.get(&id), plain.get(&id));
            assert_eq!(spread.get_mut(&id), plain.get_mut(&id));
            *spread.get_or_default(id.clone()) += 1;
            *plain.entry(id).or_default() += 1;
        }
        assert!(spread.iter().eq(plain.iter()));
        spread.clear();
        assert_eq!(spread, SpreadMap::default());
    }
}
