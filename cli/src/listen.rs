//! Sockets that a program is given to accept connections on.

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::str::FromStr;

use crate::failure::Failure;
use crate::output;

/// An address to listen on for the program: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A host's name or address, without the brackets of IPv6.
    host: String,
    /// The port; 0 takes any that is free.
    port: u16,
}

/// A text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (host, port) = text.rsplit_once(':').ok_or(ListenError)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        // An IPv6 address without brackets ends in something like a port.
        if host.is_empty() || bracketed.is_none() && host.contains(':') {
            return Err(ListenError);
        }
        Ok(Self {
            host: bracketed.unwrap_or(host).to_owned(),
            port: port.parse().map_err(|_| ListenError)?,
        })
    }
}

/// Writes what `from_str` reads.
impl fmt::Display for Listen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(to, "[{}]:{}", self.host, self.port)
        } else {
            write!(to, "{}:{}", self.host, self.port)
        }
    }
}

impl Listen {
    /// Listens on all of them.
    pub(crate) fn open_all(addresses: &[Self]) -> Result<Vec<TcpListener>, Failure> {
        addresses.iter().map(Self::open).collect()
    }

    /// The addresses of `listeners`, which listen on `addresses`, that nobody knows yet, since any port would do.
    pub(crate) fn chosen(addresses: &[Self], listeners: &[TcpListener]) -> Vec<SocketAddr> {
        let opened = addresses.iter().zip(listeners);
        let chosen = opened.filter(|(address, _)| address.port == 0);
        chosen
            .filter_map(|(_, listener)| listener.local_addr().ok())
            .collect()
    }

    /// Tells which addresses were chosen. Not before the program can be suspended: whoever reads it may do so at once.
    pub(crate) fn announce(chosen: &[SocketAddr]) {
        for address in chosen {
            output::message(format_args!("listening on {address}"));
        }
    }

    fn open(&self) -> Result<TcpListener, Failure> {
        let resolved = (self.host.as_str(), self.port).to_socket_addrs();
        let bound = resolved.and_then(|addresses| {
            let addresses: Vec<_> = addresses.collect();
            TcpListener::bind(&*addresses)
        });
        bound.map_err(|error| {
            Failure::new(format!("cannot listen on {self}: {error}"))
                .hint("another address or port to --tcplisten may do")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:8080", "::1", 8080),
            ("localhost:0", "localhost", 0),
        ] {
            let listen = Listen {
                host: host.to_owned(),
                port,
            };
            assert_eq!(text.parse(), Ok(listen.clone()), "{text}");
            assert_eq!(listen.to_string(), text);
        }
        for text in [
            "",
            "80",
            ":80",
            "host",
            "host:",
            "host:65536",
            "::1:80",
            "host:http",
        ] {
            assert_eq!(text.parse::<Listen>(), Err(ListenError), "{text}");
        }
    }
}
