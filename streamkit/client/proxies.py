"""Which proxy stands between, as the environment says: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`.

The law: names in lower case win over those in upper case, and `HTTP_PROXY` is not looked at inside a CGI program, where
a client could set it by a header (CVE-2016-1000110); both are how `urllib.request` reads them. `no_proxy` is read as
curl reads it: `*`, or names with commas in between, each of a host, a domain with all that is below it, an address
or a network (`10.0.0.0/8`), with a port or without.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from streamkit.client.basic_auth import basic_authorization
from streamkit.errors import ProxyFailed

FROM_ENVIRONMENT = "environment"
"""The value of a `proxy` parameter that means: look into the environment at each connection."""


@dataclass(frozen=True)
class Proxy:
    """Where a proxy listens, and what it is told about who asks."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)  # a password


def proxy_for(scheme: str, host: str, port: int, proxy: str | None) -> Proxy | None:
    """Return the proxy on the way to a server, None where there is none.

    `proxy` is `FROM_ENVIRONMENT`, the URL of a proxy, or None for none. Raises `ProxyFailed` for a proxy that is not
    spoken to by HTTP.
    """
    if proxy == FROM_ENVIRONMENT:
        # Only here, since it loads much: most processes have no use for the rest of urllib.
        from urllib.request import getproxies_environment

        found = getproxies_environment()
        proxy = found.get(scheme) or found.get("all")
        if proxy is None or _is_excepted(host.lower().rstrip("."), port, found.get("no", "")):
            return None
    return None if proxy is None else checked_proxy(proxy)


def checked_proxy(url: str) -> Proxy:
    """Return the proxy at `url`: `http://[user:password@]host[:port]`, or without `http://`.

    Raises `ProxyFailed` for anything else. The port is 80 where none is named, as for any `http` URL.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
        (parts.hostname or "").encode("idna")
    except ValueError:  # whose text may show the password
        raise ProxyFailed(
            "the proxy has no usable address; give http://host:port, or None for no proxy"
        ) from None
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyFailed(
            f"a proxy of the kind {parts.scheme!r} cannot be used; give http://host:port, or None for no proxy"
        )
    headers = {}
    if parts.username is not None:
        headers["Proxy-Authorization"] = basic_authorization(
            unquote(parts.username), unquote(parts.password or "")
        )
    return Proxy(parts.hostname, port, headers)


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Tell whether `no_proxy` names a server."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in exceptions.lower().split(","):
        name = entry.strip()
        if name == "*":
            return True
        bare, colon, its_port = name.rpartition(":")
        if colon and its_port.isdigit() and (bare.startswith("[") or ":" not in bare):
            if int(its_port) != port:
                continue
            name = bare
        name = name.strip(".[]")
        if address is None:
            if name and (host == name or host.endswith(f".{name}")):
                return True
        else:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:  # the name of a host
                continue
    return False
