"""Web addresses as people write them, in the ASCII form that servers take.

Reference:
    WHATWG, "URL Standard", https://url.spec.whatwg.org (host parsing, backslashes, white space);
    Unicode Technical Standard 46, "Unicode IDNA compatibility processing". Escaping of paths and
    queries is left to httpx2, which follows the same standard.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

import idna

_AROUND = "".join(map(chr, range(0x21)))  # control characters and the space
_NOT_IN_HOST = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]")
_ESCAPED = {code: f"%{code:02X}" for code in (*range(0x20), 0x7F)} | dict.fromkeys(b"\t\n\r")


def browser_address(url: str) -> str:
    r"""Return an http or https address with the host name that a browser asks for.

    White space around it and line breaks in it are dropped, ``\`` before the query is ``/``, other
    control characters are escaped, and a host name outside ASCII is mapped and written in punycode.

    Raises:
        ValueError: no host; what stands for it can't be a host name; the port is no port.

    Example:
        >>> browser_address(" http://Grüße.example\\a b.png")
        'http://xn--gre-6ka8l.example/a b.png'
    """
    text = url.strip(_AROUND).translate(_ESCAPED)
    text = re.sub(r"^[^?#]*", lambda match: match[0].replace("\\", "/"), text)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        return text
    if not parts.hostname:
        raise ValueError("no host name in it")
    _ = parts.port  # raises where it is no port
    user, at, place = parts.netloc.rpartition("@")
    if place.startswith("["):  # an IPv6 address
        return text
    host, colon, port = place.partition(":")
    return parts._replace(netloc=f"{user}{at}{_ascii_host(host)}{colon}{port}").geturl()


def is_public(peer: str) -> bool:
    """Whether an IP address is one of the public internet.

    Example:
        >>> [is_public(peer) for peer in ("1.1.1.1", "127.0.0.1", "10.0.0.1", "::1", "fe80::1%en0")]
        [True, False, False, False, False]
        >>> is_public("::ffff:192.168.0.1"), is_public("169.254.169.254")
        (False, False)
    """
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (address if mapped is None else mapped).is_global


def _ascii_host(host: str) -> str:
    try:
        mapped = idna.uts46_remap(unquote(host), std3_rules=False)
    except idna.IDNAError as error:
        raise ValueError(f"{host!r} is not a host name: {error}") from error
    if found := _NOT_IN_HOST.search(mapped):
        raise ValueError(f"{host!r} is not a host name: it has a {found[0]!r}")
    # Not idna.encode: browsers also look up names that IDNA 2008 doesn't register (emoji).
    return ".".join(map(_ascii_label, mapped.split(".")))


def _ascii_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
