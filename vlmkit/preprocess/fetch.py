"""Fetch a URL within limits: http and https only, a deadline, a largest size, few redirects."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import IO
from urllib.parse import urlsplit

from vlmkit.errors import VlmkitError

MAX_REDIRECTS = 5
CHUNK_BYTES = 65536


def fetch(url: str, *, timeout_s: float, max_bytes: int) -> bytes:
    """Return the body at ``url``.

    Args:
        timeout_s: limit in seconds for each wait, and for the whole download.
        max_bytes: the largest body accepted; the rest of a larger one is not read.

    Raises:
        VlmkitError: another scheme, no answer, an HTTP error, too slow, too large.
    """
    deadline = time.monotonic() + timeout_s
    try:
        _check_scheme(url)
        request = urllib.request.Request(url, headers={"User-Agent": "vlmkit"})
        with _opener().open(request, timeout=timeout_s) as response:
            announced = response.headers.get("Content-Length", "")
            if announced.isdecimal() and int(announced) > max_bytes:
                raise _too_large(url, max_bytes)
            return _read(response, url, deadline, timeout_s, max_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        raise VlmkitError(
            f"{url}: the server answered {error.code} {_one_line(error.reason)}; check the address"
        ) from error
    except TimeoutError as error:
        raise _too_slow(url, timeout_s) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _too_slow(url, timeout_s) from error
        raise VlmkitError(f"{url}: no answer ({error.reason}); check the address") from error
    except VlmkitError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise VlmkitError(
            f"{url}: the download failed ({_one_line(error)}); check the address"
        ) from error


def _read(
    response: IO[bytes] | http.client.HTTPResponse,
    url: str,
    deadline: float,
    timeout_s: float,
    max_bytes: int,
) -> bytes:
    assert isinstance(response, http.client.HTTPResponse)
    body = bytearray()
    # read1 returns after one receive, so a server that drips cannot outlast the deadline.
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(url, max_bytes)
        if time.monotonic() > deadline:
            raise _too_slow(url, timeout_s)
    if response.length:
        raise VlmkitError(f"{url}: the connection closed {response.length} bytes too early")
    return bytes(body)


def _opener() -> urllib.request.OpenerDirector:
    # build_opener() would also open file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> http.client.HTTPResponse | None:
        # The base class would also follow ftp:, and refuses others without saying what works.
        try:
            _check_scheme(headers.get("Location") or headers.get("URI") or "")
        except VlmkitError:
            fp.close()
            raise
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_scheme(url: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ("", "http", "https"):
        raise VlmkitError(
            f"{url}: {scheme}: addresses are not read; use http or https, or give a file's path"
        )


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__


def _too_large(url: str, max_bytes: int) -> VlmkitError:
    return VlmkitError(
        f"{url}: larger than {max_bytes / 2**20:g} MiB; raise preprocess.max_download_bytes, or"
        " save the file and give its path"
    )


def _too_slow(url: str, timeout_s: float) -> VlmkitError:
    return VlmkitError(
        f"{url}: not received within {timeout_s:g} s; raise preprocess.url_timeout_s, or save the"
        " file and give its path"
    )
