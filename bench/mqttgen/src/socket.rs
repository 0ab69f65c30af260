//! A connection with a buffer each way: many small packets go out in one write and come in with one read.

use std::io::{Error, ErrorKind, Result};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::packet::{self, Reply};
use crate::{Options, PATIENCE};

const READ_CHUNK: usize = 8 * 1024;
/// At QoS 0 nothing but the socket holds a publisher back.
pub(crate) const WRITE_MAX: usize = 64 * 1024;

pub(crate) struct Socket {
    stream: TcpStream,
    /// Not sent yet.
    pub(crate) out: Vec<u8>,
    received: Vec<u8>,
}

impl Socket {
    /// Connects and is accepted.
    pub(crate) async fn connect(options: &Options, client_id: &str) -> Result<Self> {
        let connected = async {
            let stream = TcpStream::connect(&options.address).await?;
            stream.set_nodelay(true)?;
            let mut socket = Socket { stream, out: Vec::new(), received: Vec::new() };
            packet::connect(client_id, options.keep_alive, &mut socket.out);
            let mut replies = Vec::new();
            while replies.is_empty() {
                socket.exchange(&mut replies).await?;
            }
            if replies != [Reply::ConnAck] {
                return Err(Error::new(ErrorKind::InvalidData, format!("{replies:?} instead of CONNACK")));
            }
            Ok(socket)
        };
        tokio::time::timeout(PATIENCE, connected).await.map_err(|_| Error::from(ErrorKind::TimedOut))?
    }

    /// Waits until something can be sent that is to be sent, or something has come; does both.
    pub(crate) async fn exchange(&mut self, replies: &mut Vec<Reply>) -> Result<()> {
        let interest = if self.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest).await?;
        if ready.is_writable() && !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_readable() {
            self.receive(replies)?;
        }
        Ok(())
    }

    fn receive(&mut self, replies: &mut Vec<Reply>) -> Result<()> {
        let mut chunk = [0; READ_CHUNK];
        match self.stream.try_read(&mut chunk) {
            Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(len) => self.received.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut at = 0;
        while let Some((reply, len)) = packet::read(&self.received[at..])? {
            replies.push(reply);
            at += len;
        }
        self.received.drain(..at);
        Ok(())
    }
}
