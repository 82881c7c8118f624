//! An authority in a form that can be kept: its state alone, since all beside it can be made again.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Authority, State};

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            state: State::deserialize(deserializer)?,
            ..Self::default()
        })
    }
}

/// A policy is kept as its text and read again.
pub(super) mod policy {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::policy::Policy;

    pub(in super::super) fn serialize<S: Serializer>(
        policy: &Option<Policy>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        policy.as_ref().map(Policy::text).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Policy>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        // As it was when it took effect.
        let policy = Policy::parse("policy", &text).map_err(D::Error::custom)?;
        Ok(Some(policy))
    }
}
