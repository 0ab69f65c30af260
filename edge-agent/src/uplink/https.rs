//! HTTP over TLS: the client library of HTTP on rustls, with what `tls` trusts.
//!
//! Owns:     the layer between HTTP's buffers and TLS.
//! Does not: decide what is trusted, or speak HTTP.
//!
//! The library's own layer would turn on a feature of rustls that the server's dependencies do without, so that everything
//! that stands on rustls were built twice.

use std::fmt;
use std::io::{Read as _, Write as _};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};

use super::tls::Trusted;

/// A client that speaks TLS where the URL says so.
pub(super) fn agent(config: ureq::config::Config, trusted: Trusted) -> ureq::Agent {
    ureq::Agent::with_parts(config, TcpConnector::default().chain(Secure(trusted)), DefaultResolver::default())
}

#[derive(Debug)]
struct Secure(Trusted);

impl<In: Transport> Connector<In> for Secure {
    type Out = Either<In, Secured>;

    fn connect(&self, details: &ConnectionDetails<'_>, below: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = below else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(below)));
        }
        // An address of version 6 stands in brackets.
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| ureq::Error::Tls("the host has no name for TLS"))?;
        let failed = |e: rustls::Error| ureq::Error::Io(std::io::Error::other(e));
        let mut connection = ClientConnection::new(std::sync::Arc::clone(&self.0), name).map_err(failed)?;
        let mut socket = TransportAdapter::new(below.boxed(), std::sync::Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Secured { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection whose handshake is done.
struct Secured {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secured")
    }
}

impl Transport for Secured {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
