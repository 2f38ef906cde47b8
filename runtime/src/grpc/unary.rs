//! One message in, one message out, and as little as can be between the bytes and whoever answers.
//!
//! tonic does the same for any method; for those that are called tens of thousands of times a second its buffers,
//! conversions and boxes cost more than the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::Status;

/// Before each message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Reads the message of a call, which may have so many bytes.
pub async fn read<M, B>(body: B, max: usize) -> Result<M, Status>
where
    M: Message + Default,
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    // Most messages come in one piece, and are read where they lie.
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the call was cut off: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if whole.is_empty() && pieces.is_empty() {
            whole = piece;
        } else {
            pieces.put(std::mem::take(&mut whole));
            pieces.put(piece);
        }
        if whole.len() + pieces.len() > PREFIX + max {
            return Err(Status::out_of_range(format!("a message may have {max} bytes")));
        }
    }
    if whole.is_empty() {
        whole = pieces.freeze();
    }
    let wrong = |what: &str| Status::internal(format!("malformed call: {what}"));
    if whole.len() < PREFIX {
        return Err(wrong("no message"));
    }
    if whole.get_u8() != 0 {
        return Err(Status::unimplemented("compressed messages are not read here"));
    }
    if whole.get_u32() as usize != whole.len() {
        return Err(wrong("not the one message that its length says"));
    }
    M::decode(whole).map_err(|error| wrong(&error.to_string()))
}

/// Answers with a message, or says why there is none.
pub fn reply<M: Message>(answer: Result<M, Status>) -> Response<Reply> {
    match answer {
        Ok(message) => {
            let size = message.encoded_len();
            let mut bytes = BytesMut::with_capacity(PREFIX + size);
            bytes.put_u8(0);
            // Answers are made by us, and are far smaller than what fits four bytes.
            bytes.put_u32(size as u32);
            // A buffer that grows has room for any message.
            let _ = message.encode(&mut bytes);
            let mut response = Response::new(Reply { message: Some(bytes.freeze()), ended: false });
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response
        }
        Err(status) => status.into_http().map(|()| Reply { message: None, ended: true }),
    }
}

/// The body of an answer: a message and its status, or nothing where the headers say it all.
#[derive(Debug)]
pub struct Reply {
    message: Option<Bytes>,
    ended: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, OK);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.message.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use tonic::Code;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.put_u32(message.len() as u32);
        bytes.extend_from_slice(message);
        bytes
    }

    async fn read_string(body: impl Into<Bytes>, max: usize) -> Result<String, Status> {
        read::<String, _>(Full::new(body.into()), max).await
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        let text = "a message of some length".to_owned();
        let bytes = framed(&text.encode_to_vec());
        for size in [1, 3, 5, 6, bytes.len()] {
            let pieces = bytes.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
            let pieces: Vec<Result<_, Infallible>> = pieces.collect();
            let read = read::<String, _>(StreamBody::new(stream::iter(pieces)), 64).await;
            assert_eq!(read.unwrap(), text, "pieces of {size}");
        }
        assert_eq!(read_string(framed(b""), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_is_no_single_message_is_refused() {
        let text = "text".to_owned().encode_to_vec();
        let compressed = [&[1], &framed(&text)[1..]].concat();
        let table = [
            (Vec::new(), Code::Internal),
            (vec![0, 0, 0], Code::Internal),
            (framed(&text)[..8].to_vec(), Code::Internal),
            ([framed(&text), framed(&text)].concat(), Code::Internal),
            (framed(&[0x0a, 0xff]), Code::Internal),
            (compressed, Code::Unimplemented),
            (framed(&[0; 65]), Code::OutOfRange),
        ];
        for (bytes, code) in table {
            assert_eq!(read_string(bytes.clone(), 64).await.unwrap_err().code(), code, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_has_its_status_behind_it() {
        let response = reply(Ok("answer".to_owned()));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()[GRPC_STATUS], "0");
        assert_eq!(body.to_bytes(), framed(&"answer".to_owned().encode_to_vec()));

        let refused = reply::<String>(Err(Status::unavailable("not now")));
        assert_eq!(refused.headers()[GRPC_STATUS], "14");
        assert!(refused.body().is_end_stream());
    }
}
