"""Check the headers of a request before its body is read."""

from __future__ import annotations

import contextlib
import re
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address

from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import Request
from registry_tools.serving.settings import Settings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::\d*)?")
_MOST_KNOWN = 100
# Proxies and servers treat a repeated header of these in different ways, which attackers exploit.
_ONCE = (b"host", b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
# Headers of which every proxy adds at least one.
_FORWARDED = re.compile(
    rb"(.+-)?forwarded.*|via|x-(envoy|original|originating)-?.*|x-(real|remote)-ip|(.+-)?client-?ip"
    rb"|x-azure-.*|cf-.*|x-proxy.*"
)


class ConnectionRules:
    """The rules of one server, and the `Host` values that it has already accepted."""

    def __init__(self, settings: Settings) -> None:
        self.known_hosts: set[bytes] = set()
        self._max_body = settings.max_body
        names = (*_LOOPBACK, settings.host, *settings.allowed_hosts)
        self._patterns = [name.lower().strip("[]") for name in names]  # of addresses and names, with `*`
        # Accept addresses in `Host`: an attacker can let a name resolve to this machine, but then the
        # browser sends the name.
        self._addresses = settings.host in _EVERY_ADDRESS

    def check(self, request: Request) -> None:
        """Check the headers of a request whose `Host` is unknown, or that has an unusual header.

        Raises
        ------
        RequestRefused
            400 for a repeated header and for a `Host` that is missing or not allowed; 415 for a
            compressed body; 501 for an unknown transfer coding; 413 if the client waits for permission
            to send a too large body.
        """
        headers = request.headers
        names = [name for name, _ in request.scope["headers"]]
        for name in _ONCE:
            if names.count(name) > 1:
                raise RequestRefused(400, f"the request has the header {name.decode()} twice: send it once")
        self._check_host(request)
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise RequestRefused(
                501, "this Transfer-Encoding is not supported: send chunked, or a Content-Length"
            )
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestRefused(
                415, "compressed bodies are not supported: send the body without Content-Encoding",
                [(b"accept-encoding", b"identity")],
            )  # fmt: skip
        if b"expect" in headers and request.announced_size > self._max_body:
            raise too_large(self._max_body)

    def _check_host(self, request: Request) -> None:
        given = request.headers.get(b"host")
        if given is None:
            if request.scope["http_version"] == "1.0":
                return  # HTTP/1.0 has no such header
            raise RequestRefused(400, "the header Host is missing: send the name of this server")
        found = _HOST.fullmatch(given.decode("latin-1").lower())
        if found is None or not self._is_allowed(found[1].removesuffix(".").strip("[]")):
            name = given.decode("latin-1")[:100]
            raise RequestRefused(400, f"Host {name!r} is not a name of this server: see --allowed-hosts")
        if len(self.known_hosts) < _MOST_KNOWN:
            self.known_hosts.add(given)

    def _is_allowed(self, name: str) -> bool:
        is_named = any(fnmatchcase(name, pattern) for pattern in self._patterns)
        return is_named or (self._addresses and _address(name) is not None)


def is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, and not through a proxy on it."""
    address = _address(request.client)
    is_forwarded = any(_FORWARDED.fullmatch(name) for name in request.headers)
    return address is not None and address.is_loopback and not is_forwarded


def refuse_other_origins(request: Request) -> None:
    """Refuse a request that a browser sends for a page from another server.

    Raises
    ------
    RequestRefused
        403 if the request comes from such a page.
    """
    headers = request.headers
    origin = headers.get(b"origin")
    own = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    if not own or headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        raise RequestRefused(403, "a page from another server may not send this request")


def too_large(most: int) -> RequestRefused:
    """Return the refusal of a body over the limit, in bytes."""
    return RequestRefused(413, f"the body is larger than {most} bytes")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ip_address(text)
    return None
