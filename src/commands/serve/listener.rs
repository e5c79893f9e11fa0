//! Binds the addresses of the service.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// A listener and its address, with the port that the system chose for port 0.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) listener: TcpListener,
    pub(super) local_addr: SocketAddr,
}

/// An address that can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: failed to listen on {address}: {source}; set another address")]
pub struct ListenError {
    /// The setting with the address.
    setting: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl BoundListener {
    /// Binds the `address` of `setting`.
    pub(super) async fn bind(setting: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { setting, address, source };
        let listener = match address {
            SocketAddr::V6(any) if any.ip().is_unspecified() => bind_or_ipv4(any, bind_both_families).await,
            _ => TcpListener::bind(address).await,
        };
        let listener = listener.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr })
    }

    /// Returns a URL that opens the service in a browser on this machine.
    pub(super) fn url(&self, is_tls: bool) -> String {
        let scheme = if is_tls { "https" } else { "http" };
        if self.local_addr.ip().to_canonical().is_unspecified() {
            return format!("{scheme}://localhost:{}/", self.local_addr.port());
        }
        format!("{scheme}://{}/", self.local_addr)
    }

    /// Returns whether only this machine can reach the address.
    pub(super) fn is_local(&self) -> bool {
        self.local_addr.ip().to_canonical().is_loopback()
    }
}

/// Binds `[::]` by `bind`, or `0.0.0.0` on a machine without IPv6, so that one address suits all machines.
async fn bind_or_ipv4(
    address: SocketAddrV6,
    bind: impl FnOnce(SocketAddrV6) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    match bind(address) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable
                || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            tracing::info!(%address, "this machine has no IPv6, listening on IPv4 only");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Binds `[::]` for IPv4 as well, regardless of `net.ipv6.bindv6only`.
fn bind_both_families(address: SocketAddrV6) -> io::Result<TcpListener> {
    /// The system reduces it to its limit, as for [`TcpListener::bind`].
    const BACKLOG: u32 = 65_535;
    let socket = TcpSocket::new_v6()?;
    SockRef::from(&socket).set_only_v6(false)?;
    // Lets a restart bind while connections of the previous process are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::unsupported_family(io::Error::from(Errno::AFNOSUPPORT))]
    #[case::address_not_available(io::Error::from(io::ErrorKind::AddrNotAvailable))]
    #[tokio::test]
    async fn bind_falls_back_to_ipv4_without_ipv6(#[case] error: io::Error) {
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let listener = bind_or_ipv4(any, |_| Err(error)).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    }

    #[rstest]
    #[case::loopback("127.0.0.1:0", false, "http://127.0.0.1:PORT/")]
    #[case::any_ipv4("0.0.0.0:0", false, "http://localhost:PORT/")]
    #[case::any_ipv6("[::]:0", true, "https://localhost:PORT/")]
    #[tokio::test]
    async fn url_can_be_opened_on_this_machine(#[case] address: &str, #[case] is_tls: bool, #[case] url: &str) {
        let bound = BoundListener::bind("listen", address.parse().unwrap()).await.unwrap();
        assert_eq!(bound.url(is_tls), url.replace("PORT", &bound.local_addr.port().to_string()));
    }

    #[tokio::test]
    async fn bind_returns_any_other_error() {
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let error = bind_or_ipv4(any, |_| Err(io::ErrorKind::AddrInUse.into())).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
