//! A TCP proxy that cuts connections, and may lead elsewhere afterwards.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: SocketAddr,
    /// Where to, and how often connections were cut.
    state: watch::Sender<(SocketAddr, u32)>,
}

impl Proxy {
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
        let address = listener.local_addr().expect("it is bound");
        let (state, watched) = watch::channel((upstream, 0));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, watched.clone()));
            }
        });
        Self { address, state }
    }

    /// Cuts what is open. New connections lead to `upstream`.
    pub fn cut(&self, upstream: SocketAddr) {
        self.state.send_modify(|state| *state = (upstream, state.1 + 1));
    }
}

async fn carry(mut client: TcpStream, mut state: watch::Receiver<(SocketAddr, u32)>) {
    let (upstream, cuts) = *state.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = state.wait_for(|state| state.1 != cuts) => {}
    }
}
