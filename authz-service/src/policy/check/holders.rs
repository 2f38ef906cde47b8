//! Who holds a role, who is denied something, and what was revoked.

use std::sync::Arc;

use jiff::Timestamp;

use super::roles::Requests;
use super::{Checker, key, no_such_role};
use crate::policy::model::{Binding, Denial, Period, Revocation, Revoked, Who, WorkloadPattern};
use crate::policy::object::ObjectId;
use crate::policy::spec::{BindingSpec, DenialSpec, RevocationSpec, WhoSpec};

/// Most bytes of a serial number (RFC 5280 §4.1.2.2), as hexadecimal digits.
const MAX_SERIAL_DIGITS: usize = 40;

impl Checker<'_> {
    pub(super) fn binding(&mut self, id: &ObjectId, spec: &BindingSpec) {
        if self.role_of(&spec.namespace, &spec.role).is_none() {
            self.fault(id, "role", no_such_role(&spec.namespace, &spec.role));
        }
        let binding = Binding {
            key: key(&spec.namespace, &spec.name),
            namespace: spec.namespace.as_str().into(),
            role: key(&spec.namespace, &spec.role),
            who: self.who(id, &spec.who),
            period: self.period(id, spec.not_before, spec.not_after),
            when: self.when(id, "when", spec.when.as_ref()),
            dry_run: spec.dry_run,
        };
        self.model.bindings.insert(Arc::clone(&binding.key), Arc::new(binding));
    }

    pub(super) fn denial(&mut self, id: &ObjectId, spec: &DenialSpec) {
        let requests = Requests {
            namespace: &spec.namespace,
            service: &spec.service,
            methods: &spec.methods,
            paths: &spec.paths,
            grpc: spec.grpc.as_ref(),
            hosts: &spec.hosts,
        };
        let denial = Denial {
            key: key(&spec.namespace, &spec.name),
            namespace: spec.namespace.as_str().into(),
            who: self.who(id, &spec.who),
            selector: self.selector(id, "", &requests),
            period: self.period(id, spec.not_before, spec.not_after),
            when: self.when(id, "when", spec.when.as_ref()),
            dry_run: spec.dry_run,
        };
        self.model.denials.insert(Arc::clone(&denial.key), Arc::new(denial));
    }

    pub(super) fn revocation(&mut self, id: &ObjectId, spec: &RevocationSpec) {
        let Some(what) = self.revoked(id, spec) else { return };
        let name: Arc<str> = spec.name.as_str().into();
        let issued_before = spec.issued_before.map(Timestamp::as_second);
        let revocation =
            Revocation { name: Arc::clone(&name), what, issued_before, until: spec.until.as_second() };
        self.model.revocations.insert(name, Arc::new(revocation));
    }

    fn revoked(&mut self, id: &ObjectId, spec: &RevocationSpec) -> Option<Revoked> {
        const ONE: &str = "give exactly one of jti, subject, client, key_id (with their issuer), workload and certificate_serial";
        type Make = fn(Arc<str>, Box<str>) -> Revoked;
        let by_issuer: [(&Option<String>, Make); 4] = [
            (&spec.jti, |issuer, id| Revoked::Token { issuer, id }),
            (&spec.subject, |issuer, subject| Revoked::Subject { issuer, subject }),
            (&spec.client, |issuer, client| Revoked::Client { issuer, client }),
            (&spec.key_id, |issuer, key| Revoked::Key { issuer, key }),
        ];
        let said = by_issuer.iter().filter_map(|(value, make)| Some((value.as_deref()?, make)));
        let mut by_issuer: Vec<_> = said.collect();
        let count = by_issuer.len()
            + usize::from(spec.workload.is_some())
            + usize::from(spec.certificate_serial.is_some());
        if count != 1 {
            self.fault(id, "name", ONE);
            return None;
        }
        if let Some((value, make)) = by_issuer.pop() {
            let Some(issuer) = spec.issuer.as_deref() else {
                self.fault(
                    id,
                    "issuer",
                    "say whose tokens: jti, subject, client and key_id count only with their issuer",
                );
                return None;
            };
            return Some(make(issuer.into(), value.into()));
        }
        for (key, given) in
            [("issuer", spec.issuer.is_some()), ("issued_before", spec.issued_before.is_some())]
        {
            if given {
                self.fault(id, key, "is about tokens, and what is revoked here is none; leave it out");
            }
        }
        if let Some(workload) = &spec.workload {
            let pattern = self.take(id, || "workload".to_owned(), WorkloadPattern::parse(workload));
            return pattern.map(Revoked::Workload);
        }
        let serial = spec.certificate_serial.as_deref().unwrap_or_default();
        let normal = normal_serial(serial).ok_or_else(|| {
            format!("`{serial}` is no serial number; write up to {MAX_SERIAL_DIGITS} hexadecimal digits")
        });
        self.take(id, || "certificate_serial".to_owned(), normal).map(Revoked::Certificate)
    }

    fn period(&mut self, id: &ObjectId, from: Option<Timestamp>, until: Option<Timestamp>) -> Period {
        let period = Period {
            from: from.map_or(i64::MIN, Timestamp::as_second),
            until: until.map_or(i64::MAX, Timestamp::as_second),
        };
        if period.from >= period.until {
            self.fault(id, "not_after", "lies before not_before, so this would never count");
        }
        period
    }

    fn who(&mut self, id: &ObjectId, spec: &WhoSpec) -> Who {
        let by_token = [&spec.subject, &spec.group, &spec.client];
        if spec.issuer.is_none() && by_token.iter().any(|said| said.is_some()) {
            let problem = "subject, group and client count only together with the issuer that says them";
            self.fault(id, "who.issuer", problem);
        }
        let nobody = spec.issuer.is_none() && spec.workload.is_none() && !spec.authenticated;
        if nobody && !spec.anyone {
            self.fault(id, "who", "says nobody; write `anyone: true` for everybody");
        } else if !nobody && spec.anyone {
            self.fault(id, "who.anyone", "stands alone: with it nothing else is asked");
        }
        let workload = spec.workload.as_deref().and_then(|workload| {
            self.take(id, || "who.workload".to_owned(), WorkloadPattern::parse(workload))
        });
        Who {
            issuer: spec.issuer.as_deref().map(Into::into),
            subject: spec.subject.as_deref().map(Into::into),
            group: spec.group.as_deref().map(Into::into),
            client: spec.client.as_deref().map(Into::into),
            workload,
            authenticated: spec.authenticated || spec.issuer.is_some(),
        }
    }
}

/// A serial number as digits that can be compared: lower case, without colons and leading zeros.
/// A serial number in its one spelling: lower case, without colons and leading zeros.
pub fn normal_serial(text: &str) -> Option<Box<str>> {
    let digits: String = text.chars().filter(|digit| *digit != ':').map(|d| d.to_ascii_lowercase()).collect();
    let well = !digits.is_empty()
        && digits.len() <= MAX_SERIAL_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    well.then(|| significant_digits(&digits).into())
}

/// A number without leading zeros.
pub fn significant_digits(digits: &str) -> &str {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() { "0" } else { significant }
}
