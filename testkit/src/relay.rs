//! A TCP relay whose connections a test can cut, to part two that both live on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A running relay. It stops when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    cut: Arc<Notify>,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays to this address.
    #[expect(clippy::disallowed_methods, reason = "a fake owns its tasks")]
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (cut, open) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
        let (cutting, opened) = (Arc::clone(&cut), Arc::clone(&open));
        let task = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                if !opened.load(Ordering::Relaxed) {
                    continue;
                }
                let cutting = Arc::clone(&cutting);
                tokio::spawn(async move {
                    let cut = cutting.notified();
                    let Ok(mut to) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        () = cut => {}
                    }
                });
            }
        });
        Self { address, cut, open, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection, and every new one at once, until [`Self::mend`].
    pub fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.cut.notify_waiters();
    }

    /// Relays again.
    pub fn mend(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut.notify_waiters();
        self.task.abort();
    }
}
