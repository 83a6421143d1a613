from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.preprocess.server import body, drip, redirect, serve, silent, unannounced
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, load_image

LIMITS = PreprocessConfig(url_timeout_s=0.4, max_download_bytes=5000)


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
        "/to-data": redirect("data:image/png;base64,AAAA"),
        "/page": body(b"<html>hello</html>"),
        "/empty": body(b""),
        "/announced": body(b"", length=10**9),
        "/unannounced": unannounced(b"x" * 200_000),
        "/short": body(png(), length=4000),
        "/drip": drip(stop),
        "/silent": silent(stop),
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
        ("/loop", "302"),
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
    ],
)
def test_refused(address: str, path: str, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        load_image(address + path, config=LIMITS)
    text = str(caught.value)
    assert "\n" not in text
    assert "127.0.0.1" in text or text.startswith(("file:", "data:"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x.png", "no answer"),
        ("http://", "no answer|download failed"),
        ("http://[::1", "not a usable|download failed|no answer"),
        ("http://127.0.0.1:port/x", "download failed"),
        ("file:///etc/hostname", "file: addresses are not read"),
        ("ftp://127.0.0.1/x.png", "ftp: addresses are not read"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        load_image(url, config=LIMITS)
