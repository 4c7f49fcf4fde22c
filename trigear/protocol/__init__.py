"""The connection machine: what one end of a Gearman conversation may say and hear, without I/O.

One machine, three columns of the packet table: :class:`~trigear.protocol.server.ServerConnection`
takes requests, :class:`~trigear.protocol.client.ClientConnection` and
:class:`~trigear.protocol.worker.WorkerConnection` make them.
"""
