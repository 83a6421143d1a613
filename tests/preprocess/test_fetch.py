from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.preprocess.server import (
    body,
    drip,
    drip_headers,
    nonsense,
    redirect,
    serve,
    silent,
    unannounced,
)
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, load_image

LIMITS = PreprocessConfig(url_timeout_s=60, max_download_bytes=5000)
SHORT = PreprocessConfig(url_timeout_s=0.4, max_download_bytes=5000)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    stop = threading.Event()
    routes = {
        "/ok.png": body(png()),
        "/chain": redirect("/chain2"),
        "/chain2": redirect("/ok.png"),
        "/loop": redirect("/loop"),
        "/to-file": redirect("file:///etc/hostname"),
        "/to-ftp": redirect("ftp://127.0.0.1/x.png"),
        "/to-data": redirect("data:image/png;base64,AAAA" + "A" * 1000),
        "/page": body(b"<html>hello</html>"),
        "/empty": body(b""),
        "/announced": body(b"", length=10**9),
        "/unannounced": unannounced(b"x" * 200_000),
        "/short": body(png(), length=4000),
        "/drip": drip(stop),
        "/silent": silent(stop),
        "/drip-headers": drip_headers(stop),
        "/gone": body(b"", status=302),
        "/nonsense": nonsense,
        "/error": body(b"", status=500),
    }
    with serve(routes) as url:
        yield url
        stop.set()


@pytest.mark.parametrize("path", ["/ok.png", "/chain"])
def test_fetches(address: str, path: str) -> None:
    image = load_image(address + path, config=LIMITS)
    assert (image.size, image.getpixel((0, 0))) == ((3, 2), (1, 2, 3))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "the server answered 404"),
        ("/error", "the server answered 500"),
        ("/loop", r"the server answered 302 \(a redirect\) more than 5 times"),
        ("/to-file", "file: addresses are not read; use http or https"),
        ("/to-ftp", "ftp: addresses are not read"),
        ("/to-data", "data: addresses are not read"),
        ("/page", "not an image in a known format"),
        ("/empty", "empty"),
        ("/announced", r"larger than 0.00476837 MiB; raise preprocess.max_download_bytes"),
        ("/unannounced", "larger than"),
        ("/short", "too early"),
        ("/drip", "not received within 0.4 s; raise preprocess.url_timeout_s"),
        ("/silent", "not received within 0.4 s"),
        ("/drip-headers", "not received within 0.4 s"),
        ("/gone", "the server answered 302"),
        ("/nonsense", "the download failed"),
    ],
)
def test_refused(address: str, path: str, message: str) -> None:
    limits = SHORT if "not received" in message else LIMITS
    with pytest.raises(VlmkitError, match=message) as caught:
        load_image(address + path, config=limits)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert "127.0.0.1" in text or text.startswith(("file:", "data:"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x.png", r"no answer \(.*Connect call failed"),
        ("http://", r"the download failed \(no host name in it\)"),
        ("https:///x.png", r"the download failed \(no host name in it\)"),
        ("http://[::1", r"the download failed \(Invalid IPv6 URL"),
        ("http://127.0.0.1:port/x", r"the download failed \(Port could not be cast"),
        ("file:///etc/hostname", "file: addresses are not read"),
        ("ftp://127.0.0.1/x.png", "ftp: addresses are not read"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        load_image(url, config=LIMITS)


def test_the_limit_holds_for_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def lookup(*args: object, **kwargs: object) -> list[object]:
        answered.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(VlmkitError, match=r"not received within 0.4 s"):
        load_image("http://slow.example/x.png", config=SHORT)
    assert not answered.is_set()
    answered.set()


def test_fetches_from_within_an_event_loop(address: str) -> None:
    async def look() -> Image.Image:
        return load_image(f"{address}/ok.png", config=LIMITS)

    assert asyncio.run(look()).size == (3, 2)
