//! Takes values out of an entry before it is written, where the configuration says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use curfew_authority::Authority;
use curfew_entry::{Event, Field, SALT_BYTES};
use curfew_values::{Record, Store, ValuesError};

/// What is concealed, and where the values go.
#[derive(Clone, Debug)]
pub struct Concealer {
    /// Where the values are kept.
    pub store: Arc<Store>,
    /// What of entries is concealed.
    pub fields: BTreeSet<Field>,
}

impl Concealer {
    /// Leaves commitments in place of the values to be concealed, and stages these for the entry
    /// that will have this index. Whether there were any.
    pub(super) fn conceal(
        &self,
        event: &mut Event,
        index: u64,
        authority: &Authority,
    ) -> Result<bool, ValuesError> {
        if self.fields.is_empty() {
            return Ok(false);
        }
        let Some(session) = event.facets().session.cloned() else {
            return Ok(false);
        };
        let Some(action) = event.action_mut() else {
            return Ok(false);
        };
        let mut record = Record::default();
        for field in &self.fields {
            let mut salt = [0; SALT_BYTES];
            getrandom::fill(&mut salt).map_err(|_| ValuesError::Random)?;
            if let Some(value) = action.conceal(*field, &salt) {
                record.push(*field, salt, value);
            }
        }
        if record.is_empty() {
            return Ok(false);
        }
        // An action is one of a live session; of another nothing may be told either.
        let live = authority.session(&session).ok_or(ValuesError::Failed)?;
        self.store.stage(index, &live.subject, &record)?;
        Ok(true)
    }
}
