//! What one end of a link does, message by message.
