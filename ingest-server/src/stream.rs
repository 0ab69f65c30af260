//! A connection that a listener has accepted, as a stream of bytes.
//!
//! Owns:     all that either listener asks of a socket: its options, whether it can be read or written, and the bytes.
//! Does not: know what is spoken on it (`http`, `mqtt`), or accept it.
//!
//! What encrypts belongs in here and nowhere else: the listeners know no socket, and each step here may fail or be not ready,
//! as one of TLS may that has to speak before it can be read. What is read and written is the only thing that changes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The stream of one connection.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

impl Stream {
    /// Of a socket that `peer` has connected to.
    pub fn accepted(tcp: TcpStream, peer: SocketAddr) -> Stream {
        // Answers are small and waited for: Nagle's algorithm would hold them back.
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "set TCP_NODELAY");
        }
        Stream { tcp }
    }

    /// Waits until there may be something to read. Cancel safe.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Whether there may be something to read; else the task is woken then. An error shows when it is read.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Whether something may be written; else the task is woken then.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    /// Reads what is there; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there. Others if the connection is broken.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.tcp.try_read(into)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none. Others if the connection is broken.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.try_write(bytes)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
