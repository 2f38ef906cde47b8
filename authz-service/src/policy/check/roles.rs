//! Roles, their permissions, and the requests that permissions and denials speak of.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;
use tollgate_paths::Template;

use super::{Checker, NAME_RULE, is_name, key, no_such_role};
use crate::policy::model::{Methods, Permission, Role, Selector};
use crate::policy::object::{Kind, ObjectId};
use crate::policy::spec::{GrpcSpec, PermissionSpec, RoleSpec};

/// What was written about requests.
pub(super) struct Requests<'a> {
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    pub(super) methods: &'a [String],
    pub(super) paths: &'a [String],
    pub(super) grpc: Option<&'a GrpcSpec>,
    pub(super) hosts: &'a [String],
}

impl Checker<'_> {
    pub(super) fn role(&mut self, id: &ObjectId, spec: &RoleSpec) {
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
        let requests = Requests {
            namespace: &role.namespace,
            service: &spec.service,
            methods: &spec.methods,
            paths: &spec.paths,
            grpc: spec.grpc.as_ref(),
            hosts: &spec.hosts,
        };
        Permission {
            role: Arc::clone(role_key),
            role_name: Arc::clone(role_name),
            name: spec.name.as_str().into(),
            selector: self.selector(id, &format!("{at}."), &requests),
            scopes_all: spec.scopes.all.iter().map(SmolStr::from).collect(),
            scopes_any: spec.scopes.any.iter().map(SmolStr::from).collect(),
            when: self.when(id, &format!("{at}.when"), spec.when.as_ref()),
            dry_run: spec.dry_run,
        }
    }

    /// What a permission or a denial says about requests; `at` is empty or ends in a dot.
    pub(super) fn selector(&mut self, id: &ObjectId, at: &str, requests: &Requests<'_>) -> Selector {
        let Requests { namespace, service, methods, paths, grpc, hosts } = *requests;
        let service_key = (service != "*").then(|| {
            if self.find(&ObjectId::new(Kind::Service, namespace, service)).is_none() {
                let problem = format!("there is no service `{service}` in namespace `{namespace}`");
                self.fault(id, format!("{at}service"), problem);
            }
            format!("{namespace}/{service}").into()
        });
        let (methods, templates) = match grpc {
            Some(grpc) => {
                if !methods.is_empty() || !paths.is_empty() {
                    let problem = "stands instead of methods and paths: name requests in one of the two ways";
                    self.fault(id, format!("{at}grpc"), problem);
                }
                (Methods::new(["POST"]), self.grpc(id, at, grpc))
            }
            None => (self.methods(id, at, methods), self.paths(id, at, paths)),
        };
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect();
        Selector { service: service_key, methods, templates, hosts }
    }

    fn methods(&mut self, id: &ObjectId, at: &str, methods: &[String]) -> Methods {
        if methods.is_empty() {
            self.fault(id, format!("{at}methods"), "name the methods, or write [\"*\"] for all of them");
        }
        for (index, method) in methods.iter().enumerate() {
            if method.is_empty() || method.bytes().any(|byte| byte.is_ascii_lowercase() || byte <= b' ') {
                self.fault(id, format!("{at}methods[{index}]"), "methods are written in upper case");
            }
        }
        if methods.iter().any(|method| method == "*") {
            return Methods::default();
        }
        Methods::new(methods.iter().map(String::as_str))
    }

    fn paths(&mut self, id: &ObjectId, at: &str, paths: &[String]) -> Box<[Template]> {
        if paths.is_empty() {
            self.fault(id, format!("{at}paths"), "name the paths, or write [\"/{**}\"] for all of them");
        }
        let mut templates = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let template = Template::parse(path).map_err(|error| error.to_string());
            templates.extend(self.take(id, || format!("{at}paths[{index}]"), template));
        }
        templates.into()
    }

    /// gRPC is `POST /package.Service/Method` (the protocol's own rule), and names hold nothing that a path escapes.
    fn grpc(&mut self, id: &ObjectId, at: &str, grpc: &GrpcSpec) -> Box<[Template]> {
        if !grpc.service.split('.').all(is_identifier) {
            let problem = "write the service with its package, as in `shop.v1.Orders`";
            self.fault(id, format!("{at}grpc.service"), problem);
            return Box::default();
        }
        let mut methods: Vec<&str> = Vec::new();
        for (index, method) in grpc.methods.iter().enumerate() {
            if is_identifier(method) {
                methods.push(method);
            } else {
                let problem = "write the name of one method, as in `GetOrder`; leave methods out for all";
                self.fault(id, format!("{at}grpc.methods[{index}]"), problem);
            }
        }
        if grpc.methods.is_empty() {
            methods.push("{*}");
        }
        let paths = methods.iter().map(|method| format!("/{}/{method}", grpc.service));
        paths.map(|path| Template::parse(&path).expect("identifiers are segments in normal form")).collect()
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
}

/// A name as protobuf has them.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
