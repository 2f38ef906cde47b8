//! How commands speak to a service: whom they believe, and as whom they come.
//!
//! Plaintext is for this machine: a token, or what an operator asks, does not go over a network in the open.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http::Uri;
use reqwest::{Certificate, Client, Identity};
use tollgate_runtime::config::Env;

use crate::ca::Operator;

/// Certificates, at both ends.
#[derive(Debug, Clone, Default, Args)]
pub struct Https {
    /// The roots that the server's certificate is believed by, such as `tollgate ca bundle` prints [default: $TOLLGATE_CA, or the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our own certificate, for a server that asks who we are [default: $TOLLGATE_CERT]
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key [default: $TOLLGATE_KEY]
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Https {
    /// Our certificate and its key, if we have them.
    fn own(&self, env: &Env) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
        let of = |given: &Option<PathBuf>, name| given.clone().or_else(|| env.var(name).map(PathBuf::from));
        match (of(&self.cert, "TOLLGATE_CERT"), of(&self.key, "TOLLGATE_KEY")) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            _ => bail!(
                "a certificate and its key go together: --cert and --key, or TOLLGATE_CERT and TOLLGATE_KEY"
            ),
        }
    }

    /// Whether we can say who we are by a certificate.
    pub(crate) fn is_somebody(&self, env: &Env) -> anyhow::Result<bool> {
        Ok(self.own(env)?.is_some())
    }

    /// The roots that we were told to believe servers by.
    fn roots(&self, env: &Env) -> anyhow::Result<Option<Vec<Certificate>>> {
        let Some(file) = self.ca.clone().or_else(|| env.var("TOLLGATE_CA").map(PathBuf::from)) else {
            return Ok(None);
        };
        let roots = Certificate::from_pem_bundle(&read(&file)?);
        let roots = roots.with_context(|| format!("{} holds no certificates", file.display()))?;
        if roots.is_empty() {
            bail!("{} holds no certificate", file.display());
        }
        Ok(Some(roots))
    }

    /// A client for a service of `tollgate up`, who comes as the operator. The roots that we were told come first.
    pub(crate) fn client_of(
        &self,
        operator: &Operator,
        env: &Env,
        timeout: Duration,
    ) -> anyhow::Result<Client> {
        let roots = match self.roots(env)? {
            Some(roots) => roots,
            None => Certificate::from_pem_bundle(operator.roots.as_bytes())?,
        };
        let identity = Identity::from_pem(operator.identity.as_bytes())?;
        Ok(Client::builder().timeout(timeout).tls_certs_only(roots).identity(identity).build()?)
    }

    /// A client for `server`.
    pub(crate) fn client(&self, server: &str, env: &Env, timeout: Duration) -> anyhow::Result<Client> {
        refuse_plaintext(server)?;
        let mut builder = Client::builder().timeout(timeout);
        if let Some(roots) = self.roots(env)? {
            builder = builder.tls_certs_only(roots);
        }
        if let Some((cert, key)) = self.own(env)? {
            let mut pem = read(&cert)?;
            pem.push(b'\n');
            pem.extend(read(&key)?);
            let identity = Identity::from_pem(&pem);
            let both = || format!("{} and {} are no certificate and key", cert.display(), key.display());
            builder = builder.identity(identity.with_context(both)?);
        }
        Ok(builder.build()?)
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn refuse_plaintext(server: &str) -> anyhow::Result<()> {
    let uri: Uri =
        server.parse().with_context(|| format!("`{server}` is no address such as https://host:7003"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(()),
        (Some("http"), Some(host)) if is_here(host) => Ok(()),
        (Some("http"), Some(host)) => {
            bail!("{server}: plaintext is for this machine, and `{host}` is not; ask by https:// (--ca)")
        }
        _ => bail!("`{server}` is no address such as https://host:7003"),
    }
}

fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_over_a_network_in_the_open() {
        for (server, allowed) in [
            ("http://127.0.0.1:7003", true),
            ("http://localhost:7003", true),
            ("http://[::1]:7003", true),
            ("https://authz.example:7003", true),
            ("http://authz.example:7003", false),
            ("http://10.0.0.1:7003", false),
            ("http://localhost.example", false),
            ("authz.example:7003", false),
            ("ftp://localhost", false),
            ("", false),
        ] {
            assert_eq!(refuse_plaintext(server).is_ok(), allowed, "{server}");
        }
    }

    #[test]
    fn half_of_a_certificate_is_none() {
        let env = Env::of([("TOLLGATE_CERT".to_owned(), "a.crt".to_owned())]);
        assert!(Https::default().is_somebody(&env).is_err());
        let env = Env::of(
            [("TOLLGATE_CERT", "a.crt"), ("TOLLGATE_KEY", "a.key")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        assert!(Https::default().is_somebody(&env).unwrap());
        let missing = Https::default().client("https://a.example", &env, Duration::from_secs(1)).unwrap_err();
        assert!(missing.to_string().contains("a.crt"), "{missing}");
    }
}
