//! Roles and what they allow.

use std::sync::Arc;

use aws_lc_rs::digest;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tollgate_paths::Template;

use super::Methods;
use crate::policy::condition::Condition;

/// Named permissions.
#[derive(Debug)]
pub struct Role {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Keys of the roles that it includes by name.
    pub includes: Box<[Arc<str>]>,
    /// Its own permissions.
    pub permissions: Box<[Arc<Permission>]>,
}

/// Requests that a permission or a denial speaks of.
#[derive(Debug, PartialEq)]
pub struct Selector {
    /// `namespace/name` of a service, or `None` for all of the namespace.
    pub service: Option<Box<str>>,
    /// Methods.
    pub methods: Methods,
    /// Path templates.
    pub templates: Box<[Template]>,
    /// Hosts, in lower case; any when empty.
    pub hosts: Box<[Box<str>]>,
}

impl Selector {
    /// Whether it speaks of the service with this key.
    pub fn names_service(&self, key: &str) -> bool {
        self.service.as_deref().is_none_or(|service| *service == *key)
    }

    /// Whether it speaks of `host`.
    pub fn allows_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// One thing that a role allows.
#[derive(Debug, PartialEq)]
pub struct Permission {
    /// `namespace/name` of its role.
    pub role: Arc<str>,
    /// Its role's name alone.
    pub role_name: Arc<str>,
    /// Its name.
    pub name: Box<str>,
    /// What it allows.
    pub selector: Selector,
    /// Scopes all of which the token must have.
    pub scopes_all: SmallVec<[SmolStr; 1]>,
    /// Scopes one of which the token must have, unless empty.
    pub scopes_any: SmallVec<[SmolStr; 1]>,
    /// What must hold beside.
    pub when: Option<Box<Condition>>,
    /// Whether what it would allow is only recorded.
    pub dry_run: bool,
}

impl Permission {
    /// Whether it is held without any scope.
    pub fn needs_no_scopes(&self) -> bool {
        self.scopes_all.is_empty() && self.scopes_any.is_empty()
    }

    /// Whether a token with `scopes` has what is asked for.
    pub fn scopes_hold(&self, scopes: &[SmolStr]) -> bool {
        let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
        self.scopes_all.iter().all(|scope| has(scope))
            && (self.scopes_any.is_empty() || self.scopes_any.iter().any(|scope| has(scope)))
    }
}

/// A permission on a service, and the roles that give it. Bindings name a role alone: what a role includes is
/// worked out on this side, so that a change to a role touches no binding.
///
/// What is asked first lies in it, since in a large policy every look at something else waits for memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// What is allowed.
    pub permission: Arc<Permission>,
    /// Its own role and all roles that include that one, however far up.
    roles: SmallVec<[RoleTag; 1]>,
    methods: Methods,
    has_hosts: bool,
    dry_run: bool,
}

/// A role's key in two words: as with any cryptographic hash, nobody finds two keys with one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleTag([u64; 2]);

impl RoleTag {
    /// Of the role with this key.
    pub fn of(key: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, key.as_bytes());
        let word = |at: usize| {
            let bytes = digest.as_ref()[at..].first_chunk().expect("a digest has 32 bytes");
            u64::from_ne_bytes(*bytes)
        };
        Self([word(0), word(8)])
    }
}

impl Offer {
    /// A permission, and all roles that give it.
    pub fn new(permission: Arc<Permission>, roles: &[RoleTag]) -> Self {
        let Selector { methods, hosts, .. } = &permission.selector;
        Self {
            roles: roles.into(),
            methods: methods.clone(),
            has_hosts: !hosts.is_empty(),
            dry_run: permission.dry_run,
            permission,
        }
    }

    /// The methods that the permission speaks of.
    #[inline]
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Whether the permission speaks of some hosts alone.
    #[inline]
    pub const fn has_hosts(&self) -> bool {
        self.has_hosts
    }

    /// Whether what the permission would allow is only recorded.
    #[inline]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether holders of this role have the permission.
    #[inline]
    pub fn is_given_by(&self, role: RoleTag) -> bool {
        self.roles.contains(&role)
    }
}
