"""A server on localhost that answers well, badly, slowly or too much."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


def body(data: bytes, length: int | None = None, status: int = 200) -> Answer:
    """Answer with data, and with a Content-Length that may be wrong."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(location: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def unannounced(data: bytes) -> Answer:
    """Answer without a Content-Length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    return answer


def drip(stop: threading.Event) -> Answer:
    """Send a byte now and then, always sooner than a socket timeout."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                handler.wfile.write(b".")
                handler.wfile.flush()

    return answer


def drip_headers(stop: threading.Event) -> Answer:
    """Never come to the end of the headers, and never pause for long."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
            while not stop.wait(0.05):
                handler.wfile.write(b".")
                handler.wfile.flush()

    return answer


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    """Answer with what is no HTTP."""
    handler.wfile.write(b"\x00\x01 what?\r\n\r\n")


def silent(stop: threading.Event) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        stop.wait(20)

    return answer


@contextlib.contextmanager
def serve(routes: dict[str, Answer]) -> Iterator[str]:
    """Serve ``routes`` and give the address without a slash at its end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            routes.get(self.path, body(b"gone", status=404))(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
