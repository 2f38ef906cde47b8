//! Accepting: from the queue of a socket to a connection that is served, or refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::room::Place;
use super::secure::{Opened, Secure};
use super::{Closing, Connection, Listener, announce, capture, connection, refusal, tcp};
use crate::pipeline::Proxy;
use crate::socket::Socket;

/// How long accepting rests when the system is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(20);
/// As many as Linux lets wait (`net.core.somaxconn`).
const QUEUE: usize = 4096;
/// Accepting takes one part of the time, and whoever is served as many.
const SERVED: u32 = 4;
/// A round of those that are served may have been long since the machine stood still.
const LONGEST_TURN: Duration = Duration::from_millis(2);
/// Whoever comes brings work, TLS for instance, which makes the next turn longer: that does not go on growing.
const MOST_IN_A_TURN: u32 = 16;

/// Accepts until told to stop. The socket closes with it; connections end by themselves.
///
/// Each connection keeps the settings it was accepted under.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    settings: Arc<ArcSwap<Listener>>,
    socket: Arc<TcpListener>,
    closing: Closing,
) {
    let door = Door { proxy, settings, socket, closing: closing.leaving };
    let (mut began, mut turn, mut taken) = (Instant::now(), Duration::ZERO, 0);
    loop {
        let came = tokio::select! {
            biased;
            () = closing.closed.cancelled() => break,
            came = door.next() => came,
        };
        if !door.take(came) {
            tokio::time::sleep(ACCEPT_REST).await;
        }
        // Whoever comes with thousands does not hold up those that are there, and many of those do not keep others out.
        let now = Instant::now();
        taken += 1;
        if now - began >= turn || taken == MOST_IN_A_TURN {
            // Once for who has just come, and once for those who have heard something meanwhile.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            began = Instant::now();
            turn = ((began - now) / SERVED).min(LONGEST_TURN);
            taken = 0;
        }
    }
    door.empty();
}

/// A socket that is accepted from.
struct Door {
    proxy: Arc<Proxy>,
    settings: Arc<ArcSwap<Listener>>,
    socket: Arc<TcpListener>,
    /// Whoever has come is told to go.
    closing: CancellationToken,
}

/// Who has come, and its place among the connections that may be.
type Came = (Place, io::Result<(TcpStream, SocketAddr)>);

impl Door {
    /// The next connection, once there is room for it.
    async fn next(&self) -> Came {
        let room = Arc::clone(&self.settings.load().open.all);
        let place = room.enter(|| self.settings.load().limits.max_connections).await;
        (place, self.socket.accept().await)
    }

    /// Takes whoever waits in the queue, and would be lost when the socket closes. The runtime is not asked: it may not have
    /// heard of them yet.
    fn empty(&self) {
        for _ in 0..QUEUE {
            let settings = self.settings.load();
            let Some(place) = settings.open.all.try_enter(settings.limits.max_connections) else { return };
            let accepted = SockRef::from(&*self.socket).accept().and_then(|(socket, address)| {
                socket.set_nonblocking(true)?;
                let peer = address.as_socket().ok_or(io::ErrorKind::Unsupported)?;
                Ok((TcpStream::from_std(socket.into())?, peer))
            });
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                accepted => {
                    if !self.take((place, accepted)) {
                        return;
                    }
                }
            }
        }
    }

    /// Lets a connection be served by itself; false if there was none to be had.
    fn take(&self, (place, accepted): Came) -> bool {
        // The settings may have changed while nobody came.
        let listener = self.settings.load_full();
        let proxy = Arc::clone(&self.proxy);
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // It went while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return true,
            Err(error) => {
                tracing::warn!(%error, listener = listener.config.name, "cannot accept a connection");
                return false;
            }
        };
        let Ok(local) = stream.local_addr() else { return true };
        let _ = stream.set_nodelay(true);
        if !proxy.reporter.service.descriptors().has_room_for_client(&stream) {
            drop(stream);
            refusal::without_descriptor(&proxy, &Connection::new((peer, local), listener, None));
            return true;
        }
        // A token of its own: connections that share one would share its lock at every poll.
        let closing = self.closing.child_token();
        let reporter = &self.proxy.reporter;
        let served = reporter.doors.track_future(async move {
            let _place = place;
            let _open = proxy.reporter.metrics.open_connection();
            arrive(&proxy, listener, stream, (peer, local), &closing).await;
        });
        reporter.service.tasks().spawn("connection", served);
        true
    }
}

/// One connection: whose it is, whether it may stay, its handshake, and then what it came for.
async fn arrive(
    proxy: &Arc<Proxy>,
    listener: Arc<Listener>,
    mut stream: TcpStream,
    ends: (SocketAddr, SocketAddr),
    closing: &CancellationToken,
) {
    let not_served = |ends| Connection::new(ends, Arc::clone(&listener), None);
    let announced = tokio::select! {
        () = Closing::expired(closing, proxy) => return,
        announced = announce::ends(&listener, &mut stream, ends) => announced,
    };
    let ends = match announced {
        Ok(ends) => ends,
        Err(error) => return refusal::unannounced(proxy, &not_served(ends), &error),
    };
    let most = listener.config.connections_per_address().unwrap_or(usize::MAX);
    let Some(_place) = listener.open.addresses.enter(ends.0.ip(), most) else {
        return refusal::crowd(proxy, &not_served(ends));
    };
    // A handshake costs more than many requests.
    if listener.secure.as_ref().is_some_and(Secure::always)
        && !proxy.overload.admits_handshake(&proxy.snapshot.load().overload)
    {
        return refusal::handshake(proxy, &not_served(ends), refusal::OVERLOADED);
    }
    if let Some(limit) = &listener.connection_limit
        && !Box::pin(limit.admits(proxy, &not_served(ends))).await
    {
        return;
    }
    let opened = match &listener.secure {
        None => Opened::Served(Socket::Plain(stream), None),
        // On the heap: a handshake is large, and a connection keeps the room of its largest moment.
        Some(secure) => {
            let opening = Box::pin(secure.open(proxy, &listener, stream, ends.0));
            tokio::select! {
                () = Closing::expired(closing, proxy) => return,
                opened = opening => opened,
            }
        }
    };
    match opened {
        Opened::Served(socket, secured) => {
            let connection = Arc::new(Connection::new(ends, listener, secured));
            let config = &connection.listener.config;
            match &config.tcp {
                Some(tcp) => Box::pin(tcp::serve(proxy, &connection, socket, tcp, closing)).await,
                None if config.transparent => {
                    Box::pin(capture::serve(proxy, &connection, socket, closing)).await;
                }
                None => connection::serve(proxy, &connection, socket, closing).await,
            }
        }
        Opened::Plaintext(socket) => {
            refusal::plaintext(proxy, &Arc::new(not_served(ends)), socket).await;
        }
        Opened::Overloaded(why) => refusal::handshake(proxy, &not_served(ends), why),
        Opened::Gone => {}
    }
}
