"""The server, the client and the worker on Trio: of floors 0 to 5 the only room that knows it."""
