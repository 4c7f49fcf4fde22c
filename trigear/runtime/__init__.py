"""Sockets, tasks and clocks: the only room below the faces that imports Trio."""
