"""Addresses as people write them reach the server as a browser would send them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import idna
import pytest
from PIL import Image

import vlmkit
from tests.preprocess.server import body, redirect, serve
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, load_image
from vlmkit.preprocess.address import browser_address

LIMITS = PreprocessConfig(url_timeout_s=60)

# What is written, and the path and query that the server gets.
PATHS = {
    "/grüß.png": "/gr%C3%BC%C3%9F.png",
    "/a b.png": "/a%20b.png",
    "/a%20b.png": "/a%20b.png",
    "/100%.png": "/100%.png",
    "/100%25.png": "/100%25.png",
    "/日本/🐈.png": "/%E6%97%A5%E6%9C%AC/%F0%9F%90%88.png",
    "/x.png?name=größe 2": "/x.png?name=gr%C3%B6%C3%9Fe%202",
    '/"<>{}`.png': "/%22%3C%3E%7B%7D%60.png",
    "/x\x0b.png": "/x%0B.png",
    "/one\n  two.png": "/one%20%20two.png",
    "/x\\y.png?z\\": "/x/y.png?z\\",
    "/here.png#größe": "/here.png",
    "  /white.png\n": "/white.png",
}
HOSTS = {
    "grüß.example": "xn--gr-hia9i.example",
    "Bücher.Example": "xn--bcher-kva.example",
    "faß.example": "xn--fa-hia.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",  # ü in two characters
    "b%C3%BCcher.example": "xn--bcher-kva.example",
    "例え。テスト": "xn--r8jz45g.xn--zckzah",
    "☕.example": "xn--53h.example",
    "ｅｘａｍｐｌｅ.org": "example.org",
    "EXAMPLE.org": "example.org",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 56), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    routes = dict.fromkeys(PATHS.values(), body(png()))
    routes |= {f"http://{host}/%C3%BC.png": body(png()) for host in HOSTS.values()}
    routes["/to-utf-8"] = redirect("/grüß.png".encode().decode("latin-1"))  # sent as UTF-8
    routes["/to-space"] = redirect("a b.png")
    with serve(routes) as url:
        yield url


@pytest.mark.parametrize("path", PATHS)
def test_paths(address: str, path: str) -> None:
    lead = path[: len(path) - len(path.lstrip())]
    assert load_image(lead + address + path.lstrip(), config=LIMITS).size == (28, 56)


@pytest.mark.parametrize("path", ["/to-utf-8", "/to-space"])
def test_redirects(address: str, path: str) -> None:
    assert load_image(address + path, config=LIMITS).size == (28, 56)


@pytest.mark.parametrize("host", HOSTS)
def test_host_names(address: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", address)  # gets the name instead of a name server
    assert load_image(f"http://{host}/ü.png", config=LIMITS).size == (28, 56)


@pytest.mark.parametrize("host", [host for host in HOSTS if "☕" not in host and "%" not in host])
def test_host_names_are_those_of_idna(host: str) -> None:
    expected = idna.encode(host, uts46=True).decode()
    assert browser_address(f"http://{host}/").lower() == f"http://{expected}/"


def test_digits_of_another_width_are_an_address(address: str) -> None:
    url = address.replace("127.0.0.1", "１２７。０．０.１") + "/a b.png"
    assert load_image(url, config=LIMITS).size == (28, 56)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a b.example/x", "'a b.example' is not a host name: it has a ' '"),
        ("http://a%2Fb.example/x", "'a%2Fb.example' is not a host name: it has a '/'"),
        ("http://a\u00ad%00/x", "is not a host name: it has a '\\\\x00'"),
        ("http://\u2fff.example/x", "is not a host name: "),
        (f"http://{'ü' * 70}.example/x", "no answer"),
        ("http://127.0.0.1:99999/x", "Port out of range"),
        ("http://127.0.0.1/\ud800", "surrogates not allowed"),
        (f"http://127.0.0.1/{'x' * 70_000}", "URL too long"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        load_image(url, config=LIMITS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).endswith("; check the address")


def test_python_command_line_and_yaml_take_the_same_address(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{address}/grüß.png"
    file = tmp_path / "run.yaml"
    file.write_text(f"prompt: Where?\nimages: ['{url}']\n")
    tokens = []
    for argv in (["--prompt", "Where?", "--image", url], [str(file)]):
        assert main(["generate", *argv, "--max-tokens", "2", "--json"]) == 0
        tokens.append(json.loads(capsys.readouterr().out)["token_ids"])
    model, processor = vlmkit.load("shapes")
    prompt = vlmkit.apply_chat_template(processor, None, "Where?", num_images=1)
    reply = vlmkit.generate(model, processor, prompt, image=url, max_tokens=2)
    assert tokens == [list(reply.token_ids)] * 2
