"""Processes that listen: their sockets, the server that carries an ASGI app on them, and how they leave."""
