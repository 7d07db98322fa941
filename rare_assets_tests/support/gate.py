"""A way to a server on loopback that can be shut: who comes then is refused, as by a server that is away."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

# A connection that is closed with this is reset at once.
_RESET = struct.pack("ii", 1, 0)


class Gate:
    """Forwards connections to a port of this machine while it is open. A context manager.

    What a client calls the server's address is the gate's: `port`.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.refused = 0
        self._open, self._status = True, 0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Gate:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shut()
        self._listening.close()

    @contextlib.contextmanager
    def shut(self, status: int = 0) -> Iterator[None]:
        """Cut the connections that there are, and refuse others, until the block ends; with a status of HTTP,
        others are answered with it."""
        self._status = status
        self._shut()
        yield
        self._open = True

    def _shut(self) -> None:
        with self._lock:
            self._open = False
            for connection in self._connections:
                _reset(connection)
            self._connections.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if not self._open:
                    self.refused += 1
                    self._refuse(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._connections |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _refuse(self, client: socket.socket) -> None:
        if not self._status:
            _reset(client)
            return
        with contextlib.suppress(OSError):
            client.recv(1 << 16)
            answer = (
                f"HTTP/1.1 {self._status} Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            client.sendall(answer.encode())
        client.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._connections.discard(source)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
