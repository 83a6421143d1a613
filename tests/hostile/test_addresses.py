"""Servers that never end, and addresses that hold secrets."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.hostile.limited import Call, Outcome, is_one_line, run_limited
from tests.hostile.sockets import Speak, drip, flood, say, serve_bytes
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, load_image
from vlmkit.preprocess.fetch import fetch
from vlmkit.printable import mask_secrets

OK = b"HTTP/1.1 200 OK\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /next\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LATE, LARGE = "not received within 0.15 s", "larger than"
AROUND = "MiB that are not the file"
MIB = b"x" * 2**20
MANY_CHUNKS = b"1\r\nx\r\n" * 10_000


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def whole() -> bytes:
    content = png()
    return OK + b"Content-Length: %d\r\n\r\n" % len(content) + content


ROUTES: dict[str, tuple[Speak, str]] = {
    "/status-line": (drip(b"HTTP/1.1 200 ", b"O"), LATE),
    "/no-status-line": (drip(b"", b"H"), LATE),
    "/header": (drip(OK + b"X: ", b"x"), LATE),
    "/headers": (drip(OK, b"X: x\r\n"), LATE),
    "/continue": (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LATE),
    "/hints": (drip(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), LATE),
    "/chunk-size": (drip(CHUNKED, b"0"), LATE),
    "/chunk-extension": (drip(CHUNKED + b"1;", b"x"), LATE),
    "/chunks": (drip(CHUNKED, b"1\r\nx\r\n"), LATE),
    "/trailers": (drip(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: x\r\n"), LATE),
    "/body": (drip(OK + b"\r\n", b"x"), LATE),
    "/silence": (drip(OK + b"\r\n", b""), LATE),
    "/flood-of-body": (flood(OK + b"\r\n", MIB), LARGE),
    "/flood-of-chunks": (flood(CHUNKED, b"100000\r\n" + MIB + b"\r\n"), LARGE),
    "/flood-of-header": (flood(OK + b"X: ", MIB), "the download failed"),
    "/flood-of-headers": (flood(OK, b"X: x\r\n" * 10_000), "the download failed"),
    "/flood-of-hints": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000), AROUND),
    "/flood-of-extensions": (flood(CHUNKED, b"1;" + b"x" * 10_000 + b"\r\nx\r\n"), AROUND),
    "/flood-of-trailers": (flood(CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000), "the download failed"),
    "/unpacks": (say(OK + b"Content-Encoding: gzip\r\n\r\n" + MIB), "not an image"),
    "/escapes": (say(b"HTTP/1.1 500 \x1b[2J\x07Oops\r\n\r\n"), "the "),
}
REDIRECTS: dict[str, Speak] = {  # their bodies are not waited for
    "/moved": say(MOVED + b"\r\n"),
    "/moved-and-drips": drip(MOVED + b"\r\n", b"x"),
    "/moved-and-floods": flood(MOVED + b"Content-Length: 99999999999\r\n\r\n", MIB),
    "/moved-in-chunks": flood(MOVED + b"Transfer-Encoding: chunked\r\n\r\n", MANY_CHUNKS),
}
LIMITS = PreprocessConfig(url_timeout_s=60, max_download_bytes=2 * 2**20)
SHORT = PreprocessConfig(url_timeout_s=0.15, max_download_bytes=2 * 2**20)
LED_ON = ("/moved-to-drips", "/around")
MESSAGES = {path: message for path, (_, message) in ROUTES.items()} | dict.fromkeys(LED_ON, LATE)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    routes = {path: speak for path, (speak, _) in ROUTES.items()} | REDIRECTS
    routes["/next"] = say(whole())
    routes["/moved-to-drips"] = say(MOVED.replace(b"/next", b"/body") + b"\r\n")
    routes["/around"] = drip(MOVED.replace(b"/next", b"/around")[:-2], b"x")
    with serve_bytes(routes) as url:
        yield url


def outcomes(address: str) -> dict[str, Outcome]:
    calls = [
        Call(
            "vlmkit.preprocess:load_image",
            (address + path,),
            {"config": SHORT if message == LATE else LIMITS},
        )
        for path, message in MESSAGES.items()
    ]
    imports = ["vlmkit.preprocess.fetch", "vlmkit.preprocess", "PIL.PngImagePlugin"]
    found = run_limited(calls, imports=imports, max_s=10)
    return dict(zip(MESSAGES, found, strict=True))


def test_one_deadline_and_one_size_for_everything(address: str) -> None:
    for path, outcome in outcomes(address).items():
        assert (outcome.kind, outcome.is_lawful()) == ("error", True), (path, outcome)
        assert MESSAGES[path] in outcome.text, path
        assert address + path in outcome.text, path


@pytest.mark.parametrize("path", REDIRECTS)
def test_bodies_of_redirects_are_not_read(path: str, address: str) -> None:
    assert load_image(address + path, config=LIMITS).size == (3, 2)


def test_threads_end_with_their_deadline(address: str) -> None:
    with pytest.raises(VlmkitError, match="not received"):
        fetch(address + "/continue", timeout_s=0.1, max_bytes=10)
    for thread in threading.enumerate():
        if thread.name == "vlmkit fetch":
            thread.join(20)
            assert not thread.is_alive()


def test_private_addresses_are_a_setting(address: str) -> None:
    own = PreprocessConfig(private_addresses=False)
    port = address.rpartition(":")[2]
    for url in (f"{address}/next", f"http://localhost:{port}/next", f"http://0x7f.1:{port}/next"):
        assert load_image(url, config=LIMITS).size == (3, 2)
        with pytest.raises(VlmkitError, match=r"leads to the private address 127\.0\.0\.1; "):
            load_image(url, config=own)


SECRET = "https://me:hunter2@example.invalid/a.png?size=2&token=hunter2#key=hunter2"


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        "http://hunter2@[::1",
        "http://me:" + "hunter2" * 60 + "@127.0.0.1:1/a.png",
        "http:\\\\me:hunter2@127.0.0.1:1/a.png",
        "ftp://me:x@h/a.png?sig=http://a:hunter2@b",
        "http://127.0.0.1:1/?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2",
        "http://127.0.0.1:1/?q=" + "hunter2" * 9,
        "http://a b:hunter2@127.0.0.1:port/",
    ],
)
def test_errors_hold_no_secrets(url: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        load_image(url, config=PreprocessConfig(url_timeout_s=1))
    assert "hunter2" not in str(caught.value)
    assert is_one_line(str(caught.value))


def test_what_is_no_secret_stays() -> None:
    for text in (
        "https://a.org/b/c@2x.png?size=2&page=3#top",
        "mail me@a.org, http://a.org",
        "token=abc",
        "a http://a.org/x b@c",
    ):
        assert mask_secrets(text) == text
    assert mask_secrets(f"a {SECRET} b") == (
        "a https://***@example.invalid/a.png?size=2&token=***#key=*** b"
    )


def test_redirects_hold_no_secrets(address: str) -> None:
    location = b"ftp://me:hunter2@127.0.0.1/?token=hunter2"
    moved = say(MOVED.replace(b"/next", location) + b"\r\n")
    bad = say(MOVED.replace(b"/next", b"http://me:hunter2@127.0.0.1:1/?token=hunter2") + b"\r\n")
    with serve_bytes({"/moved": moved, "/bad": bad}) as url:
        for path in ("/moved", "/bad"):
            with pytest.raises(VlmkitError) as caught:
                load_image(url + path, config=LIMITS)
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_describe_shows_no_secrets(
    flag: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    address = "https://me:hunter2@a.org/x.png?size=2&token=hunter2"
    assert main(["describe", *flag, f"images=['{address}']"]) == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert "https://***@a.org/x.png?size=2&token=***" in shown
