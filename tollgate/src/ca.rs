//! `tollgate ca`: the built-in certificate authority, for whoever holds the data folder.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tollgate_authz::Store;
use tollgate_authz::ca::{CaConfig, CertificateAuthority, Certified};
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::signing::Profile;
use tollgate_identity::spiffe_id::{SpiffeId, TrustDomain};
use tollgate_identity::{FreshKey, pem};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, duration};

use crate::commands::{DataFolder, say};
use crate::policy::database_url;
use crate::up::PAGE_FILE;

/// The trust domain of what `tollgate up` runs.
const DEMO_DOMAIN: &str = "tollgate.demo";
/// As whom the commands of this machine come to the services of `tollgate up`.
pub(crate) const OPERATOR_ID: &str = "spiffe://tollgate.demo/ns/tollgate-system/sa/operator";
/// A command is over sooner.
const OPERATOR_LIFE: Duration = Duration::from_secs(300);
/// How many certificates `list` shows.
const MOST_LISTED: u32 = 1000;
/// So much of a root's fingerprint tells it from the others.
const ROOT_DIGITS: usize = 12;

/// `tollgate ca …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign a certificate: writes tls.crt, tls.key and ca.crt. It is recorded with your name.
    Issue {
        /// Whose it is: spiffe://trust-domain/ns/NAMESPACE/sa/NAME
        #[arg(long, value_name = "SPIFFE-ID")]
        id: SpiffeId,
        /// The folder for the three files; made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A DNS name, for servers that are found by it. May be repeated.
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// An IP address, likewise.
        #[arg(long, value_name = "ADDRESS")]
        ip: Vec<IpAddr>,
        /// How long it is valid; at most as long as the authority allows.
        #[arg(long, value_parser = duration::parse)]
        ttl: Option<Duration>,
        #[command(flatten)]
        at: Place,
    },
    /// Print a token with which one workload gets its first certificate, once and within ten minutes.
    JoinToken {
        /// Whose it is.
        #[arg(long, value_name = "SPIFFE-ID")]
        id: SpiffeId,
        #[command(flatten)]
        at: Place,
    },
    /// Make the next root. It is trusted from now on and signs after the overlap; nothing is refused meanwhile.
    Rotate {
        #[command(flatten)]
        at: Place,
    },
    /// Print the roots to trust, as PEM.
    Bundle {
        #[command(flatten)]
        at: Place,
    },
    /// List the certificates in force: whose, since when, until when, by which proof and root.
    List {
        #[command(flatten)]
        at: Place,
    },
}

/// Which authority.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    data: DataFolder,
    /// The trust domain that it speaks for.
    #[arg(long, value_name = "NAME", default_value = DEMO_DOMAIN)]
    trust_domain: TrustDomain,
}

impl Place {
    async fn open(&self, env: &Env) -> anyhow::Result<(CertificateAuthority, Store)> {
        let data = self.data.path(env);
        let store = Store::open(&database_url(&data, env), Clock::system()).await?;
        let config = CaConfig::new(self.trust_domain.clone(), data.join("ca/wrapping.key"));
        let ca = CertificateAuthority::open(config, store.clone(), Clock::system()).await;
        Ok((ca.context("cannot open the certificate authority")?, store))
    }
}

/// Does what the command says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<()> {
    match command {
        Command::Issue { id, out, dns, ip, ttl, at } => {
            let (ca, store) = at.open(env).await?;
            let certified = issue(&ca, &id, &Profile { dns, ips: ip }, (ttl, &author(env)), &out).await?;
            store.close().await;
            say(&format!(
                "{id}: {}, valid until {}",
                out.join("tls.crt").display(),
                moment(certified.leaf.not_after)
            ));
        }
        Command::JoinToken { id, at } => {
            let (ca, store) = at.open(env).await?;
            let token = ca.join_token(&id, &author(env)).await?;
            store.close().await;
            say(&token.expose());
        }
        Command::Rotate { at } => {
            let (ca, store) = at.open(env).await?;
            let takes_over = ca.rotate(&author(env)).await?;
            store.close().await;
            say(&format!("the next root is trusted from now on and signs from {}", moment(takes_over)));
        }
        Command::Bundle { at } => {
            let (ca, store) = at.open(env).await?;
            say(roots_pem(&ca.bundle()).trim_end());
            store.close().await;
        }
        Command::List { at } => {
            let (_, store) = at.open(env).await?;
            let now = Clock::system().unix_seconds().cast_signed();
            for row in store.certificates(now, MOST_LISTED).await? {
                let (since, until) = (moment(row.issued_at), moment(row.not_after));
                let (id, serial, proof) = (&row.spiffe_id, &row.serial, &row.proof);
                let by =
                    if row.issued_by.is_empty() { String::new() } else { format!(" of {}", row.issued_by) };
                let root = row.root.get(..ROOT_DIGITS).unwrap_or(&row.root);
                say(&format!("{id}  {serial}  since {since}  until {until}  by {proof}{by}  root {root}"));
            }
            store.close().await;
        }
    }
    Ok(())
}

/// Signs a certificate for a new key, in the name of somebody, and writes `tls.crt`, `tls.key` and `ca.crt` into `out`.
pub async fn issue(
    ca: &CertificateAuthority,
    id: &SpiffeId,
    profile: &Profile,
    (ttl, by): (Option<Duration>, &str),
    out: &Path,
) -> anyhow::Result<Certified> {
    let (key, certified) = sign(ca, id, profile, (ttl, by)).await?;
    write(&out.join("tls.crt"), &pem::certificate(&certified.certificate), PUBLIC)?;
    write(&out.join("tls.key"), &key.private_key_pem(), PRIVATE)?;
    write(&out.join("ca.crt"), &roots_pem(&certified.roots), PUBLIC)?;
    Ok(certified)
}

async fn sign(
    ca: &CertificateAuthority,
    id: &SpiffeId,
    profile: &Profile,
    (ttl, by): (Option<Duration>, &str),
) -> anyhow::Result<(FreshKey, Certified)> {
    let key = FreshKey::generate(Some(id))?;
    let certified = ca.issue(&key.csr_der, id, profile, ttl, by).await?;
    Ok((key, certified))
}

/// Who holds the data folder of a `tollgate up`, as its services know him.
pub(crate) struct Operator {
    /// A certificate and its key.
    pub(crate) identity: String,
    /// The roots that the services are believed by.
    pub(crate) roots: String,
}

/// Signs a certificate for the operator, which is recorded and never written down. `None` unless `tollgate up` has been
/// run in `data`: a folder of another authority is left alone.
pub(crate) async fn operator(data: &Path, env: &Env) -> anyhow::Result<Option<Operator>> {
    if !data.join(PAGE_FILE).exists() {
        return Ok(None);
    }
    let at = Place { data: DataFolder::at(data), trust_domain: DEMO_DOMAIN.parse()? };
    let (ca, store) = at.open(env).await?;
    let by = (Some(OPERATOR_LIFE), &*author(env));
    let (key, certified) = sign(&ca, &OPERATOR_ID.parse()?, &Profile::default(), by).await?;
    store.close().await;
    let identity = pem::certificate(&certified.certificate) + &key.private_key_pem();
    Ok(Some(Operator { identity, roots: roots_pem(&certified.roots) }))
}

/// Who is at the keyboard, for the record.
fn author(env: &Env) -> String {
    format!("{} (data folder)", env.var("USER").unwrap_or("unknown"))
}

fn moment(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds).map_or_else(|_| unix_seconds.to_string(), |at| at.to_string())
}

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// Replaces a file whole, with its mode from the first byte on.
fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    use std::io::Write as _;

    let place = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(place)?;
    }
    let beside = file.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut new = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .with_context(place)?;
    new.write_all(text.as_bytes()).and_then(|()| new.sync_all()).with_context(place)?;
    std::fs::rename(&beside, file).with_context(place)
}

/// Writes a secret that only our user can read.
pub(crate) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    write(file, text, PRIVATE)
}

fn roots_pem(roots: &[CertificateDer<'_>]) -> String {
    roots.iter().map(pem::certificate).collect()
}
