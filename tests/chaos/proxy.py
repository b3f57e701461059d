"""A door in front of the object store that can be told to misbehave.

It passes bytes on unread (so that signatures stay valid). Modes: `pass`; `500`, `503`: every new request is
refused; `stall`: connections stay open and nothing is answered; `hole`: the same, and those connections are never
answered any more, as when what lies between forgot them; `body`: answers break off in the middle; `answer`:
requests are carried out and their answers lost.
"""

from __future__ import annotations

import contextlib
import socket
import threading

MODES = ("pass", "500", "503", "stall", "hole", "body", "answer")
WAITING = ("stall", "hole")
CUT_AFTER = 700
"""Bytes of an answer that pass in mode `body`: its headers, and some of a payload."""
_CODES = {"500": ("Internal Server Error", "InternalError"), "503": ("Slow Down", "SlowDown")}


class Proxy:
    """Listens on a port of its own; `hits` counts what each mode did to connections."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._mode = "pass"
        self._going = threading.Event()
        self._going.set()
        self._open: set[socket.socket] = set()
        self._silent: list[socket.socket] = []
        """Connections that lead nowhere any more."""
        self._guard = threading.Lock()
        self.hits: dict[str, int] = {}
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def set(self, mode: str) -> None:
        """Change the mode. Open connections are cut, except to stall (or hole) and back: those only wait."""
        assert mode in MODES
        if mode in WAITING:
            self._mode = mode
            if mode == "stall":
                self._going.clear()
            return
        waited = self._mode in WAITING
        self._mode = mode
        self._going.set()
        if not (waited and mode == "pass"):
            with self._guard:
                for connection in list(self._open):
                    _end(connection)

    def close(self) -> None:
        self._listener.close()
        self.set("pass")
        for connection in self._silent:
            _end(connection)

    def _hit(self, mode: str) -> None:
        with self._guard:
            self.hits[mode] = self.hits.get(mode, 0) + 1

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._mode == "stall":
            self._hit("stall")
        self._going.wait()
        mode = self._mode
        if mode == "hole":
            self._silence(client)
            return
        if mode in _CODES:
            self._hit(mode)
            self._refuse(client, mode)
            return
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            _end(client)
            return
        server.settimeout(None)
        with self._guard:
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(client, server, "pass"), daemon=True).start()
        self._pump(server, client, mode)
        with self._guard:
            self._open -= {client, server}

    def _silence(self, *connections: socket.socket) -> None:
        """Leave connections open and never say a word on them again."""
        self._hit("hole")
        with self._guard:
            self._silent += connections
            self._open -= set(connections)

    def _pump(self, source: socket.socket, sink: socket.socket, mode: str) -> None:
        """Pass bytes on until either side ends."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._mode == "stall":
                    self._hit("stall")
                self._going.wait()
                if self._mode == "hole":
                    self._silence(source, sink)
                    return
                if mode == "answer" and not data.startswith(b"HTTP/1.1 100"):
                    self._hit(mode)
                    break
                if mode == "body" and passed + len(data) > CUT_AFTER:
                    sink.sendall(data[: max(0, CUT_AFTER - passed)])
                    self._hit(mode)
                    break
                sink.sendall(data)
                passed += len(data)
        _end(source)
        _end(sink)

    @staticmethod
    def _refuse(client: socket.socket, mode: str) -> None:
        reason, code = _CODES[mode]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>chaos</Message></Error>".encode()
        head = f"HTTP/1.1 {mode} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        with contextlib.suppress(OSError):
            client.settimeout(5)
            client.recv(65_536)
            client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        _end(client)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
