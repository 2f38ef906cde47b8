//! What the certificate authority keeps.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::sql::{Tx, Value};
use super::{Store, StoreError};
use crate::policy::check::normal_serial;
use crate::policy::model::WorkloadPattern;
use crate::policy::snapshot::SecretHash;

/// Tokens and certificates that ended are kept this long, to tell what happened.
const KEEP_SECONDS: i64 = 30 * 86_400;

/// A root with its sealed key; both in base64.
#[derive(Debug, Clone)]
pub struct NewRoot {
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// In DER.
    pub certificate: String,
    /// See `tollgate_identity::signing::WrappingKey`.
    pub sealed_key: String,
    /// Unix seconds.
    pub takes_over: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Who made it.
    pub created_by: String,
}

/// A join token.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Of its secret.
    pub hash: SecretHash,
    /// Whom it is for.
    pub spiffe_id: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// Who made it.
    pub created_by: String,
}

/// A certificate that was signed.
#[derive(Debug, Clone)]
pub struct NewCertificate {
    /// In hexadecimal.
    pub serial: String,
    /// Whose it is.
    pub spiffe_id: String,
    /// Fingerprint of the root that signed it.
    pub root: String,
    /// In DER, base64.
    pub certificate: String,
    /// SHA-256 of its public key, in hexadecimal.
    pub key_hash: String,
    /// How the id was proved.
    pub proof: &'static str,
    /// By whose doing.
    pub issued_by: String,
    /// Unix seconds.
    pub issued_at: i64,
    /// Unix seconds.
    pub attested_at: i64,
    /// Unix seconds.
    pub not_after: i64,
}

/// A certificate as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// In hexadecimal.
    pub serial: String,
    /// Whose it is.
    pub spiffe_id: String,
    /// Fingerprint of the root that signed it.
    pub root: String,
    /// In DER, base64.
    pub certificate: String,
    /// How the id was proved.
    pub proof: String,
    /// By whose doing: who made the token, or who signed. Renewals inherit it.
    pub issued_by: String,
    /// Unix seconds.
    pub issued_at: i64,
    /// Unix seconds.
    pub attested_at: i64,
    /// Unix seconds.
    pub not_after: i64,
}

/// A workload, or a certificate, that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCaller {
    /// A SPIFFE id, or a pattern ending in `/*`.
    pub workload: Option<String>,
    /// In hexadecimal.
    pub serial: Option<String>,
    /// Unix seconds.
    pub until: i64,
}

/// How a token was used.
#[derive(Debug, Clone)]
pub struct TokenUse {
    /// Unix seconds.
    pub at: i64,
    /// By which key.
    pub key_hash: String,
    /// For which certificate; in DER, base64.
    pub certificate: String,
}

/// A token in use: the transaction holds the write lock, so nobody else can use it meanwhile. Dropped, it was not used.
#[derive(Debug)]
pub struct Enrolment {
    tx: Tx,
    token_hash: String,
    /// Whom the token is for.
    pub spiffe_id: String,
    /// Who made it.
    pub created_by: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// If it was.
    pub used: Option<TokenUse>,
}

/// SHA-256 in hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA256, der).as_ref())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

impl Store {
    /// All roots, the oldest first.
    pub async fn ca_roots(&self) -> Result<Vec<NewRoot>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT fingerprint, certificate, sealed_key, takes_over, not_after, created_by FROM ca_roots \
                   ORDER BY takes_over, fingerprint";
        let rows = tx.fetch("read the roots", sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(NewRoot {
                    fingerprint: row.text("fingerprint")?,
                    certificate: row.text("certificate")?,
                    sealed_key: row.text("sealed_key")?,
                    takes_over: row.int("takes_over")?,
                    not_after: row.int("not_after")?,
                    created_by: row.text("created_by")?,
                })
            })
            .collect()
    }

    /// Adds a root; with `only_first`, only if there is none.
    pub async fn put_ca_root(&self, root: &NewRoot, only_first: bool) -> Result<(), StoreError> {
        let mut tx = self.database().begin().await?;
        // Two replicas that start at once must not make two first roots.
        lock(&mut tx).await?;
        if only_first && !tx.fetch("read the roots", "SELECT 1 AS one FROM ca_roots", &[]).await?.is_empty() {
            return tx.rollback().await;
        }
        let sql = "INSERT INTO ca_roots (fingerprint, certificate, sealed_key, takes_over, not_after, created_at, \
                   created_by) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            Value::Text(&root.fingerprint),
            Value::Text(&root.certificate),
            Value::Text(&root.sealed_key),
            Value::Int(root.takes_over),
            Value::Int(root.not_after),
            Value::Int(self.now()),
            Value::Text(&root.created_by),
        ];
        tx.execute("keep a root", sql, &values).await?;
        tx.commit().await
    }

    /// Keeps a join token, by its hash.
    pub async fn put_join_token(&self, token: &NewJoinToken) -> Result<(), StoreError> {
        let mut tx = self.database().begin().await?;
        let old = Value::Int(self.now() - KEEP_SECONDS);
        tx.execute("forget old tokens", "DELETE FROM join_tokens WHERE expires_at < $1", &[old]).await?;
        let sql = "INSERT INTO join_tokens (token_hash, spiffe_id, created_at, created_by, expires_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        let hash = hex(&token.hash);
        let values = [
            Value::Text(&hash),
            Value::Text(&token.spiffe_id),
            Value::Int(self.now()),
            Value::Text(&token.created_by),
            Value::Int(token.expires_at),
        ];
        tx.execute("keep a join token", sql, &values).await?;
        tx.commit().await
    }

    /// Takes the write lock and finds a token.
    pub async fn begin_enrolment(&self, hash: &SecretHash) -> Result<Option<Enrolment>, StoreError> {
        let token_hash = hex(hash);
        let mut tx = self.database().begin().await?;
        lock(&mut tx).await?;
        let sql = "SELECT t.spiffe_id, t.created_by, t.expires_at, t.used_at, t.key_hash, c.certificate FROM join_tokens t \
                   LEFT JOIN certificates c ON c.serial = t.serial WHERE t.token_hash = $1";
        let rows = tx.fetch("find a join token", sql, &[Value::Text(&token_hash)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let used = match row.optional_int("used_at")? {
            None => None,
            Some(at) => Some(TokenUse {
                at,
                key_hash: row.optional_text("key_hash")?.unwrap_or_default(),
                certificate: row.optional_text("certificate")?.unwrap_or_default(),
            }),
        };
        let (spiffe_id, created_by) = (row.text("spiffe_id")?, row.text("created_by")?);
        let expires_at = row.int("expires_at")?;
        Ok(Some(Enrolment { tx, token_hash, spiffe_id, created_by, expires_at, used }))
    }

    /// Records a certificate.
    pub async fn put_certificate(&self, certificate: &NewCertificate) -> Result<(), StoreError> {
        let mut tx = self.database().begin().await?;
        let old = Value::Int(self.now() - KEEP_SECONDS);
        tx.execute("forget old certificates", "DELETE FROM certificates WHERE not_after < $1", &[old])
            .await?;
        insert(&mut tx, certificate).await?;
        tx.commit().await
    }

    /// The certificate with this serial number.
    pub async fn certificate(&self, serial: &str) -> Result<Option<CertificateRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT * FROM certificates WHERE serial = $1";
        let rows = tx.fetch("find a certificate", sql, &[Value::Text(serial)]).await?;
        rows.first().map(certificate_row).transpose()
    }

    /// The name of a revocation of this workload or of this serial number, if there is one in force.
    pub async fn workload_revocation(
        &self,
        id: &str,
        serial: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT name, workload, certificate_serial, until FROM revocations \
                   WHERE workload IS NOT NULL OR certificate_serial IS NOT NULL";
        for row in tx.fetch("read revocations", sql, &[]).await? {
            let name = row.text("name")?;
            let bad = |problem: String| StoreError::BadRow { what: format!("revocations {name}"), problem };
            let until: jiff::Timestamp =
                row.text("until")?.parse().map_err(|error: jiff::Error| bad(error.to_string()))?;
            if until.as_second() <= self.now() {
                continue;
            }
            let workload = row.optional_text("workload")?.map(|text| WorkloadPattern::parse(&text));
            let this_workload = workload.transpose().map_err(bad)?.is_some_and(|pattern| pattern.matches(id));
            let revoked_serial = row.optional_text("certificate_serial")?;
            let revoked_serial = revoked_serial.as_deref().and_then(normal_serial);
            let this_serial = serial.is_some() && revoked_serial.as_deref() == serial;
            if this_workload || this_serial {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// What is revoked of workloads and certificates, at most `most`: patterns and serial numbers, each with its end.
    pub async fn caller_revocations(&self, most: u32) -> Result<Vec<RevokedCaller>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT name, workload, certificate_serial, until FROM revocations \
                   WHERE workload IS NOT NULL OR certificate_serial IS NOT NULL ORDER BY epoch DESC LIMIT $1";
        let mut found = Vec::new();
        for row in tx.fetch("read revocations", sql, &[Value::Int(i64::from(most))]).await? {
            let name = row.text("name")?;
            let bad = |problem: String| StoreError::BadRow { what: format!("revocations {name}"), problem };
            let until: jiff::Timestamp =
                row.text("until")?.parse().map_err(|error: jiff::Error| bad(error.to_string()))?;
            let serial = row.optional_text("certificate_serial")?;
            found.push(RevokedCaller {
                workload: row.optional_text("workload")?,
                serial: serial.as_deref().and_then(normal_serial).map(String::from),
                until: until.as_second(),
            });
        }
        Ok(found)
    }

    /// The certificates in force at `now`, by id and then the newest first; at most `most`.
    pub async fn certificates(&self, now: i64, most: u32) -> Result<Vec<CertificateRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql =
            "SELECT * FROM certificates WHERE not_after > $1 ORDER BY spiffe_id, issued_at DESC LIMIT $2";
        let values = [Value::Int(now), Value::Int(i64::from(most))];
        let rows = tx.fetch("read certificates", sql, &values).await?;
        rows.iter().map(certificate_row).collect()
    }

    /// The newest certificate of each workload whose id follows `after`, where it ends after `ends_after`; by id, at most
    /// `most`.
    pub async fn newest_certificates(
        &self,
        after: &str,
        ends_after: i64,
        most: u32,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT * FROM certificates c WHERE spiffe_id > $1 AND not_after > $2 AND NOT EXISTS (\
                   SELECT 1 FROM certificates n WHERE n.spiffe_id = c.spiffe_id AND (n.issued_at > c.issued_at \
                   OR (n.issued_at = c.issued_at AND n.serial > c.serial))) ORDER BY spiffe_id LIMIT $3";
        let values = [Value::Text(after), Value::Int(ends_after), Value::Int(i64::from(most))];
        let rows = tx.fetch("read the newest certificates", sql, &values).await?;
        rows.iter().map(certificate_row).collect()
    }
}

impl Enrolment {
    /// Uses the token up for `certificate`: both or neither.
    pub async fn finish(mut self, certificate: &NewCertificate) -> Result<(), StoreError> {
        insert(&mut self.tx, certificate).await?;
        let sql = "UPDATE join_tokens SET used_at = $1, key_hash = $2, serial = $3 WHERE token_hash = $4";
        let values = [
            Value::Int(certificate.issued_at),
            Value::Text(&certificate.key_hash),
            Value::Text(&certificate.serial),
            Value::Text(&self.token_hash),
        ];
        self.tx.execute("use a join token", sql, &values).await?;
        self.tx.commit().await
    }
}

pub(super) async fn lock(tx: &mut Tx) -> Result<(), StoreError> {
    // A statement that writes takes SQLite's lock, and this row's lock in PostgreSQL.
    tx.execute("take the write lock", "UPDATE epoch SET n = n WHERE id = 1", &[]).await.map(|_changed| ())
}

async fn insert(tx: &mut Tx, certificate: &NewCertificate) -> Result<(), StoreError> {
    let sql = "INSERT INTO certificates (serial, spiffe_id, root, certificate, key_hash, proof, issued_at, \
               attested_at, not_after, issued_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let values = [
        Value::Text(&certificate.serial),
        Value::Text(&certificate.spiffe_id),
        Value::Text(&certificate.root),
        Value::Text(&certificate.certificate),
        Value::Text(&certificate.key_hash),
        Value::Text(certificate.proof),
        Value::Int(certificate.issued_at),
        Value::Int(certificate.attested_at),
        Value::Int(certificate.not_after),
        Value::Text(&certificate.issued_by),
    ];
    tx.execute("record a certificate", sql, &values).await.map(|_changed| ())
}

fn certificate_row(row: &super::sql::Row) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        serial: row.text("serial")?,
        spiffe_id: row.text("spiffe_id")?,
        root: row.text("root")?,
        certificate: row.text("certificate")?,
        proof: row.text("proof")?,
        issued_at: row.int("issued_at")?,
        attested_at: row.int("attested_at")?,
        not_after: row.int("not_after")?,
        issued_by: row.text("issued_by")?,
    })
}
