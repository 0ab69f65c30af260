//! What an outbox does in single situations.
