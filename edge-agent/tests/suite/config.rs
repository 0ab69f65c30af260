//! What an operator writes, and what is said about mistakes.
