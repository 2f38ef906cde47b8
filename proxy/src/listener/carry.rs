//! Carrying bytes both ways between two connections, until both sides have ended or it must not go on.
//!
//! It ends when both sides have, when nothing has moved for as long as it may, and at the first of the ends that it is
//! given. There is no way to ask bytes to go (but see [`super::websocket`]): a proxy that stops waits until they are quiet.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tollgate_proto::Reason;

use super::flow::{Flow, Side};

/// Bytes that are held for each way of a connection.
const BUFFER: usize = 16 << 10;
/// How long a connection must be quiet to be closed by a proxy that stops.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time that anything is waited for.
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Why bytes stopped to flow.
#[derive(Debug)]
pub(super) enum Ended {
    BothClosed,
    Broken(Side, io::Error),
    Idle(Duration),
    TooLong,
    Certificate(&'static str),
    Stopped,
}

impl Ended {
    /// Reason, flags and details of the record.
    pub(super) fn said(self) -> (Reason, &'static str, String) {
        match self {
            Self::BothClosed => (Reason::Ok, "", "closed by both sides".to_owned()),
            Self::Broken(Side::Client, error) => (Reason::ClientGone, "DC", error.to_string()),
            Self::Broken(Side::Upstream, error) => (Reason::UpstreamReset, "UC", error.to_string()),
            Self::Idle(limit) => (Reason::Ok, "", format!("cut: nothing moved for {limit:?}")),
            Self::TooLong => (Reason::Ok, "", "cut: as old as a connection may be".to_owned()),
            Self::Certificate(which) => (Reason::CertificateExpired, "", format!("cut: {which}")),
            Self::Stopped => (Reason::Ok, "", "cut: the proxy stops".to_owned()),
        }
    }
}

/// Carries bytes both ways until there is nothing more to carry, or until it must not go on.
pub(super) async fn carry<const N: usize>(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    flow: &Flow,
    ends: [(Option<Instant>, Ended); N],
    idle_timeout: Duration,
    closing: &CancellationToken,
) -> Ended {
    let mut client = Watched { stream: client, flow, side: Side::Client };
    let mut upstream = Watched { stream: upstream, flow, side: Side::Upstream };
    let mut carrying = pin!(copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER));
    let first_end = ends.into_iter().filter_map(|(at, ended)| Some((at?, ended))).min_by_key(|(at, _)| *at);
    let (end, at_the_end) = first_end.unwrap_or_else(|| (Instant::now() + A_YEAR, Ended::TooLong));
    let mut end = pin!(sleep_until(end));
    let (mut patience, mut stopping) = (idle_timeout, false);
    let mut timer = pin!(sleep_until(flow.quiet_since() + patience));
    loop {
        tokio::select! {
            biased;
            ended = &mut carrying => return match ended {
                Ok(_) => Ended::BothClosed,
                Err(error) => Ended::Broken(flow.broken().unwrap_or(Side::Client), error),
            },
            () = &mut end => return at_the_end,
            () = closing.cancelled(), if !stopping => {
                stopping = true;
                patience = patience.min(QUIET);
                timer.as_mut().reset(flow.quiet_since() + patience);
            }
            () = &mut timer => {
                let quiet_until = flow.quiet_since() + patience;
                if quiet_until <= Instant::now() {
                    return if stopping { Ended::Stopped } else { Ended::Idle(idle_timeout) };
                }
                timer.as_mut().reset(quiet_until);
            }
        }
    }
}

/// One of the two connections, with an eye on what moves.
struct Watched<'f, S> {
    stream: S,
    flow: &'f Flow,
    side: Side,
}

impl<S> Watched<'_, S> {
    fn noted<T>(&self, done: io::Result<T>) -> Poll<io::Result<T>> {
        if done.is_err() {
            self.flow.broke(self.side);
        }
        Poll::Ready(done)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.flow.moved(self.side, count as u64);
        }
        self.noted(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        self.noted(shut)
    }
}
