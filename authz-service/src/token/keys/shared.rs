//! Secrets that we share with issuers that sign with HMAC.
//!
//! Whoever may read the policy must not be able to sign, so secrets are no part of it: an issuer names one, and the
//! configuration of this process holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tollgate_runtime::config::Secret;

use super::super::json;
use super::KeySet;

/// Key sets by the name that issuers use for them.
#[derive(Debug, Default, Clone)]
pub struct SharedSecrets(BTreeMap<String, Arc<KeySet>>);

impl SharedSecrets {
    /// Reads every secret; an error names the one that is wrong and says nothing of what is in it.
    pub fn read(configured: &BTreeMap<String, Secret>) -> Result<Self, (String, String)> {
        let read = |(name, secret): (&String, &Secret)| {
            let members = json::parse_object(secret.expose().as_bytes())
                .map_err(|_| (name.clone(), "is no JSON object".to_owned()))?;
            let keys = KeySet::parse_shared(&Value::Object(members)).map_err(|why| (name.clone(), why))?;
            Ok((name.clone(), Arc::new(keys)))
        };
        configured.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The secrets of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<KeySet>> {
        self.0.get(name)
    }
}
