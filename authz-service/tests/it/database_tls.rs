//! PostgreSQL over TLS: it proves its name to us, or we do not speak to it.

use tollgate_authz::store::Store;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::authority::Authority;
use tollgate_testkit::postgres::PostgresServer;

async fn opens(url: &str) -> Result<(), String> {
    let store = Store::open(&Secret::new(url), Clock::system()).await.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(one) = cause {
            text.push_str(&format!(": {one}"));
            cause = one.source();
        }
        text
    })?;
    store.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_proves_its_name_to_our_roots() {
    let authority = Authority::new("database");
    let server = PostgresServer::start_with_tls(&authority, "localhost");
    let url = server.create_database("authz");
    assert!(url.contains("@localhost:") && url.contains("sslmode=verify-full"), "{url}");
    opens(&url).await.unwrap();

    // By another name than the certificate has.
    let refused = opens(&url.replace("@localhost:", "@127.0.0.1:")).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    // By roots that have not signed for it; and by none at all, which leaves those of the public web.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.crt");
    std::fs::write(&other, Authority::new("database").root_pem()).unwrap();
    let (start, _) = url.split_once("&sslrootcert=").unwrap();
    for wrong in [format!("{start}&sslrootcert={}", other.display()), start.to_owned()] {
        let refused = opens(&wrong).await.unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
        assert!(
            !refused.contains("postgres://postgres@localhost") || !refused.contains("secret"),
            "{refused}"
        );
    }
    // The server itself takes nobody in plaintext.
    let refused = opens(&start.replace("verify-full", "disable")).await.unwrap_err();
    assert!(refused.contains("no encryption") || refused.contains("pg_hba"), "{refused}");
}
