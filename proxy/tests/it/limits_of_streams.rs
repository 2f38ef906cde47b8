//! What one client may take over HTTP/2, and what is held for it there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_collector::{attribute, wait_for};

use crate::harness::{PATIENCE, Setup, observed};
use crate::wire::{ACK, END_STREAM, Frame, GOAWAY, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, code, frames};

const REFUSED_STREAM: u32 = 7;
/// The name of a setting.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// A client that hears frame by frame.
struct Peer {
    stream: TcpStream,
    came: Vec<u8>,
    heard: Vec<Frame>,
}

impl Peer {
    async fn says(address: SocketAddr, wire: &Wire) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(wire.bytes()).await.unwrap();
        Self { stream, came: Vec::new(), heard: Vec::new() }
    }

    /// Waits for a frame, and keeps what has come before it; nothing if the connection ends.
    async fn hears(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let hearing = async {
            loop {
                self.heard.extend(frames(&mut self.came));
                if let Some(found) = self.heard.iter().find(|frame| is_it(frame)) {
                    return Some(found.clone());
                }
                if !self.stream.read_buf(&mut self.came).await.is_ok_and(|count| count > 0) {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("it comes, or the connection ends")
    }
}

#[tokio::test]
async fn a_connection_has_so_many_streams() {
    let mesh = Setup { listener: "limits: {streams: 2}", ..Setup::default() }.start().await;
    let mut wire = Wire::default().preface(&[]);
    for stream in [1, 3, 5] {
        wire.get(stream, "/patient/a", &[("x-behave", "hold")], true);
    }
    mesh.app.behave("hold");
    let mut peer = Peer::says(mesh.address, &wire).await;
    let refused = peer.hears(|frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, code(&refused.payload)), (5, REFUSED_STREAM));
    let settings = peer.hears(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await.unwrap();
    let told = settings.payload.chunks(6).find(|one| one[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    assert_eq!(code(&told.unwrap()[2..]), 2, "clients are told beforehand");
    mesh.app.behave("");
    let ends = |stream| move |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
    for stream in [1, 3] {
        assert!(peer.hears(ends(stream)).await.is_some(), "{stream}");
    }
    // There is room again.
    let mut wire = Wire::default();
    wire.get(7, "/open/a", &[], true);
    peer.stream.write_all(wire.bytes()).await.unwrap();
    assert!(peer.hears(ends(7)).await.is_some());
    assert_eq!(mesh.app.seen().len(), 3);
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_closed() {
    let mesh = Setup { listener: "limits: {idle_timeout: 400ms}", ..Setup::default() }.start().await;
    let mut wire = Wire::default().preface(&[]);
    wire.get(1, "/open/a", &[], true);
    let mut peer = Peer::says(mesh.address, &wire).await;
    assert!(peer.hears(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).await.is_some());
    assert!(peer.hears(|_| false).await.is_none(), "it is closed");
    let gone: Vec<_> = peer.heard.iter().filter(|frame| frame.kind == GOAWAY).collect();
    assert!(!gone.is_empty() && gone.iter().all(|frame| code(&frame.payload[4..]) == 0), "{gone:?}");
}

#[tokio::test]
async fn an_answer_that_is_taken_byte_by_byte_is_cut() {
    let listener = "limits: {send_timeout: 500ms, head_timeout: 200ms, min_bytes_per_second: 100000}";
    let (mesh, collector) = observed(Setup { listener, ..Setup::default() }).await;
    let mut wire = Wire::default().preface(&[(INITIAL_WINDOW_SIZE, 1)]);
    wire.get(1, "/open/a", &[("x-behave", "big:50000000")], true);
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.write_all(wire.bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut taking = JoinSet::new();
    taking.spawn(async move {
        let mut one_more = Wire::default();
        one_more.frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        // Until the other side has enough of it.
        while write.write_all(one_more.bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut taken = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, read.read_to_end(&mut taken)).await;
    assert!(ended.is_ok(), "it is closed, though there is no moment without a byte");
    let record = collector.access_records(1).await.remove(0);
    assert_eq!(attribute(&record, a::TOLLGATE_REASON).unwrap(), "client_gone");
}

/// An upstream whose answers are longer than anybody wants, and how much of them it could say.
struct Talker {
    address: SocketAddr,
    said: Arc<AtomicUsize>,
    _talking: JoinSet<()>,
}

/// Of one answer.
const LENGTH: usize = 96 << 20;

impl Talker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::<AtomicUsize>::default();
        let (mut talking, count) = (JoinSet::new(), Arc::clone(&said));
        talking.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let words = vec![b'x'; 64 << 10];
            while let Ok(1..) = stream.write(&words).await.inspect(|more| {
                count.fetch_add(*more, Ordering::Relaxed);
            }) {}
        });
        Self { address, said, _talking: talking }
    }

    fn said(&self) -> usize {
        self.said.load(Ordering::Relaxed)
    }

    /// How much it has said once it can say no more.
    async fn has_to_wait(&self) -> usize {
        loop {
            let before = self.said();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if before > 0 && self.said() == before {
                return before;
            }
        }
    }
}

/// Asks for such an answer and takes nothing of it, whatever HTTP/2 lets it have.
async fn reads_nothing(address: SocketAddr, http2: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let mut wire = Wire::default();
    if http2 {
        wire = wire.preface(&[(INITIAL_WINDOW_SIZE, LARGEST_WINDOW)]);
        wire.frame(WINDOW_UPDATE, 0, 0, &(LARGEST_WINDOW - 65_535).to_be_bytes());
        wire.get(1, "/patient/a", &[], true);
    } else {
        wire.raw(b"GET /patient/a HTTP/1.1\r\nhost: h\r\n\r\n");
    }
    stream.write_all(wire.bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn so_much_of_an_answer_is_held_and_then_its_upstream_waits() {
    // What the system holds for sockets comes on top of it.
    const SYSTEM: usize = 32 << 20;
    for http2 in [true, false] {
        let talker = Talker::start().await;
        let listener = "limits: {buffered_bytes: 65536}";
        let setup = Setup { listener, upstream: Some(talker.address), ..Setup::default() };
        let mesh = setup.start().await;
        let _client = reads_nothing(mesh.address, http2).await;
        let said = tokio::time::timeout(PATIENCE, talker.has_to_wait()).await.expect("it has to wait");
        assert!(said < SYSTEM, "HTTP/2: {http2}: {said} bytes of {LENGTH}");
    }
    // It is this limit that decides.
    let talker = Talker::start().await;
    let listener = "limits: {buffered_bytes: 50331648}";
    let setup = Setup { listener, upstream: Some(talker.address), ..Setup::default() };
    let mesh = setup.start().await;
    let _client = reads_nothing(mesh.address, true).await;
    let held = wait_for(|| (talker.said() > 48 << 20).then_some(())).await;
    assert!(held.is_some(), "{} bytes of {LENGTH}", talker.said());
}
