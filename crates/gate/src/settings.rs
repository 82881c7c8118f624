//! What the configuration of every plane is written with.

use serde::Deserialize;

/// When the record of an action must be durable.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum RecordWhen {
    /// Writes wait for the record; for reads the answer waits.
    #[default]
    ByVerb,
    /// Everything waits for the record.
    Before,
}

/// A duration above zero and up to 30 days, written as `10s`, `15m`, `8h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Duration(pub std::time::Duration);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let refused = || {
            D::Error::custom(format!(
                "`{text}` is not a duration above zero and up to 30 days; write it like 10s, 15m or 8h"
            ))
        };
        let signed: jiff::SignedDuration = text.parse().map_err(|_| refused())?;
        let duration = std::time::Duration::try_from(signed).map_err(|_| refused())?;
        if duration.is_zero() || duration.as_secs() > 30 * 86_400 {
            return Err(refused());
        }
        Ok(Self(duration))
    }
}

/// The place in the file, what is wrong there, and what to do about it.
pub type Complaint<'a> = (&'a str, String, &'static str);
