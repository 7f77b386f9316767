"""A request that can be sent again, and what becomes of it after a redirect (Fetch standard, HTTP-redirect fetch).

The law: credentials belong to one origin (scheme, host and port). A redirect to another one takes `Authorization` and
`Cookie` away for good, also if a later one leads back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from streamkit.client.basic_auth import basic_authorization
from streamkit.errors import RedirectFailed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The redirect statuses of the Fetch standard (section 2.2.3)."""

_OF_ONE_ORIGIN = frozenset({"authorization", "cookie", "proxy-authorization"})
_OF_A_BODY = frozenset(
    {"content-encoding", "content-language", "content-location", "content-type", "content-length"}
)
_URL_CHARACTERS = "/?%:@!$&'()*+,;=~-._[]"


@dataclass(frozen=True)
class HTTPRequest:
    """One request; its text is for messages, without credentials and the query, in which secrets travel."""

    url: SplitResult
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        return self.url.port or (443 if self.url.scheme == "https" else 80)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.url.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """The path and the query, in ASCII (RFC 3986 section 2)."""
        query = f"?{self.url.query}" if self.url.query else ""
        return quote((self.url.path or "/") + query, safe=_URL_CHARACTERS)

    @property
    def absolute_target(self) -> str:
        """The whole URL in ASCII, which is what a proxy is asked for (RFC 9112 section 3.2.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode()
        port = "" if self.url.port is None else f":{self.url.port}"
        return f"{self.url.scheme}://{host}{port}{self.target}"

    def redirected(self, status: int, location: str | None) -> HTTPRequest:
        """Return the request that a redirect asks for. Raises `RedirectFailed` where that cannot be."""
        try:
            if not location:
                raise ValueError("it names no Location")
            # A header is bytes, which http.client shows as Latin-1; non-ASCII ones are sent as UTF-8 in practice.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace")
            url, credentials = split_credentials(checked_url(urljoin(self.url.geturl(), location)))
            moved = HTTPRequest(url)
            if credentials is not None and moved.origin != self.origin:
                raise ValueError("it leads to another server with a user name or password")
        except ValueError as error:
            raise RedirectFailed(
                f"{self} answered {status}, but it cannot be followed: {error}", status
            ) from error
        method, headers, body = self.method, dict(self.headers), self.body
        if (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {name: value for name, value in headers.items() if name.lower() not in _OF_A_BODY}
        if moved.origin != self.origin:
            headers = {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_ORIGIN}
        elif credentials is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            headers["Authorization"] = basic_authorization(*credentials)
        return HTTPRequest(url, method, headers, body)

    def __str__(self) -> str:
        return f"{self.method} {self.url.scheme}://{self.url.netloc}{ascii(self.url.path)[1:-1]}"


def new_request(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    auth: tuple[str, str] | None = None,
) -> HTTPRequest:
    """Return the request that the parameters of a call describe.

    `auth` is user and password; those of the URL are taken out of it. Raises `ValueError` for a URL that is none of
    `http` or `https`, and for credentials that are given twice or cannot be sent; `TypeError` for `auth` of
    another kind.
    """
    parts, credentials = split_credentials(checked_url(url))
    headers = dict(headers or {})
    if auth is not None:
        if not (isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str) for part in auth)):
            raise TypeError("auth must be a tuple of user name and password, both str")
        if credentials is not None:
            raise ValueError("credentials are given twice, in the URL and as auth; give them once")
        credentials = auth
    if credentials is not None:
        if any(name.lower() == "authorization" for name in headers):
            raise ValueError(
                "credentials are given twice, as an Authorization header and otherwise; give them once"
            )
        headers["Authorization"] = basic_authorization(*credentials)
    return HTTPRequest(parts, method, headers, body)


def checked_url(url: str) -> SplitResult:
    """Return the parts of an `http` or `https` URL without its fragment. Raises `ValueError` for any other."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = re.sub(r"//[^/?#]*@", "//", url.partition("?")[0])  # without what may be secret
        raise ValueError(
            f"{shown!a} is not a URL that can be read; give http://host/path or https://host/path"
        )
    _ = parts.port  # raises ValueError where it is no port
    try:
        parts.hostname.encode("idna")
        if not parts.hostname.isprintable() or " " in parts.hostname:
            raise UnicodeError("it has a space or a control character")
    except UnicodeError as error:
        raise ValueError(f"{parts.hostname!r} is not a host name: {error}") from error
    return parts._replace(fragment="")


def split_credentials(parts: SplitResult) -> tuple[SplitResult, tuple[str, str] | None]:
    """Return a URL without its user name and password, and those, decoded; None where it has none."""
    information, at, location = parts.netloc.rpartition("@")
    if not at:
        return parts, None
    user, _, password = information.partition(":")
    return parts._replace(netloc=location), (unquote(user), unquote(password))
