//! A TCP proxy between the service and Redis that injects network faults. The names are those of toxiproxy where it has
//! the fault.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segment_estimator::domain::Window;
use segment_estimator::estimator::Estimator;
use segment_estimator::redis::{Client, Limits, RedisUrl};
use segment_estimator::store::Store;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

use super::TIMEOUT;
use super::redis::Redis;

/// TCP proxy of a Redis.
pub struct Proxy {
    pub address: SocketAddr,
    route: Arc<Mutex<Route>>,
    toxic: watch::Sender<Option<Toxic>>,
    faults: broadcast::Sender<Fault>,
}

/// Settings of new connections.
#[derive(Clone)]
struct Route {
    socket: PathBuf,
    /// Time before a connection forwards anything.
    delay: Duration,
    /// Idle time after which a connection forwards nothing more and stays open at both ends.
    idle_limit: Option<Duration>,
    /// Word in a command that closes the connection.
    closing_word: Option<&'static str>,
}

/// Condition of the network that lasts until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toxic {
    /// Delays replies.
    Latency(Duration),
    /// Forwards commands. Holds replies back until the toxic is removed.
    TimeoutDownstream,
    /// Forwards nothing, on old connections and new ones. The data arrives when the toxic is removed.
    Timeout,
    /// Forwards the first half of a reply and then closes the connection.
    LimitData,
}

/// Fault of all present connections. New connections work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Closes both ends.
    Close,
    /// Resets the service's end.
    ResetPeer,
    /// Closes the service's end in one direction: the service reads an end of file and may still write.
    HalfClose,
    /// Closes Redis's end. The service's end stays open and answers nothing.
    HalfOpen,
}

impl Proxy {
    pub async fn start(redis: &Redis) -> Self {
        Self::start_slow(redis, Duration::ZERO).await
    }

    /// Starts a proxy that delays each new connection.
    pub async fn start_slow(redis: &Redis, delay: Duration) -> Self {
        Self::start_with(redis, |route| route.delay = delay).await
    }

    /// Starts a proxy that drops the state of connections idle for `limit`, as load balancers and firewalls do.
    pub async fn start_with_idle_limit(redis: &Redis, limit: Duration) -> Self {
        Self::start_with(redis, |route| route.idle_limit = Some(limit)).await
    }

    /// Starts a proxy that closes a connection at a command that contains `word`.
    pub async fn start_closing_at(redis: &Redis, word: &'static str) -> Self {
        Self::start_with(redis, |route| route.closing_word = Some(word)).await
    }

    async fn start_with(redis: &Redis, change: impl FnOnce(&mut Route)) -> Self {
        let mut route = Route { socket: redis.socket(), delay: Duration::ZERO, idle_limit: None, closing_word: None };
        change(&mut route);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            route: Arc::new(Mutex::new(route)),
            toxic: watch::Sender::new(None),
            faults: broadcast::Sender::new(16),
        };
        let (route, toxic, faults) = (Arc::clone(&proxy.route), proxy.toxic.clone(), proxy.faults.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let route = route.lock().unwrap().clone();
                tokio::spawn(serve(client, route, toxic.subscribe(), faults.subscribe()));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Returns an estimator that reaches Redis through this proxy, with at most `max_pending` pending requests.
    pub fn estimator(&self, max_pending: usize) -> Estimator {
        let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending };
        let url = RedisUrl::parse(&self.url()).unwrap();
        Estimator::new(Store::new(Client::new(url, limits, Arc::default()).unwrap()), Window::parse("14d").unwrap())
    }

    /// Sets the toxic of old and new connections, in place of the previous one.
    pub fn set_toxic(&self, toxic: Toxic) {
        self.toxic.send_replace(Some(toxic));
    }

    pub fn remove_toxic(&self) {
        self.toxic.send_replace(None);
    }

    /// Injects a fault into all present connections.
    pub fn inject(&self, fault: Fault) {
        // Sending fails if there are no connections.
        let _ = self.faults.send(fault);
    }

    /// Holds replies back. Commands still reach Redis.
    pub fn hold_replies(&self) {
        self.set_toxic(Toxic::TimeoutDownstream);
    }

    /// Forwards the replies held back by [`Self::hold_replies`].
    pub fn release_replies(&self) {
        self.remove_toxic();
    }

    /// Routes new connections to another Redis.
    pub fn redirect_to(&self, redis: &Redis) {
        self.route.lock().unwrap().socket = redis.socket();
    }
}

/// Serves one connection until it ends.
async fn serve(
    mut client: TcpStream,
    route: Route,
    mut toxic: watch::Receiver<Option<Toxic>>,
    mut faults: broadcast::Receiver<Fault>,
) {
    sleep(route.delay).await;
    let _ = toxic.wait_for(|toxic| *toxic != Some(Toxic::Timeout)).await;
    // The connection ends if Redis is down.
    let Ok(mut server) = UnixStream::connect(&route.socket).await else { return };
    let fault = tokio::select! {
        () = forward(&mut client, &mut server, &route, toxic) => return,
        fault = faults.recv() => fault.unwrap_or(Fault::Close),
    };
    drop(server);
    match fault {
        Fault::Close => {}
        Fault::ResetPeer => client.set_zero_linger().unwrap(),
        Fault::HalfOpen => pending().await,
        Fault::HalfClose => {
            client.shutdown().await.unwrap();
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        }
    }
}

/// Forwards data in both directions until one end closes.
async fn forward(
    client: &mut TcpStream,
    server: &mut UnixStream,
    route: &Route,
    toxic: watch::Receiver<Option<Toxic>>,
) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        () = forward_replies(from_server, to_client, toxic.clone()) => {}
        () = forward_commands(from_client, to_server, route, toxic) => {}
    }
}

async fn forward_commands(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    route: &Route,
    mut toxic: watch::Receiver<Option<Toxic>>,
) {
    let mut piece = vec![0; 64 * 1024];
    let idle_limit = route.idle_limit.unwrap_or(Duration::MAX);
    loop {
        let Ok(read) = timeout(idle_limit, from.read(&mut piece)).await else { return pending().await };
        let Ok(length @ 1..) = read else { return };
        if route.closing_word.is_some_and(|word| String::from_utf8_lossy(&piece[..length]).contains(word)) {
            return;
        }
        let _ = toxic.wait_for(|toxic| *toxic != Some(Toxic::Timeout)).await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

async fn forward_replies(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut toxic: watch::Receiver<Option<Toxic>>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let holds = |toxic: &Option<Toxic>| matches!(toxic, Some(Toxic::TimeoutDownstream | Toxic::Timeout));
        let Ok(now) = toxic.wait_for(|toxic| !holds(toxic)).await.map(|toxic| *toxic) else { return };
        if let Some(Toxic::Latency(delay)) = now {
            sleep(delay).await;
        }
        let part = if now == Some(Toxic::LimitData) { length / 2 } else { length };
        if to.write_all(&piece[..part]).await.is_err() || part < length {
            return;
        }
    }
}
