//! The cost of access control and telemetry: `POST /segments` with keys, tokens and traces, compared with the same
//! without.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use segment_estimator::auth::{JwtAlgorithm, JwtConfig, Scope, mint};
use segment_estimator::domain::Timestamp;

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::RequestFile;
use crate::servers::{Redis, Service};

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let collector = format!("http://{}", start_collector()?);
    let keys = plan.folder.join("keys.toml");
    let key = mint::api_key_into(&keys, "bench", &[Scope::WriteSegments])?;
    let keys = keys.display().to_string();
    let secret = plan.folder.join("secret");
    std::fs::write(&secret, "8d1f0a6b53c94e27b1d85f3a9c0e7264f1a83b5d6e904c72")?;
    let token = sign(&secret)?;
    let secret = secret.display().to_string();

    let count = plan.sizes.requests;
    let plain = RequestFile::posts(&plan.folder, count)?;
    let with_key = RequestFile::posts_by(&plan.folder, "posts-with-key", count, &key)?;
    let with_token = RequestFile::posts_by(&plan.folder, "posts-with-token", count, &token)?;

    let traces = [("OTLP_ENDPOINT", collector.as_str()), ("TRACE_RATIO", "0.01")];
    let key_settings = [("API_KEYS_FILE", keys.as_str())];
    let all_settings = [&traces[..], &key_settings, &[("ADMIN_LISTEN", "127.0.0.1:0")]].concat();
    let post = Service::start(plan, &redis)?;
    let by_key = Service::start_with(plan, &redis, &key_settings)?;
    let by_token = Service::start_with(plan, &redis, &[("JWT_ALGORITHM", "HS256"), ("JWT_KEY_FILE", secret.as_str())])?;
    let traced = Service::start_with(plan, &redis, &traces)?;
    let all = Service::start_with(plan, &redis, &all_settings)?;
    let baseline = Service::start_baseline(plan, &redis)?;

    let contender = |name, service, requests| Contender::writes(name, &redis, service, requests);
    let mut contenders = vec![
        contender("post", &post, &plain),
        contender("with an API key", &by_key, &with_key),
        contender("with a JSON Web Token (HS256)", &by_token, &with_token),
        contender("one in 100 traced", &traced, &plain),
        contender("all of it", &all, &with_key),
    ];
    contenders.extend(baseline.as_ref().map(|service| contender("baseline", service, &plain)));
    run_in_turns(plan, "front", &mut contenders)?;
    report(plan, &contenders)
}

/// Returns a token that may write segments, signed with the secret in the file `secret`.
fn sign(secret: &std::path::Path) -> Result<String> {
    const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let config = JwtConfig {
        algorithm: JwtAlgorithm::Hs256,
        key_file: secret.to_owned(),
        issuer: None,
        audience: None,
        leeway: Duration::ZERO,
    };
    Ok(mint::jwt(&config, "bench", &[Scope::WriteSegments], A_DAY, Timestamp::now())?)
}

/// Starts a collector that discards traces. It ends with this process, and reads only their lengths.
fn start_collector() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || take_in(stream));
        }
    });
    Ok(address)
}

fn take_in(mut stream: TcpStream) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        let length = match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => length,
        };
        received.extend_from_slice(&buffer[..length]);
        let Some(head) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
        let body = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = head + 4 + body.unwrap_or_default();
        if received.len() >= whole {
            received.drain(..whole);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

fn report(plan: &Plan, contenders: &[Contender<'_>]) -> Result<Part> {
    let rows = contenders.iter().map(|contender| contender.row()).collect::<Result<_>>()?;
    let [post, others @ ..] = contenders else { unreachable!("there is always a plain one") };
    let (checked, baseline): (Vec<_>, Vec<_>) = others.iter().partition(|other| other.name != "baseline");
    let to_post = |other: &Contender<'_>| {
        let measure = format!("requests/s, {} to post", other.name);
        Check::at_least(measure, &other.throughput(), &post.throughput(), target(other.name))
    };
    let mut checks: Vec<_> = checked.into_iter().map(to_post).collect();
    checks.extend(baseline.into_iter().flat_map(|baseline| post.checks_to_baseline(baseline)));
    Ok(Part {
        title: "front",
        note: format!(
            "The cost of access control and telemetry. *post* is the service with its defaults: metrics are always counted, tracing is \
             off. *All of it* has an API key with each request, one in 100 traced, and a separate listener for probes and \
             metrics. Traces go to a collector that discards them. Medians of {} rounds of {} s.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows,
        checks,
    })
}

/// The minimum ratio of a contender's throughput to the plain one's.
fn target(name: &str) -> f64 {
    match name {
        "with a JSON Web Token (HS256)" => 0.85,
        "all of it" => 0.9,
        _ => 0.95,
    }
}
