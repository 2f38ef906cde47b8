//! What is protected, and who may ask about it.

use std::sync::Arc;

use super::{Checker, admin_service, boxed, key};
use crate::policy::model::{Callers, Enforcer, Login, Service, WorkloadPattern};
use crate::policy::object::ObjectId;
use crate::policy::spec::{EnforcerSpec, Mode, ServiceSpec};

impl Checker<'_> {
    pub(super) fn enforcer(&mut self, id: &ObjectId, spec: &EnforcerSpec) {
        let all = spec.services.is_empty() || spec.services.iter().any(|service| service == "*");
        let mut sources = Vec::new();
        for (index, source) in spec.sources.iter().enumerate() {
            let pattern = self.take(id, || format!("sources[{index}]"), WorkloadPattern::parse(source));
            sources.extend(pattern);
        }
        let name: Arc<str> = spec.name.as_str().into();
        let enforcer = Enforcer {
            name: Arc::clone(&name),
            spiffe_id: spec.spiffe_id.as_deref().map(Arc::from),
            point: spec.point,
            services: (!all).then(|| spec.services.iter().map(|service| service.as_str().into()).collect()),
            sources: sources.into(),
        };
        self.model.enforcers.insert(name, Arc::new(enforcer));
    }

    pub(super) fn service(&mut self, id: &ObjectId, spec: &ServiceSpec) {
        let mut callers = Callers::default();
        let mut workloads = Vec::new();
        for (index, caller) in spec.callers.iter().enumerate() {
            if caller == "external" {
                callers.external = true;
            } else {
                let problem = |problem| format!("{problem}, or `external` for what entered by an ingress");
                let pattern = WorkloadPattern::parse(caller).map_err(problem);
                workloads.extend(self.take(id, || format!("callers[{index}]"), pattern));
            }
        }
        callers.workloads = workloads.into();
        if *id == admin_service() {
            self.admin_service(id, spec, &callers);
        }
        if let Some(spiffe_id) = &spec.spiffe_id {
            let exact = match WorkloadPattern::parse(spiffe_id) {
                Ok(WorkloadPattern::Exact(_)) => Ok(()),
                Ok(WorkloadPattern::Below(_)) => Err("one workload identity, not a pattern".to_owned()),
                Err(problem) => Err(problem),
            };
            self.take(id, || "spiffe_id".to_owned(), exact);
        }
        let service = Service {
            key: key(&spec.namespace, &spec.name),
            namespace: spec.namespace.as_str().into(),
            hosts: spec.hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect(),
            spiffe_id: spec.spiffe_id.as_deref().map(Into::into),
            callers,
            issuers: spec.issuers.iter().map(|issuer| issuer.as_str().into()).collect(),
            audiences: boxed(&spec.audiences),
            mode: spec.mode,
            upstream: spec.upstream.into(),
            login: spec
                .login
                .as_ref()
                .and_then(|login| self.take(id, || "login".to_owned(), Login::from_spec(login))),
        };
        self.model.services.insert(Arc::clone(&service.key), Arc::new(service));
    }

    /// The admin API must neither become unreachable nor open by a change that is made through it.
    fn admin_service(&mut self, id: &ObjectId, spec: &ServiceSpec, callers: &Callers) {
        if !callers.external {
            self.fault(id, "callers", "must contain `external`, or nobody could administer any more");
        }
        if spec.mode != Mode::Enforce {
            self.fault(id, "mode", "must be `enforce`, or everybody could administer");
        }
    }
}
