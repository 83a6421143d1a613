"""A server that says whatever bytes a test wants, as slowly or as long as it wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Speak = Callable[[socket.socket, threading.Event], None]
"""Answers one connection, whose request has been read, until it is told to stop."""


def drip(before: bytes, piece: bytes, after: bytes = b"") -> Speak:
    """Send a piece again and again, always sooner than a time limit of single reads."""

    def speak(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(before)
        while not stop.wait(0.03):
            connection.sendall(piece)
        connection.sendall(after)

    return speak


def flood(before: bytes, piece: bytes) -> Speak:
    """Send as much as the other side takes; counts nothing, ends with the connection."""

    def speak(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(before)
        while not stop.is_set():
            connection.sendall(piece)

    return speak


def say(*pieces: bytes) -> Speak:
    def speak(connection: socket.socket, stop: threading.Event) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return speak


@contextlib.contextmanager
def serve_bytes(routes: dict[str, Speak]) -> Iterator[str]:
    """Answer requests by their path; gives the address, without a slash at its end."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            request = b""
            while b"\r\n\r\n" not in request:
                if not (piece := connection.recv(1 << 16)):
                    return
                request += piece
            routes[request.split()[1].decode()](connection, stop)

    def accept() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        server.close()
