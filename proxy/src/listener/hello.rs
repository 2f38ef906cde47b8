//! Which server a TLS client asks for, from the first bytes that it sends. Pure.

use rustls::server::Acceptor;

/// Bytes of a first message that are looked at; what takes more names no server here.
pub(super) const LONGEST: usize = 16 << 10;

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// More of them are needed.
    More,
    /// They ask for a server of this name.
    For(String),
    /// They ask for nobody by a name, or are no TLS.
    Nobody,
}

/// Reads a ClientHello, or what there is of it.
pub(super) fn read(mut bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) => Hello::For(name.to_ascii_lowercase()),
                    None => Hello::Nobody,
                };
            }
            Ok(None) if bytes.is_empty() => return Hello::More,
            Ok(None) => {}
            Err(_) => return Hello::Nobody,
        }
        if !matches!(acceptor.read_tls(&mut bytes), Ok(1..)) {
            return Hello::Nobody;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut said = Vec::new();
        ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut said).unwrap();
        said
    }

    #[test]
    fn the_name_is_read_once_all_is_there() {
        let said = hello("API.partner.test");
        assert_eq!(read(&said), Hello::For("api.partner.test".to_owned()));
        for short in [0, 1, 5, 100, said.len() - 1] {
            assert_eq!(read(&said[..short]), Hello::More, "{short}");
        }
    }

    #[test]
    fn addresses_are_no_names_and_nonsense_is_nothing() {
        assert_eq!(read(&hello("192.0.2.1")), Hello::Nobody);
        assert_eq!(read(b"\x16\x03\x01\x00\x05hello"), Hello::Nobody);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::Nobody);
    }
}
