//! Which decisions somebody asks for. All that is given must hold.

use tollgate_proto::Reason;

use super::Record;
use crate::policy::Verdict;

/// A conjunction; what is `None` is not asked.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The request's id.
    pub request_id: Option<String>,
    /// The token's subject.
    pub subject: Option<String>,
    /// The calling workload.
    pub peer: Option<String>,
    /// The answer.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reason: Option<Reason>,
    /// `namespace/name`, or a name alone.
    pub service: Option<String>,
}

impl Filter {
    /// Whether `record` is one of those.
    pub fn admits(&self, record: &Record) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        self.verdict.is_none_or(|verdict| verdict == record.verdict)
            && self.reason.is_none_or(|reason| reason == record.reason)
            && is(&self.request_id, record.request_id())
            && is(&self.subject, record.subject())
            && is(&self.peer, record.peer())
            && self.service.as_deref().is_none_or(|wanted| is_service(wanted, record.service()))
    }
}

fn is_service(wanted: &str, key: &str) -> bool {
    wanted == key || key.split_once('/').is_some_and(|(_, name)| name == wanted)
}
