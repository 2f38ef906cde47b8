//! gRPC for browsers (gRPC-Web): what they send becomes gRPC for the upstream, and its answer becomes what they can read.
//!
//! ```text
//! application/grpc-web        the same messages; trailers come as a last message with the flag 0x80
//! application/grpc-web-text   the same in base64, in pieces that may each end in padding
//! ```
//!
//! Pure. Calls of one message or streams of answers work; browsers have no streams of requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};

/// The flag of a message that holds trailers.
const TRAILERS: u8 = 0x80;
/// Characters that stand for three bytes.
const QUAD: usize = 4;

/// How a browser's call is written.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    text: bool,
    /// What stands after the type, such as `+proto`.
    suffix: String,
}

impl Web {
    /// How a request is written, if it is gRPC-Web.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let rest = headers.get(CONTENT_TYPE)?.to_str().ok()?.strip_prefix("application/grpc-web")?;
        let (text, suffix) = match rest.strip_prefix("-text") {
            Some(suffix) => (true, suffix),
            None => (false, rest),
        };
        let is_suffix = suffix.is_empty() || suffix.starts_with(['+', ';']);
        is_suffix.then(|| Self { text, suffix: suffix.to_owned() })
    }

    /// Makes the head of a request that of a gRPC call.
    pub(crate) fn translate_request(&self, headers: &mut HeaderMap) {
        if let Ok(kind) = HeaderValue::try_from(format!("application/grpc{}", self.suffix)) {
            headers.insert(CONTENT_TYPE, kind);
        }
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.remove(ACCEPT);
        if self.text {
            headers.remove(CONTENT_LENGTH);
        }
    }

    /// Makes the head of an answer what the browser's library reads.
    pub(crate) fn translate_answer(&self, headers: &mut HeaderMap) {
        let text = if self.text { "-text" } else { "" };
        if let Ok(kind) = HeaderValue::try_from(format!("application/grpc-web{text}{}", self.suffix)) {
            headers.insert(CONTENT_TYPE, kind);
        }
        headers.remove(CONTENT_LENGTH);
    }

    /// What decodes the request's body, if it is not as gRPC has it.
    pub(crate) fn decoder(&self) -> Option<Decoder> {
        self.text.then(Decoder::default)
    }

    /// A piece of the answer.
    pub(crate) fn data(&self, data: Bytes) -> Bytes {
        if self.text { STANDARD.encode(&data).into() } else { data }
    }

    /// The end of the answer.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) -> Bytes {
        let mut lines = BytesMut::new();
        for (name, value) in trailers {
            lines.put_slice(name.as_str().as_bytes());
            lines.put_slice(b": ");
            lines.put_slice(value.as_bytes());
            lines.put_slice(b"\r\n");
        }
        let mut message = BytesMut::with_capacity(lines.len() + 5);
        message.put_u8(TRAILERS);
        message.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        message.put_slice(&lines);
        self.data(message.freeze())
    }
}

/// Base64 that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of four characters whose end is yet to come.
    left: Vec<u8>,
}

/// What is no base64.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not base64")]
pub(crate) struct NotBase64;

impl Decoder {
    /// Decodes one more piece.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Result<Bytes, NotBase64> {
        self.left.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let whole = self.left.len() / QUAD * QUAD;
        let mut decoded = Vec::with_capacity(whole / QUAD * 3);
        let mut from = 0;
        // Padding ends a segment, and another may follow.
        while from < whole {
            let padded = self.left[from..whole].iter().position(|byte| *byte == b'=');
            let to = padded.map_or(whole, |at| from + (at / QUAD + 1) * QUAD);
            STANDARD.decode_vec(&self.left[from..to], &mut decoded).map_err(|_| NotBase64)?;
            from = to;
        }
        self.left.drain(..whole);
        Ok(decoded.into())
    }

    /// Whether the body may end here.
    pub(crate) fn is_complete(&self) -> bool {
        self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &'static str) -> Option<Web> {
        Web::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
    }

    #[test]
    fn it_is_told_by_its_content_type() {
        for (kind, answer) in [
            ("application/grpc-web", "application/grpc-web"),
            ("application/grpc-web+proto", "application/grpc-web+proto"),
            ("application/grpc-web-text", "application/grpc-web-text"),
            ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
        ] {
            let mut headers = HeaderMap::new();
            of(kind).unwrap().translate_answer(&mut headers);
            assert_eq!(headers[CONTENT_TYPE], answer);
        }
        for kind in ["application/grpc", "application/grpc-website", "application/json"] {
            assert!(of(kind).is_none(), "{kind}");
        }
        let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("8"))]);
        of("application/grpc-web-text+proto").unwrap().translate_request(&mut headers);
        assert_eq!(
            (&headers[CONTENT_TYPE], &headers[TE]),
            (&"application/grpc+proto".parse().unwrap(), &"trailers".parse().unwrap())
        );
        assert!(!headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn base64_may_come_in_any_pieces() {
        let text = format!("{}{}{}", STANDARD.encode("a"), STANDARD.encode("bcd"), STANDARD.encode("ef"));
        for cut in 0..=text.len() {
            let mut decoder = Decoder::default();
            let mut decoded = decoder.read(&text.as_bytes()[..cut]).unwrap().to_vec();
            decoded.extend(decoder.read(&text.as_bytes()[cut..]).unwrap());
            assert_eq!((decoded.as_slice(), decoder.is_complete()), (&b"abcdef"[..], true), "cut at {cut}");
        }
        for bad in ["%%%%", "====", "a===", "ab=c"] {
            assert_eq!(Decoder::default().read(bad.as_bytes()), Err(NotBase64), "{bad}");
        }
        let mut cut_off = Decoder::default();
        assert_eq!(cut_off.read(b"YWJjZ").unwrap(), "abc");
        assert!(!cut_off.is_complete());
    }

    #[test]
    fn trailers_are_a_message() {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("5"))]);
        let message = of("application/grpc-web").unwrap().trailers(&trailers);
        assert_eq!(&message[..], b"\x80\0\0\0\x10grpc-status: 5\r\n");
        let text = of("application/grpc-web-text").unwrap().trailers(&trailers);
        assert_eq!(STANDARD.decode(text).unwrap(), message);
    }
}
