//! The order of writes. Never derived from a wall clock (P12).

use std::fmt;
use std::str::FromStr;

/// One server for as long as its data folder lives: 64 random bits, drawn when the folder is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// The number of a node's present life. It only grows: each start takes the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeEpoch(pub u64);

/// The place of one log frame in the order of all writes.
///
/// Compared field by field in the order given here. `counter` is a Lamport counter: a write beats every
/// write its node had seen; truly concurrent writes are ordered by node, the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Lamport counter of the frame; starts at 1.
    pub counter: u64,
    /// The node that accepted the write.
    pub node: NodeId,
    /// The life of the node in which it did.
    pub epoch: NodeEpoch,
    /// Bytes of log the node had written, since it was created, before this frame. Never restarts.
    pub offset: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(NodeId)
    }
}

impl fmt::Display for NodeEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `counter.node.epoch.offset`, the form in which Delta `add` tags carry it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.counter, self.node, self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || PositionError(text.chars().take(100).collect());
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or_else(malformed);
        let (counter, node, epoch, offset) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(malformed());
        }
        Ok(Position {
            counter: counter.parse().map_err(|_| malformed())?,
            node: node.parse().map_err(|_| malformed())?,
            epoch: NodeEpoch(epoch.parse().map_err(|_| malformed())?),
            offset: offset.parse().map_err(|_| malformed())?,
        })
    }
}

/// A text that is no [`Position`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a position (counter.node.epoch.offset)")]
pub struct PositionError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn position(counter: u64, node: u64, epoch: u64, offset: u64) -> Position {
        Position { counter, node: NodeId(node), epoch: NodeEpoch(epoch), offset }
    }

    #[test]
    fn the_counter_outweighs_node_epoch_and_offset() {
        assert!(position(2, 0, 0, 0) > position(1, 9, 9, 9));
        assert!(position(1, 2, 0, 0) > position(1, 1, 9, 9));
        assert!(position(1, 1, 2, 0) > position(1, 1, 1, 9));
    }

    #[test]
    fn the_text_form_reads_back() {
        let written = position(7, 0xfeed_0000_0000_0001, 3, 1 << 40);
        assert_eq!(written.to_string().parse::<Position>().unwrap(), written);
        for bad in ["", "1.2.3", "1.2.3.4.5", "x.0.0.0", "1.zz.0.0"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
