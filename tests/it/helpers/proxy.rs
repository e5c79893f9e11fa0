//! The network between the service and Redis, and what can go wrong with it.

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

use super::PATIENCE;
use super::redis::Redis;

/// A TCP address in front of a Redis.
pub struct Proxy {
    pub address: SocketAddr,
    route: Arc<Mutex<Route>>,
    weather: watch::Sender<Weather>,
    blows: broadcast::Sender<Blow>,
}

/// Where new connections lead, and what is special about them.
#[derive(Clone)]
struct Route {
    socket: PathBuf,
    /// How long they wait before anything is passed on.
    delay: Duration,
    /// After so long without a command nothing is passed on any more, and neither end hears of it.
    idle_limit: Option<Duration>,
    /// At the first command that has this word both ends are closed.
    refused_word: Option<&'static str>,
}

/// What becomes of what is sent, as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All is passed on.
    Fine,
    /// Replies take this much longer.
    Slow(Duration),
    /// Commands reach Redis, and its replies wait.
    RepliesHeld,
    /// Commands reach Redis, and the first half of each reply comes back. Then the connection is cut.
    RepliesTorn,
    /// Nothing is passed on in either direction, on old connections and new ones. What was sent arrives when it is over.
    BlackHole,
}

/// What happens at once to all connections made so far. New ones work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Both ends are closed.
    Cut,
    /// The service's end is reset.
    Reset,
    /// The service hears that nothing more will come, and may go on sending.
    HalfClose,
    /// Redis's end is closed, and the service's stays open and never answers: a half-open connection.
    Deaden,
}

impl Proxy {
    pub async fn start(redis: &Redis) -> Self {
        Self::start_slow(redis, Duration::ZERO).await
    }

    /// A proxy that lets every new connection wait for `delay`.
    pub async fn start_slow(redis: &Redis, delay: Duration) -> Self {
        Self::start_with(redis, |route| route.delay = delay).await
    }

    /// A proxy that forgets each connection that was idle for `limit`, as balancers and firewalls do.
    pub async fn start_forgetful(redis: &Redis, limit: Duration) -> Self {
        Self::start_with(redis, |route| route.idle_limit = Some(limit)).await
    }

    /// A proxy that hangs up at a command that has `word`.
    pub async fn start_refusing(redis: &Redis, word: &'static str) -> Self {
        Self::start_with(redis, |route| route.refused_word = Some(word)).await
    }

    async fn start_with(redis: &Redis, change: impl FnOnce(&mut Route)) -> Self {
        let mut route = Route { socket: redis.socket(), delay: Duration::ZERO, idle_limit: None, refused_word: None };
        change(&mut route);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            route: Arc::new(Mutex::new(route)),
            weather: watch::Sender::new(Weather::Fine),
            blows: broadcast::Sender::new(16),
        };
        let (route, weather, blows) = (Arc::clone(&proxy.route), proxy.weather.clone(), proxy.blows.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let route = route.lock().unwrap().clone();
                tokio::spawn(connect(client, route, weather.subscribe(), blows.subscribe()));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// An estimator on the Redis behind it, for which so many may wait.
    pub fn estimator(&self, max_pending: usize) -> Estimator {
        let limits = Limits { connect: PATIENCE, answer: PATIENCE, max_pending };
        let url = RedisUrl::parse(&self.url()).unwrap();
        Estimator::new(Store::new(Client::new(url, limits, Arc::default()).unwrap()), Window::parse("14d").unwrap())
    }

    /// From now on it is like this.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Strikes all connections.
    pub fn strike(&self, blow: Blow) {
        // There may be none.
        let _ = self.blows.send(blow);
    }

    /// From now on replies wait. Commands still reach Redis.
    pub fn hold_replies(&self) {
        self.turn(Weather::RepliesHeld);
    }

    /// The replies that waited go on.
    pub fn release_replies(&self) {
        self.turn(Weather::Fine);
    }

    /// New connections lead to another Redis. Those made so far stay where they are.
    pub fn lead_to(&self, redis: &Redis) {
        self.route.lock().unwrap().socket = redis.socket();
    }
}

/// One connection, from its beginning to its end.
async fn connect(
    mut client: TcpStream,
    route: Route,
    mut weather: watch::Receiver<Weather>,
    mut blows: broadcast::Receiver<Blow>,
) {
    sleep(route.delay).await;
    let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await;
    // A Redis that is away is a connection that ends.
    let Ok(mut server) = UnixStream::connect(&route.socket).await else { return };
    let blow = tokio::select! {
        () = pass_on(&mut client, &mut server, &route, weather) => return,
        blow = blows.recv() => blow.unwrap_or(Blow::Cut),
    };
    drop(server);
    match blow {
        Blow::Cut => {}
        Blow::Reset => client.set_zero_linger().unwrap(),
        Blow::Deaden => pending().await,
        Blow::HalfClose => {
            client.shutdown().await.unwrap();
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        }
    }
}

/// Passes on what either end sends, until one of them closes.
async fn pass_on(client: &mut TcpStream, server: &mut UnixStream, route: &Route, weather: watch::Receiver<Weather>) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        () = pass_replies(from_server, to_client, weather.clone()) => {}
        () = pass_commands(from_client, to_server, route, weather) => {}
    }
}

async fn pass_commands(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    route: &Route,
    mut weather: watch::Receiver<Weather>,
) {
    let mut piece = vec![0; 64 * 1024];
    let idle_limit = route.idle_limit.unwrap_or(Duration::MAX);
    loop {
        let Ok(read) = timeout(idle_limit, from.read(&mut piece)).await else { return pending().await };
        let Ok(length @ 1..) = read else { return };
        if route.refused_word.is_some_and(|word| String::from_utf8_lossy(&piece[..length]).contains(word)) {
            return;
        }
        let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

async fn pass_replies(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let held = |weather: &Weather| matches!(weather, Weather::RepliesHeld | Weather::BlackHole);
        let Ok(now) = weather.wait_for(|weather| !held(weather)).await.map(|weather| *weather) else { return };
        if let Weather::Slow(delay) = now {
            sleep(delay).await;
        }
        let part = if now == Weather::RepliesTorn { length / 2 } else { length };
        if to.write_all(&piece[..part]).await.is_err() || part < length {
            return;
        }
    }
}
