//! A network between two that a test can cut, or let fall silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Carries.
    Open,
    /// Closes every connection, and each new one at once.
    Cut,
    /// Keeps connections and carries nothing: what a lost route or a frozen host looks like.
    Silent,
    /// Carries what is asked; the answers are lost.
    Deaf,
    /// Carries everything this much later.
    Slow(Duration),
    /// A COMMIT arrives and is done; its answer does not come back, and the connection ends.
    CommitUnanswered,
}

/// A proxy in front of a server.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    stop: CancellationToken,
}

impl Proxy {
    /// In front of `target`, open.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (network, stop) = (Arc::new(watch::Sender::new(Network::Open)), CancellationToken::new());
        let accepting = accept(listener, target.to_owned(), Arc::clone(&network), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "the proxy's own loop, ended with it")]
        tokio::spawn(accepting);
        Self { address, network, stop }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes what the network does.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, target: String, network: Arc<watch::Sender<Network>>, stop: CancellationToken) {
    while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
        if *network.borrow() == Network::Cut {
            continue;
        }
        let carrying = carry(client, target.clone(), network.subscribe(), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "one connection of the proxy, ended with it")]
        tokio::spawn(carrying);
    }
}

/// Carries one connection until it ends or is cut.
async fn carry(client: TcpStream, target: String, mut network: watch::Receiver<Network>, stop: CancellationToken) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (up, down) = (network.clone(), network.clone());
    let committing = AtomicBool::new(false);
    tokio::select! {
        () = copy(&mut from_client, &mut to_server, up, Way::Question(&committing)) => {}
        () = copy(&mut from_server, &mut to_client, down, Way::Answer(&committing)) => {}
        _ = network.wait_for(|network| *network == Network::Cut) => {}
        () = stop.cancelled() => {}
    }
}

/// Which way bytes go, and whether a COMMIT went before.
enum Way<'a> {
    Question(&'a AtomicBool),
    Answer(&'a AtomicBool),
}

impl Way<'_> {
    /// Whether these bytes are carried; `None`: the connection ends here.
    fn carried(&self, bytes: &[u8], network: Network) -> Option<bool> {
        match (self, network) {
            (_, Network::Silent | Network::Cut) | (Self::Answer(_), Network::Deaf) => Some(false),
            (Self::Question(committing), Network::CommitUnanswered) => {
                if bytes.windows(6).any(|word| word == b"COMMIT") {
                    committing.store(true, Ordering::SeqCst);
                }
                Some(true)
            }
            (Self::Answer(committing), Network::CommitUnanswered) if committing.load(Ordering::SeqCst) => None,
            _ => Some(true),
        }
    }
}

/// Copies one way; what is read while the network is silent is lost.
async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    network: watch::Receiver<Network>,
    way: Way<'_>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let state = *network.borrow();
        if let Network::Slow(by) = state {
            let _never = tokio::time::timeout(by, std::future::pending::<()>()).await;
        }
        match way.carried(&bytes[..read], state) {
            Some(true) if to.write_all(&bytes[..read]).await.is_err() => return,
            Some(_) => {}
            None => return,
        }
    }
    // One side ended: while the network is silent the other does not hear of it.
    let mut network = network;
    let _gone = network.wait_for(|network| *network != Network::Silent).await;
}
