//! WebSockets of a proxy that goes: each end hears so, and no message is torn.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::harness::{Mesh, PATIENCE, Setup};

const ROUTES: &str = r#"
routes:
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
    upgrades: [websocket]
"#;

/// A WebSocket server that talks as fast as it can, or waits; it tells how its client said goodbye.
async fn server(talks: bool) -> (SocketAddr, mpsc::Receiver<Option<CloseFrame>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel(1);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut say, mut hear) = accept_async(stream).await.unwrap().split();
        let talking = async {
            while talks && say.send(Message::Binary(Bytes::from(vec![7; 70_000]))).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let hearing = async {
            loop {
                match hear.next().await {
                    Some(Ok(Message::Close(goodbye))) => break goodbye,
                    Some(Ok(_)) => {}
                    other => panic!("it went without a word: {other:?}"),
                }
            }
        };
        let goodbye = tokio::select! {
            () = talking => None,
            goodbye = hearing => goodbye,
        };
        tell.send(goodbye).await.unwrap();
    });
    (address, told, running)
}

async fn leave(talks: bool) {
    let (upstream, mut told, _running) = server(talks).await;
    let process = ", drain_delay: 1h";
    let setup = Setup { upstream: Some(upstream), routes: Some(ROUTES), process, ..Setup::default() };
    let mesh: Mesh = setup.start().await;
    let request = "ws://policies.insurance/open".into_client_request().unwrap();
    let stream = TcpStream::connect(mesh.address).await.unwrap();
    let (mut socket, _): (WebSocketStream<TcpStream>, _) = client_async(request, stream).await.unwrap();
    if talks {
        assert!(socket.next().await.unwrap().unwrap().is_binary());
    }
    let (service, mut draining) = (mesh.service.clone(), JoinSet::new());
    draining.spawn(async move { service.drain().await });
    let goodbye = async {
        loop {
            match socket.next().await.expect("a goodbye comes first").expect("whole frames") {
                Message::Close(goodbye) => break goodbye,
                message => assert_eq!(message.into_data(), vec![7; 70_000]),
            }
        }
    };
    let goodbye = tokio::time::timeout(PATIENCE, goodbye).await.expect("it says goodbye");
    assert_eq!(goodbye.map(|goodbye| goodbye.code), Some(CloseCode::Away));
    // The client's own goodbye goes out while its connection is read to the end.
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends");
    let heard = tokio::time::timeout(PATIENCE, told.recv()).await.expect("the upstream is told");
    assert_eq!(heard.unwrap().map(|goodbye| goodbye.code), Some(CloseCode::Away));
}

#[tokio::test]
async fn a_websocket_of_a_proxy_that_goes_hears_so() {
    leave(false).await;
}

#[tokio::test]
async fn a_websocket_that_is_never_quiet_hears_so_between_two_frames() {
    leave(true).await;
}
