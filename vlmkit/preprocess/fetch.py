"""Fetch a URL within limits: http and https only, a deadline, a largest size, few redirects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import httpx2

from vlmkit.errors import VlmkitError
from vlmkit.preprocess.address import browser_address, is_public
from vlmkit.printable import mask_address

MAX_REDIRECTS = 5
MAX_HEAD_BYTES = 2**18
"""Before a body, with all that comes before the answer itself (``100 Continue``). The body, with
what stands around its chunks, has twice the size that is accepted."""
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "vlmkit", "Accept-Encoding": "identity"}  # nothing that unpacks to more


def fetch(url: str, *, timeout_s: float, max_bytes: int, private_addresses: bool = True) -> bytes:
    """Return the body at ``url``.

    Args:
        url: an http or https address as a browser takes it: spaces and characters outside ASCII
            are encoded, host names too.
        timeout_s: limit in seconds for everything from looking up the name to the last byte, all
            redirects included.
        max_bytes: the largest body accepted; the rest of a larger one is not read, and no body of
            a redirect or an error. What comes around the body is limited, too.
        private_addresses: whether this machine and private networks may be asked. Without it no
            request is sent to them, whatever name or redirect leads there.

    Raises:
        VlmkitError: another scheme, no answer, an HTTP error, too slow, too large.
    """
    name = _shown(url)
    try:
        return _within(timeout_s, _Wanted(url, name, max_bytes, private_addresses))
    except TimeoutError as error:
        raise VlmkitError(
            f"{name}: not received within {timeout_s:g} s; raise preprocess.url_timeout_s, or save"
            " the file and give its path"
        ) from error
    except httpx2.ConnectError as error:
        raise VlmkitError(f"{name}: no answer ({_cause(error)}); check the address") from error
    except VlmkitError:
        raise
    except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
        raise VlmkitError(
            f"{name}: the download failed ({_one_line(error)}); check the address"
        ) from error


class _Wanted(NamedTuple):
    """What to fetch, what to call it in messages, and what is allowed."""

    url: str
    name: str
    max_bytes: int
    private_addresses: bool


def _within(timeout_s: float, wanted: _Wanted) -> bytes:
    """Download in a thread: the caller may be in an event loop, and name lookups can't be ended."""
    result: Future[bytes] = Future()

    async def download() -> bytes:
        async with asyncio.timeout(timeout_s):  # closes the connection, however slowly it drips
            return await _download(wanted)

    def work() -> None:
        try:
            result.set_result(asyncio.run(download()))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, name="vlmkit fetch", daemon=True).start()
    return result.result(timeout_s)


async def _download(wanted: _Wanted) -> bytes:
    address = browser_address(wanted.url)
    count = _Count(wanted)
    async with httpx2.AsyncClient(headers=HEADERS, timeout=None) as client:
        for _ in range(MAX_REDIRECTS + 1):
            _check_scheme(address)
            trace = {"trace": _watch(address, wanted, count)}
            async with client.stream("GET", address, extensions=trace) as response:
                location = response.headers.get("Location", "")
                if response.status_code not in REDIRECTS or not location:
                    return await _body(response, wanted.name, wanted.max_bytes)
            address = browser_address(urljoin(address, location))
    raise VlmkitError(
        f"{wanted.name}: the server answered {response.status_code} (a redirect) more than"
        f" {MAX_REDIRECTS} times; check the address"
    )


class _Count:
    """How much was read of one answer: a server may say much before, in and after it."""

    def __init__(self, wanted: _Wanted) -> None:
        self._name, self._body = wanted.name, 2 * wanted.max_bytes
        self._read = self._most = 0

    def begin(self, *, body: bool) -> None:
        """A head is expected, or what comes after it."""
        self._read, self._most = 0, self._body if body else MAX_HEAD_BYTES

    def listen(self, stream: Any) -> None:
        """Count what a connection reads."""
        read = stream.read

        async def counted(max_bytes: int, timeout: float | None = None) -> bytes:
            piece: bytes = await read(max_bytes, timeout)
            self._read += len(piece)
            if self._read > max(self._most, MAX_HEAD_BYTES):
                raise VlmkitError(
                    f"{self._name}: the server sent {self._read / 2**20:.1f} MiB that are not the "
                    "file; check the address"
                )
            return piece

        stream.read = counted


def _watch(
    address: str, wanted: _Wanted, count: _Count
) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """Watch connections: what they read is counted, and private addresses may be refused."""
    refuse = None if wanted.private_addresses else _refuse_private(address)

    async def watch(event: str, info: Mapping[str, Any]) -> None:
        if refuse is not None:
            await refuse(event, info)
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            count.listen(info["return_value"])
        if ".receive_response_headers." in event:
            count.begin(body=event.endswith(".complete"))

    return watch


def _refuse_private(address: str) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """One to a private address is given up before a request is sent."""
    asked = httpx2.URL(address).raw_host.decode("ascii")
    may_be_proxy = bool(getproxies())

    async def watch(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            connecting.append(info["host"])
        if event != "connection.connect_tcp.complete":
            return
        if may_be_proxy and connecting[-1] != asked:
            return
        peer = str(info["return_value"].get_extra_info("server_addr")[0])
        if not is_public(peer):
            await info["return_value"].aclose()
            raise VlmkitError(
                f"{_shown(address)}: leads to the private address {peer}; save the file and give "
                "its path, or set preprocess.private_addresses"
            )

    connecting: list[str] = []
    return watch


async def _body(response: httpx2.Response, name: str, max_bytes: int) -> bytes:
    if not response.is_success:
        answer = _one_line(f"{response.status_code} {response.reason_phrase}")
        raise VlmkitError(f"{name}: the server answered {answer}; check the address")
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdecimal() else 0
    if announced > max_bytes:
        raise _too_large(name, max_bytes)
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(name, max_bytes)
    except httpx2.RemoteProtocolError as error:
        if len(body) >= announced:
            raise
        missing = announced - len(body)
        raise VlmkitError(f"{name}: the connection closed {missing} bytes too early") from error
    return bytes(body)


def _check_scheme(address: str) -> None:
    scheme = urlsplit(address).scheme
    if scheme not in ("http", "https"):
        raise VlmkitError(
            f"{_shown(address)}: {scheme}: addresses are not read; use http or https, or give a"
            " file's path"
        )


def _cause(error: BaseException) -> str:
    """Return what the innermost error says: the outer ones only say that no attempt succeeded."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return _one_line(error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error)


def _shown(address: str) -> str:
    text = mask_address(_one_line(address))
    return text if len(text) <= 200 else f"{text[:60]}… ({len(text)} characters)"


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__


def _too_large(name: str, max_bytes: int) -> VlmkitError:
    return VlmkitError(
        f"{name}: larger than {max_bytes / 2**20:g} MiB; raise preprocess.max_download_bytes, or"
        " save the file and give its path"
    )
