"""Bytes and packets: one table of packet types, one of text commands, and the codec between."""
