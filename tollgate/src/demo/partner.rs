//! The demo's partner outside the mesh: a TLS server with a certificate of its own authority, which knows nothing of ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::Router;
use axum::extract::Path as PathOf;
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, extract::State};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tollgate_identity::tls::{Clients, Door, DoorTls, ServerCertificate};
use tollgate_runtime::{Service, http_server};

use super::behaviour;
use crate::ca::write_private;

/// What it is called.
pub const HOST: &str = "credit-bureau.partner.test";
const NAME: &str = "credit-bureau";

/// Binds the credit bureau and serves it. Where it is, and the file with the root that it is known by.
pub fn serve(service: &Service, at: SocketAddr, data: &Path) -> anyhow::Result<(SocketAddr, PathBuf)> {
    let (certificate, root) = certificate(&data.join("demo"))?;
    let tls = DoorTls { certificates: vec![certificate], ..DoorTls::default() };
    let door = Door::bind(at, ("demo partner", "tls"), Some(&tls), Clients::None)?;
    let address = door.local_addr()?;
    let incoming = door.incoming(None, service)?;
    let router = behaviour::of(Router::new().route("/v1/scores/{id}", get(score)).with_state("1.0"));
    let tasks = service.tasks().clone();
    service.tasks().spawn("demo-partner", async move {
        http_server::serve_incoming(&tasks, incoming, router).await;
    });
    Ok((address, root))
}

async fn score(
    State(version): State<&'static str>,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
) -> Json<Value> {
    // Who asks is known by what the gateway says of us, and by nothing of whom we ask for.
    let partner = headers.get("x-partner").and_then(|value| value.to_str().ok());
    let credentials = ["authorization", "cookie", "x-forwarded-client-cert"];
    let told: Vec<_> = credentials.iter().filter(|name| headers.contains_key(**name)).collect();
    let score = 500 + id.bytes().map(u32::from).sum::<u32>() % 350;
    Json(
        json!({ "service": NAME, "version": version, "id": id, "score": score, "partner": partner, "credentials": told }),
    )
}

/// Files with a certificate for the partner's name, and with the root that signed it; new at each start.
fn certificate(folder: &Path) -> anyhow::Result<(ServerCertificate, PathBuf)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Partner Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &root)?;
    let file = |name: &str| folder.join(name);
    let (certificate, private, roots) = (file("partner.crt"), file("partner.key"), file("partner-ca.crt"));
    write_private(&certificate, &leaf.pem())?;
    write_private(&private, &key.serialize_pem())?;
    write_private(&roots, &root.pem()).context("the partner's root")?;
    let names = vec![HOST.to_owned()];
    Ok((ServerCertificate { names, certificate, key: private }, roots))
}
