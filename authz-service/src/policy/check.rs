//! From what people wrote to a [`Model`], with every fault named at once.
//!
//! The check is also what keeps namespaces apart. A role names services of its own namespace and a
//! binding names a role of its own, so whoever may write in one namespace can grant nothing in
//! another, and rights over Tollgate itself can only be granted in `tollgate-system`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tollgate_paths::Template;

use super::model::{
    Binding, Callers, Enforcer, Login, Model, Permission, Role, Service, Who, WorkloadPattern,
};
use super::object::{Document, Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};
use super::spec::{
    BindingSpec, EnforcerSpec, Mode, PermissionSpec, RoleSpec, ServiceSpec, UpstreamSpec, WhoSpec,
};
use crate::token::Issuer;

/// Longest name of an object, a permission or a namespace.
const MAX_NAME_BYTES: usize = 128;

/// The name of the admin API as a service of its own policy.
pub const ADMIN_SERVICE_NAME: &str = "admin";

/// The admin API as a service of its own policy.
pub fn admin_service() -> ObjectId {
    ObjectId::new(Kind::Service, SYSTEM_NAMESPACE, ADMIN_SERVICE_NAME)
}

/// What is wrong with an object, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// The object.
    pub object: ObjectId,
    /// The key within it, as in `permissions[0].paths[1]`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.key, self.problem)
    }
}

/// Checks a policy; all faults at once, so that a person mends a file in one go.
pub fn check(set: &PolicySet) -> Result<Model, Vec<Fault>> {
    check_within(set, &PolicySet::new())
}

/// Checks a part of a policy. What its objects refer to, and what their names must differ from, may also stand in
/// `around`, which is taken as good. An object that stands in both is the one in `set`.
pub fn check_within(set: &PolicySet, around: &PolicySet) -> Result<Model, Vec<Fault>> {
    let mut checker = Checker { set, around, faults: Vec::new(), model: Model::default() };
    for (id, document) in set {
        checker.check_name(id);
        match document {
            Document::Issuer(spec) => match Issuer::from_spec(spec) {
                Ok(issuer) => {
                    let issuer = Arc::new(issuer);
                    checker.model.issuers.insert(Arc::clone(&issuer.name), issuer);
                }
                Err((key, problem)) => checker.fault(id, key, problem),
            },
            Document::Enforcer(spec) => checker.enforcer(id, spec),
            Document::Service(spec) => checker.service(id, spec),
            Document::Role(spec) => checker.role(id, spec),
            Document::Binding(spec) => checker.binding(id, spec),
        }
    }
    checker.unique_names();
    if checker.faults.is_empty() { Ok(checker.model) } else { Err(checker.faults) }
}

/// What is odd but no fault: names of issuers that do not exist (yet).
pub fn warnings(set: &PolicySet) -> Vec<Fault> {
    let missing = |name: &str| !set.contains_key(&ObjectId::new(Kind::Issuer, "", name));
    let mut found = Vec::new();
    for (id, document) in set {
        let (key, names): (&str, Vec<&String>) = match document {
            Document::Service(spec) => ("issuers", spec.issuers.iter().collect()),
            Document::Binding(spec) => ("who.issuer", spec.who.issuer.iter().collect()),
            Document::Issuer(_) | Document::Enforcer(_) | Document::Role(_) => continue,
        };
        // Administrators by opaque token belong to an issuer that is no row.
        for name in names.into_iter().filter(|name| missing(name) && *name != crate::facts::ADMIN_ISSUER) {
            let problem = format!("there is no issuer `{name}`, so none of its tokens is accepted");
            found.push(Fault { object: id.clone(), key: key.to_owned(), problem });
        }
    }
    found
}

struct Checker<'a> {
    set: &'a PolicySet,
    around: &'a PolicySet,
    faults: Vec<Fault>,
    model: Model,
}

impl<'a> Checker<'a> {
    fn find(&self, id: &ObjectId) -> Option<&'a Document> {
        self.set.get(id).or_else(|| self.around.get(id))
    }

    fn role_of(&self, namespace: &str, name: &str) -> Option<&'a RoleSpec> {
        match self.find(&ObjectId::new(Kind::Role, namespace, name)) {
            Some(Document::Role(role)) => Some(role),
            _ => None,
        }
    }

    fn fault(&mut self, id: &ObjectId, key: impl Into<String>, problem: impl Into<String>) {
        self.faults.push(Fault { object: id.clone(), key: key.into(), problem: problem.into() });
    }

    /// Takes the value, or notes the fault and goes on without.
    fn take<T>(
        &mut self,
        id: &ObjectId,
        key: impl FnOnce() -> String,
        value: Result<T, String>,
    ) -> Option<T> {
        value.map_err(|problem| self.fault(id, key(), problem)).ok()
    }

    fn check_name(&mut self, id: &ObjectId) {
        if id.kind == Kind::Issuer && id.name == crate::facts::ADMIN_ISSUER {
            // Its tokens would be those of administrators.
            self.fault(id, "name", "this name is kept for holders of administrator tokens");
        }
        if !is_name(&id.name) {
            self.fault(id, "name", NAME_RULE);
        }
        if id.kind.is_namespaced() && !is_name(&id.namespace) {
            self.fault(id, "namespace", NAME_RULE);
        }
    }

    fn enforcer(&mut self, id: &ObjectId, spec: &EnforcerSpec) {
        let all = spec.services.is_empty() || spec.services.iter().any(|service| service == "*");
        let mut sources = Vec::new();
        for (index, source) in spec.sources.iter().enumerate() {
            let pattern = self.take(id, || format!("sources[{index}]"), WorkloadPattern::parse(source));
            sources.extend(pattern);
        }
        let name: Arc<str> = spec.name.as_str().into();
        let enforcer = Enforcer {
            name: Arc::clone(&name),
            point: spec.point,
            services: (!all).then(|| spec.services.iter().map(|service| service.as_str().into()).collect()),
            sources: sources.into(),
        };
        self.model.enforcers.insert(name, Arc::new(enforcer));
    }

    fn service(&mut self, id: &ObjectId, spec: &ServiceSpec) {
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
        self.upstream(id, spec.upstream);
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
            strip_params: spec.upstream.strip_params,
            login: spec
                .login
                .as_ref()
                .and_then(|login| self.take(id, || "login".to_owned(), Login::from_spec(login))),
        };
        self.model.services.insert(Arc::clone(&service.key), Arc::new(service));
    }

    /// Whoever says what an upstream does believes to be protected accordingly, so what is not read is refused.
    fn upstream(&mut self, id: &ObjectId, upstream: UpstreamSpec) {
        let UpstreamSpec { decode, decode_slash, merge, strip_params: _, fold_case } = upstream;
        let default = UpstreamSpec::default();
        for (name, said, only) in [
            ("decode", decode, default.decode),
            ("decode_slash", decode_slash, default.decode_slash),
            ("merge", merge, default.merge),
            ("fold_case", fold_case, default.fold_case),
        ] {
            if said != only {
                let problem = format!("`{said}` is not supported yet; leave it out, which means `{only}`");
                self.fault(id, format!("upstream.{name}"), problem);
            }
        }
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

    fn role(&mut self, id: &ObjectId, spec: &RoleSpec) {
        let role_key = key(&spec.namespace, &spec.name);
        let role_name: Arc<str> = spec.name.as_str().into();
        let mut permissions: Vec<Arc<Permission>> = Vec::new();
        for (index, permission) in spec.permissions.iter().enumerate() {
            let at = format!("permissions[{index}]");
            if permissions.iter().any(|other| *other.name == *permission.name) {
                self.fault(
                    id,
                    format!("{at}.name"),
                    format!("`{}` stands twice in this role", permission.name),
                );
            }
            let checked = self.permission(id, &at, spec, permission, (&role_key, &role_name));
            permissions.push(Arc::new(checked));
        }
        self.includes(id, spec);
        let role = Role {
            key: Arc::clone(&role_key),
            namespace: spec.namespace.as_str().into(),
            includes: spec.includes.iter().map(|name| key(&spec.namespace, name)).collect(),
            permissions: permissions.into(),
        };
        self.model.roles.insert(role_key, Arc::new(role));
    }

    fn permission(
        &mut self,
        id: &ObjectId,
        at: &str,
        role: &RoleSpec,
        spec: &PermissionSpec,
        (role_key, role_name): (&Arc<str>, &Arc<str>),
    ) -> Permission {
        if !is_name(&spec.name) {
            self.fault(id, format!("{at}.name"), NAME_RULE);
        }
        let service = (spec.service != "*").then(|| {
            if self.find(&ObjectId::new(Kind::Service, &role.namespace, &spec.service)).is_none() {
                let problem =
                    format!("there is no service `{}` in namespace `{}`", spec.service, role.namespace);
                self.fault(id, format!("{at}.service"), problem);
            }
            format!("{}/{}", role.namespace, spec.service).into()
        });
        if spec.methods.is_empty() {
            self.fault(id, format!("{at}.methods"), "name the methods, or write [\"*\"] for all of them");
        }
        for (index, method) in spec.methods.iter().enumerate() {
            if method.is_empty() || method.bytes().any(|byte| byte.is_ascii_lowercase() || byte <= b' ') {
                self.fault(id, format!("{at}.methods[{index}]"), "methods are written in upper case");
            }
        }
        if spec.paths.is_empty() {
            self.fault(id, format!("{at}.paths"), "name the paths, or write [\"/{**}\"] for all of them");
        }
        let mut templates = Vec::new();
        for (index, path) in spec.paths.iter().enumerate() {
            let template = Template::parse(path).map_err(|error| error.to_string());
            templates.extend(self.take(id, || format!("{at}.paths[{index}]"), template));
        }
        let any_method = spec.methods.iter().any(|method| method == "*");
        Permission {
            role: Arc::clone(role_key),
            role_name: Arc::clone(role_name),
            name: spec.name.as_str().into(),
            service,
            methods: if any_method { Box::default() } else { boxed(&spec.methods) },
            templates: templates.into(),
            hosts: spec.hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect(),
            scopes_all: boxed(&spec.scopes.all),
            scopes_any: boxed(&spec.scopes.any),
        }
    }

    /// What the role includes must exist. A circle is no fault of meaning, but surely one of writing.
    fn includes(&mut self, id: &ObjectId, spec: &RoleSpec) {
        let mut seen = BTreeSet::from([spec.name.as_str()]);
        let mut waiting: Vec<&RoleSpec> = vec![spec];
        while let Some(role) = waiting.pop() {
            for included in &role.includes {
                if included == &spec.name {
                    self.fault(id, "includes", format!("role `{}` includes itself", spec.name));
                } else if let Some(next) = self.role_of(&spec.namespace, included) {
                    if seen.insert(included) {
                        waiting.push(next);
                    }
                } else if role.name == spec.name {
                    self.fault(id, "includes", no_such_role(&spec.namespace, included));
                }
            }
        }
    }

    fn binding(&mut self, id: &ObjectId, spec: &BindingSpec) {
        if self.role_of(&spec.namespace, &spec.role).is_none() {
            self.fault(id, "role", no_such_role(&spec.namespace, &spec.role));
        }
        let (not_before, not_after) =
            (spec.not_before.map(|t| t.as_second()), spec.not_after.map(|t| t.as_second()));
        if not_before.zip(not_after).is_some_and(|(before, after)| before >= after) {
            self.fault(id, "not_after", "lies before not_before, so this binding would never grant anything");
        }
        let who = self.who(id, &spec.who);
        let binding = Binding {
            key: key(&spec.namespace, &spec.name),
            namespace: spec.namespace.as_str().into(),
            role: key(&spec.namespace, &spec.role),
            who,
            not_before,
            not_after,
        };
        self.model.bindings.insert(Arc::clone(&binding.key), Arc::new(binding));
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

    /// A host, an identity or an `iss` must lead to one object, or a request would have two meanings.
    fn unique_names(&mut self) {
        let mut hosts: BTreeMap<String, ObjectId> = BTreeMap::new();
        let (set, around) = (self.set, self.around);
        // Those around come first, so that the fault is that of an object which is checked.
        let around = around.iter().filter(|(id, _)| !set.contains_key(id));
        for (id, document) in around.chain(set) {
            let (key, names): (&str, Vec<String>) = match document {
                Document::Service(spec) => (
                    "hosts",
                    (spec.hosts.iter().map(|host| host.to_ascii_lowercase()))
                        .chain(spec.spiffe_id.clone())
                        .collect(),
                ),
                Document::Issuer(spec) => ("issuer", vec![format!("iss {}", spec.issuer)]),
                Document::Enforcer(_) | Document::Role(_) | Document::Binding(_) => continue,
            };
            for name in names {
                if let Some(other) = hosts.insert(name.clone(), id.clone()) {
                    self.fault(id, key, format!("`{name}` already belongs to {other}"));
                }
            }
        }
    }
}

const NAME_RULE: &str =
    "names are 1 to 128 letters, digits, `-`, `_` or `.`, and start with a letter or a digit";

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn no_such_role(namespace: &str, name: &str) -> String {
    format!("there is no role `{name}` in namespace `{namespace}`")
}

fn key(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}
