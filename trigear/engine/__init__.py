"""The whole server without I/O: bytes and time in, bytes and deadlines out."""
