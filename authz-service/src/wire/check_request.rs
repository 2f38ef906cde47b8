//! A `CheckRequest`, read where it lies.
//!
//! Decoding every header, peer and label into strings and maps of their own costs more than deciding, so a Check is read as
//! views into the message that came. The numbers of fields are Envoy's (`envoy.service.auth.v3.AttributeContext`); fields
//! that mean nothing here are passed over, as any reader of protobuf does. Where a field comes twice the last one counts,
//! and a message that comes in pieces is one message (protobuf's encoding guide, "Last One Wins").

use std::net::IpAddr;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends in the middle of a field.
    #[error("the message is cut off")]
    CutOff,
    /// A tag or a length that is none.
    #[error("the message has a field that is none")]
    Field,
    /// A text that is not UTF-8.
    #[error("the message has a text that is not UTF-8")]
    Text,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckRequest<'m> {
    /// Who calls.
    pub source: Peer<'m>,
    /// Whom.
    pub destination: Peer<'m>,
    /// The request; `None` where the question is about a connection.
    pub http: Option<Http<'m>>,
    /// The server name that the client's TLS asked for.
    pub server_name: &'m str,
    /// What the route's configuration says.
    pub context_extensions: Pairs<'m>,
}

/// One end of the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer<'m> {
    /// The address, where it is one of IP.
    pub address: Option<IpAddr>,
    /// The identity from its certificate.
    pub principal: &'m str,
    /// The certificate itself, escaped PEM.
    pub certificate: &'m str,
}

/// `AttributeContext.HttpRequest`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http<'m> {
    /// The method.
    pub method: &'m str,
    /// Headers, several lines of one joined.
    pub headers: Pairs<'m>,
    /// Path and query.
    pub path: &'m str,
    /// The host.
    pub host: &'m str,
    /// The scheme.
    pub scheme: &'m str,
    /// Headers line by line, with `encode_raw_headers`.
    pub lines: Vec<Line<'m>>,
}

/// `envoy.config.core.v3.HeaderValue`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line<'m> {
    /// The name, in lower case.
    pub key: &'m str,
    /// The value, unless it is in `raw`.
    pub value: &'m str,
    /// The value as bytes.
    pub raw: &'m [u8],
}

/// A map of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs<'m>(Vec<(&'m str, &'m str)>);

impl<'m> Pairs<'m> {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&'m str> {
        // There are some dozens at most, and lengths tell most of them apart.
        self.0.iter().rev().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'m str> + '_ {
        self.0.iter().map(|(key, _)| *key)
    }
}

impl<'m> CheckRequest<'m> {
    /// Reads a message. `None` where it has no attributes.
    pub fn read(message: &'m [u8]) -> Result<Option<Self>, Malformed> {
        let mut request = None;
        for field in Fields(message) {
            if let (1, attributes) = field? {
                request.get_or_insert_with(Self::default).read_attributes(attributes.bytes()?)?;
            }
        }
        Ok(request)
    }

    fn read_attributes(&mut self, attributes: &'m [u8]) -> Result<(), Malformed> {
        for field in Fields(attributes) {
            match field? {
                (1, source) => self.source.read(source.bytes()?)?,
                (2, destination) => self.destination.read(destination.bytes()?)?,
                (4, request) => {
                    for field in Fields(request.bytes()?) {
                        if let (2, http) = field? {
                            self.http.get_or_insert_default().read(http.bytes()?)?;
                        }
                    }
                }
                (10, extension) => self.context_extensions.0.push(pair(extension.bytes()?)?),
                (12, session) => {
                    for field in Fields(session.bytes()?) {
                        if let (1, name) = field? {
                            self.server_name = name.text()?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'m> Peer<'m> {
    fn read(&mut self, peer: &'m [u8]) -> Result<(), Malformed> {
        for field in Fields(peer) {
            match field? {
                (1, address) => {
                    for field in Fields(address.bytes()?) {
                        match field? {
                            (1, socket) => self.read_socket(socket.bytes()?)?,
                            // A pipe, and an address within Envoy.
                            (2 | 3, _) => self.address = None,
                            _ => {}
                        }
                    }
                }
                (4, principal) => self.principal = principal.text()?,
                (5, certificate) => self.certificate = certificate.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_socket(&mut self, socket: &[u8]) -> Result<(), Malformed> {
        for field in Fields(socket) {
            if let (2, address) = field? {
                self.address = address.text()?.parse().ok();
            }
        }
        Ok(())
    }
}

impl<'m> Http<'m> {
    fn read(&mut self, http: &'m [u8]) -> Result<(), Malformed> {
        for field in Fields(http) {
            match field? {
                (2, method) => self.method = method.text()?,
                (3, header) => {
                    if self.headers.0.is_empty() {
                        self.headers.0.reserve(USUAL_HEADERS);
                    }
                    self.headers.0.push(pair(header.bytes()?)?);
                }
                (4, path) => self.path = path.text()?,
                (5, host) => self.host = host.text()?,
                (6, scheme) => self.scheme = scheme.text()?,
                (13, map) => {
                    for field in Fields(map.bytes()?) {
                        if let (1, line) = field? {
                            self.lines.push(Line::read(line.bytes()?)?);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A browser's request has about so many.
const USUAL_HEADERS: usize = 32;

impl<'m> Line<'m> {
    fn read(line: &'m [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields(line) {
            match field? {
                (1, key) => read.key = key.text()?,
                (2, value) => read.value = value.text()?,
                (3, raw) => read.raw = raw.bytes()?,
                _ => {}
            }
        }
        Ok(read)
    }
}

/// An entry of a map, which on the wire is a message of key and value.
fn pair(entry: &[u8]) -> Result<(&str, &str), Malformed> {
    let mut pair = ("", "");
    for field in Fields(entry) {
        match field? {
            (1, key) => pair.0 = key.text()?,
            (2, value) => pair.1 = value.text()?,
            _ => {}
        }
    }
    Ok(pair)
}

/// The fields of a message, one by one, with their numbers. After a fault there is nothing more.
struct Fields<'m>(&'m [u8]);

/// What a field holds, as far as its wire type tells.
enum Value<'m> {
    /// A text, bytes or a message.
    Bytes(&'m [u8]),
    /// A number.
    Number,
}

impl<'m> Value<'m> {
    fn bytes(self) -> Result<&'m [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number => Err(Malformed::Field),
        }
    }

    fn text(self) -> Result<&'m str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Text)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u32, Value<'m>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'m> Fields<'m> {
    #[inline]
    fn field(&mut self) -> Result<(u32, Value<'m>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number != 0).ok_or(Malformed::Field)?;
        let value = match tag & 7 {
            0 => self.varint().map(|_| Value::Number)?,
            1 => self.take(8).map(|_| Value::Number)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed::CutOff)?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Number)?,
            // Groups, which no message of Envoy's has.
            _ => return Err(Malformed::Field),
        };
        Ok((number, value))
    }

    fn take(&mut self, len: usize) -> Result<&'m [u8], Malformed> {
        let (taken, left) = self.0.split_at_checked(len).ok_or(Malformed::CutOff)?;
        self.0 = left;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (index, byte) in self.0.iter().enumerate().take(MAX_VARINT_BYTES) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if index + 1 == MAX_VARINT_BYTES && *byte > 1 {
                    return Err(Malformed::Field);
                }
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < MAX_VARINT_BYTES { Malformed::CutOff } else { Malformed::Field })
    }
}

/// 64 bits, seven to a byte.
const MAX_VARINT_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tollgate_proto::envoy_types::pb::envoy::config::core::v3::address::Address as Of;
    use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{
        Address, HeaderMap, HeaderValue, SocketAddress,
    };
    use tollgate_proto::envoy_types::pb::envoy::service::auth::v3 as envoy;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[ -~]{1,12}", "\\PC{0,40}"]
    }

    fn pairs() -> impl Strategy<Value = std::collections::HashMap<String, String>> {
        prop::collection::hash_map(text(), text(), 0..6)
    }

    prop_compose! {
        fn peer()(principal in text(), certificate in text(), service in text(), labels in pairs(),
            address in prop_oneof![text(), Just("10.1.2.3".to_owned()), Just("::1".to_owned())], has in any::<bool>())
            -> envoy::attribute_context::Peer
        {
            let socket = SocketAddress { address, ..SocketAddress::default() };
            envoy::attribute_context::Peer {
                address: has.then_some(Address { address: Some(Of::SocketAddress(socket)) }),
                service, labels, principal, certificate,
            }
        }
    }

    prop_compose! {
        fn http()(
            texts in prop::collection::vec(text(), 8),
            headers in pairs(),
            lines in prop::collection::vec((text(), text(), prop::collection::vec(any::<u8>(), 0..9)), 0..4),
            size in any::<i64>(), raw_body in prop::collection::vec(any::<u8>(), 0..40),
        ) -> envoy::attribute_context::HttpRequest {
            let [id, method, path, host, scheme, query, protocol, body] = texts.try_into().unwrap();
            let line = |(key, value, raw_value)| HeaderValue { key, value, raw_value };
            envoy::attribute_context::HttpRequest {
                id, method, headers, path, host, scheme, query, protocol, body, size, raw_body,
                header_map: (!lines.is_empty()).then(|| HeaderMap { headers: lines.into_iter().map(line).collect() }),
                ..envoy::attribute_context::HttpRequest::default()
            }
        }
    }

    prop_compose! {
        fn message()(source in prop::option::of(peer()), destination in prop::option::of(peer()),
            http in prop::option::of(http()), context_extensions in pairs(), has in any::<bool>(),
            sni in prop::option::of(text()))
            -> envoy::CheckRequest
        {
            let tls_session = sni.map(|sni| envoy::attribute_context::TlsSession { sni });
            let request = Some(envoy::attribute_context::Request { http, ..Default::default() });
            envoy::CheckRequest {
                attributes: has.then(|| envoy::AttributeContext {
                    source, destination, request, context_extensions, tls_session, ..envoy::AttributeContext::default()
                }),
            }
        }
    }

    fn same(read: Option<&CheckRequest<'_>>, message: &envoy::CheckRequest) {
        let (Some(read), Some(attributes)) = (read, &message.attributes) else {
            return assert!(read.is_none() && message.attributes.is_none());
        };
        for (read, peer) in [(&read.source, &attributes.source), (&read.destination, &attributes.destination)]
        {
            let peer = peer.clone().unwrap_or_default();
            assert_eq!((read.principal, read.certificate), (&*peer.principal, &*peer.certificate));
            let address = peer.address.and_then(|address| match address.address? {
                Of::SocketAddress(socket) => socket.address.parse().ok(),
                Of::Pipe(_) | Of::EnvoyInternalAddress(_) => None,
            });
            assert_eq!(read.address, address);
        }
        same_pairs(&read.context_extensions, &attributes.context_extensions);
        let sni = attributes.tls_session.as_ref().map_or("", |session| &session.sni);
        assert_eq!(read.server_name, sni);
        let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let (Some(read), Some(http)) = (&read.http, http) else {
            return assert!(read.http.is_none() && http.is_none());
        };
        assert_eq!(
            (read.method, read.path, read.host, read.scheme),
            (&*http.method, &*http.path, &*http.host, &*http.scheme)
        );
        same_pairs(&read.headers, &http.headers);
        let lines: Vec<_> = http.header_map.iter().flat_map(|map| &map.headers).collect();
        assert_eq!(read.lines.len(), lines.len());
        for (read, line) in read.lines.iter().zip(lines) {
            assert_eq!((read.key, read.value, read.raw), (&*line.key, &*line.value, &*line.raw_value));
        }
    }

    fn same_pairs(read: &Pairs<'_>, map: &std::collections::HashMap<String, String>) {
        assert!(read.keys().all(|key| map.contains_key(key)));
        for (key, value) in map {
            assert_eq!(read.get(key), Some(&**value), "{key}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_a_full_decoder_reads(message in message()) {
            let bytes = message.encode_to_vec();
            same(CheckRequest::read(&bytes).unwrap().as_ref(), &message);
        }

        #[test]
        fn messages_in_pieces_are_one_message(one in message(), other in message()) {
            let bytes = [one.encode_to_vec(), other.encode_to_vec()].concat();
            let merged = envoy::CheckRequest::decode(&*bytes).unwrap();
            same(CheckRequest::read(&bytes).unwrap().as_ref(), &merged);
        }

        #[test]
        fn what_a_full_decoder_refuses_is_never_read_as_something_else(
            message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = message.encode_to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            // It may be more lenient about fields that it passes over, and must agree about all that it reads.
            if let (Ok(read), Ok(message)) = (CheckRequest::read(&bytes), envoy::CheckRequest::decode(&*bytes)) {
                same(read.as_ref(), &message);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_refused() {
        let varint = [0xff; 11];
        for (bytes, fault) in [
            (&[0x0a][..], Malformed::CutOff),
            (&[0x0a, 5, 1], Malformed::CutOff),
            (&[0x00, 0], Malformed::Field),
            (&[0x0b], Malformed::Field),
            (&[0x08, 1], Malformed::Field),
            (&varint, Malformed::Field),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Malformed::CutOff),
            // attributes { source { principal: "\xff" } }
            (&[0x0a, 5, 0x0a, 3, 0x22, 1, 0xff], Malformed::Text),
        ] {
            assert_eq!(CheckRequest::read(bytes), Err(fault), "{bytes:?}");
        }
        assert_eq!(CheckRequest::read(&[]), Ok(None));
    }
}
