//! Administrators with an opaque token, and how there comes to be a first one.
//!
//! ```text
//! no administrator ──write_bootstrap──> one-use token (1 h) ──bootstrap──> administrator + opaque token
//!                                                            recover ────> (whoever can write the database)
//! ```
//!
//! Tokens are 256 random bits, so a plain SHA-256 of them is as good as any slow hash.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tollgate_runtime::config::Secret;

use super::last_administrator::{ADMIN_ROLE, somebody_administers};
use super::sql::{Tx, Value};
use super::write::{Authorship, Change, next_epoch};
use super::{Store, StoreError, StoredSet, select};
use crate::facts::ADMIN_ISSUER;
use crate::policy::check::ADMIN_SERVICE_NAME;
use crate::policy::object::{Document, SYSTEM_NAMESPACE};
use crate::policy::snapshot::SecretHash;
use crate::policy::spec::{BindingSpec, Mode, PermissionSpec, RoleSpec, ServiceSpec, UpstreamSpec, WhoSpec};

/// How long the one-use token is good for.
const BOOTSTRAP_SECONDS: i64 = 3600;

/// Who holds an opaque token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// The subject.
    pub name: String,
    /// Of the token.
    pub hash: SecretHash,
}

/// A new opaque token; it is shown once and kept nowhere.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// Whose it is.
    pub name: String,
    /// The token.
    pub token: Secret,
    /// From which change on it is good.
    pub epoch: u64,
}

/// SHA-256.
pub fn hash_secret(secret: &str) -> SecretHash {
    let mut hash = SecretHash::default();
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

fn new_secret(prefix: &str) -> Secret {
    let bits: [u8; 32] = rand::random();
    Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bits)))
}

fn hex(hash: &SecretHash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn unhex(text: &str) -> Option<SecretHash> {
    let mut hash = SecretHash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

pub(super) async fn load(tx: &mut Tx) -> Result<Vec<Administrator>, StoreError> {
    let rows = tx.fetch("read administrators", "SELECT name, token_hash FROM admin_credentials", &[]).await?;
    rows.iter()
        .map(|row| {
            let (name, hash) = (row.text("name")?, row.text("token_hash")?);
            let bad =
                || StoreError::BadRow { what: format!("admin_credentials {name}"), problem: "hash".into() };
            Ok(Administrator { hash: unhex(&hash).ok_or_else(bad)?, name })
        })
        .collect()
}

impl Store {
    /// Where nobody administers yet, makes a new one-use token that can create the first administrator; an older
    /// one is void from then on.
    pub async fn new_bootstrap_token(&self) -> Result<Option<Secret>, StoreError> {
        let mut tx = self.database().begin().await?;
        tx.execute("remove the bootstrap token", "DELETE FROM bootstrap_token", &[]).await?;
        if somebody_administers(&mut tx).await? {
            tx.commit().await?;
            return Ok(None);
        }
        let token = new_secret("tgb_");
        let hash = hex(&hash_secret(token.expose()));
        let sql = "INSERT INTO bootstrap_token (id, token_hash, expires_at) VALUES (1, $1, $2)";
        let values = [Value::Text(&hash), Value::Int(self.now() + BOOTSTRAP_SECONDS)];
        tx.execute("keep the bootstrap token", sql, &values).await?;
        tx.commit().await?;
        Ok(Some(token))
    }

    /// Whether this is the one-use token, and still good.
    pub async fn is_bootstrap_token(&self, token: &str) -> Result<bool, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT id FROM bootstrap_token WHERE token_hash = $1 AND expires_at > $2";
        let hash = hex(&hash_secret(token));
        let values = [Value::Text(&hash), Value::Int(self.now())];
        Ok(!tx.fetch("look for the bootstrap token", sql, &values).await?.is_empty())
    }

    /// Makes the first administrator and uses the one-use token up, in one transaction.
    pub async fn bootstrap(&self, token: &str, name: &str) -> Result<IssuedToken, StoreError> {
        let mut tx = self.database().begin().await?;
        let epoch = next_epoch(&mut tx).await?;
        let sql = "DELETE FROM bootstrap_token WHERE token_hash = $1 AND expires_at > $2";
        let hash = hex(&hash_secret(token));
        let values = [Value::Text(&hash), Value::Int(self.now())];
        let used = tx.execute("use the bootstrap token", sql, &values).await?;
        if used == 0 || somebody_administers(&mut tx).await? {
            return Err(StoreError::BootstrapRefused);
        }
        self.create_administrator(tx, epoch, name, "bootstrap token").await
    }

    /// Makes an administrator for whoever can write the database, however many there are.
    pub async fn recover_administrator(&self, name: &str, author: &str) -> Result<IssuedToken, StoreError> {
        let mut tx = self.database().begin().await?;
        let epoch = next_epoch(&mut tx).await?;
        tx.execute("remove the bootstrap token", "DELETE FROM bootstrap_token", &[]).await?;
        self.create_administrator(tx, epoch, name, author).await
    }

    async fn create_administrator(
        &self,
        mut tx: Tx,
        epoch: u64,
        name: &str,
        author: &str,
    ) -> Result<IssuedToken, StoreError> {
        let sql = "SELECT name FROM admin_credentials WHERE name = $1";
        let taken = tx.fetch("look for the name", sql, &[Value::Text(name)]).await?;
        if !taken.is_empty() {
            return Err(StoreError::AdministratorExists(name.to_owned()));
        }
        let mut before = StoredSet::new();
        for id in builtin(name).map(|document| document.id()) {
            let stored = select::one(&mut tx, &id).await?;
            before.extend(stored.map(|stored| (id, stored)));
        }
        let changes: Vec<Change> = (builtin(name).into_iter())
            .map(|document| {
                let id = document.id();
                let stored = before.get(&id).map(|stored| &stored.document);
                // What somebody has made of the built-in service is theirs, as far as it lets administrators in and
                // nobody else; the role and the binding must be right.
                let wanted = match stored {
                    Some(Document::Service(stored)) => Document::Service(repaired(stored.clone())),
                    _ => document,
                };
                (id, wanted)
            })
            .filter(|(id, document)| before.get(id).map(|stored| &stored.document) != Some(document))
            .map(|(object, document)| Change {
                before: before.get(&object).map(|stored| stored.document.clone()),
                object,
                after: Some(document),
            })
            .collect();
        let by = Authorship::new(author, format!("administrator {name} created"));
        let token = new_secret("tga_");
        let hash = hex(&hash_secret(token.expose()));
        let (number, at) = (Value::Int(epoch.cast_signed()), Value::Int(self.now()));
        tx.execute(
            "keep the administrator",
            "INSERT INTO admin_credentials (name, token_hash, created_at, epoch) VALUES ($1, $2, $3, $4)",
            &[Value::Text(name), Value::Text(&hash), at, number],
        )
        .await?;
        // Only after this does the new administrator count as one who can administer.
        self.perform(&mut tx, epoch, &changes, &by).await?;
        tx.execute(
            "record the administrator",
            "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name) \
             VALUES ($1, $2, $3, $4, $5, 'Administrator', '', $6)",
            &[
                number,
                Value::Int(i64::try_from(changes.len()).unwrap_or(i64::MAX)),
                at,
                Value::Text(&by.author),
                Value::Text(&by.reason),
                Value::Text(name),
            ],
        )
        .await?;
        self.commit(tx, epoch).await?;
        Ok(IssuedToken { name: name.to_owned(), token, epoch })
    }
}

/// Who entered by an ingress; administrators do.
const EXTERNAL: &str = "external";

/// The built-in service as policy must have it, and otherwise as it was.
fn repaired(mut service: ServiceSpec) -> ServiceSpec {
    if !service.callers.iter().any(|caller| caller == EXTERNAL) {
        service.callers.push(EXTERNAL.to_owned());
    }
    service.mode = Mode::Enforce;
    service
}

/// The admin API as a service of its own policy, the role that may do everything, and who holds it.
fn builtin(administrator: &str) -> [Document; 3] {
    let namespace = SYSTEM_NAMESPACE.to_owned();
    let any = |text: &str| vec![text.to_owned()];
    [
        Document::Service(ServiceSpec {
            namespace: namespace.clone(),
            name: ADMIN_SERVICE_NAME.to_owned(),
            hosts: Vec::new(),
            spiffe_id: None,
            callers: any(EXTERNAL),
            issuers: Vec::new(),
            audiences: any("tollgate-admin"),
            mode: Mode::Enforce,
            login: None,
            upstream: UpstreamSpec::default(),
        }),
        Document::Role(RoleSpec {
            namespace: namespace.clone(),
            name: ADMIN_ROLE.to_owned(),
            includes: Vec::new(),
            permissions: vec![PermissionSpec {
                name: "everything".to_owned(),
                service: ADMIN_SERVICE_NAME.to_owned(),
                methods: any("*"),
                paths: any("/{**}"),
                ..PermissionSpec::default()
            }],
        }),
        Document::Binding(BindingSpec {
            namespace,
            name: format!("admin-{administrator}"),
            role: ADMIN_ROLE.to_owned(),
            who: WhoSpec {
                issuer: Some(ADMIN_ISSUER.to_owned()),
                subject: Some(administrator.to_owned()),
                ..WhoSpec::default()
            },
            ..BindingSpec::default()
        }),
    ]
}
