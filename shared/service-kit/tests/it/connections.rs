//! Connections: slow, many, cut, and drained at a stop.

use std::time::Duration;

use axum::{Router, routing::get};
use service_kit::http::server::serve;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

static ENTERED: Notify = Notify::const_new();
static LEAVE: Notify = Notify::const_new();

async fn listening() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn app() -> Router {
    let slow = get(|| async {
        ENTERED.notify_one();
        LEAVE.notified().await;
        "done"
    });
    Router::new().route("/", get(|| async { "hello" })).route("/slow", slow)
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 1024];
    let read = stream.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_its_headers_a_byte_at_a_time_is_sent_away_and_others_are_served() {
    let (listener, address) = listening().await;
    let stop = CancellationToken::new();
    let client = async {
        let began = std::time::Instant::now();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
        let mut quick = TcpStream::connect(address).await.unwrap();
        ask(&mut quick, "/").await;
        assert!(answer(&mut quick).await.ends_with("hello"));
        // Until it is closed.
        let mut rest = Vec::new();
        let _reset = slow.read_to_end(&mut rest).await;
        let took = began.elapsed();
        assert!((9..16).contains(&took.as_secs()), "{took:?}");
        stop.cancel();
    };
    tokio::join!(serve(listener, app(), stop.clone(), Duration::from_secs(1)), client);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let (listener, address) = listening().await;
    let stop = CancellationToken::new();
    let client = async {
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        let _reset = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut rest)).await.unwrap();
        stop.cancel();
    };
    tokio::join!(serve(listener, app(), stop.clone(), Duration::from_secs(1)), client);
}

#[tokio::test]
async fn a_stop_finishes_the_request_in_hand_and_takes_no_other() {
    let (listener, address) = listening().await;
    let stop = CancellationToken::new();
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "/slow").await;
        ENTERED.notified().await;
        stop.cancel();
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
        LEAVE.notify_one();
        let said = answer(&mut stream).await;
        assert!(said.ends_with("done"), "{said}");
    };
    tokio::join!(serve(listener, app(), stop.clone(), Duration::from_secs(10)), client);
}
