"""A request that can be sent again, and what becomes of it after a redirect (Fetch standard, HTTP-redirect fetch).

The law: credentials belong to one origin (scheme, host and port). A redirect to another one takes `Authorization` and
`Cookie` away for good, also if a later one leads back, and with them the `Host` that a caller has named for the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from streamkit.client.basic_auth import basic_authorization
from streamkit.errors import RedirectFailed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The redirect statuses of the Fetch standard (section 2.2.3)."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_NOT_IN_VALUES = re.compile(r"[^\t\x20-\x7e\x80-\xff]")  # section 5.5

_OF_ONE_ORIGIN = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
_OF_A_BODY = frozenset(
    {"content-encoding", "content-language", "content-location", "content-type", "content-length"}
)
_URL_CHARACTERS = "/?%:@!$&'()*+,;=~-._[]"

T = TypeVar("T")


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
    `http` or `https`, for a method and headers that HTTP cannot carry, and for credentials that are given twice or
    cannot be sent; `TypeError` for anything of another kind.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be str, such as 'http://host/path', not {type(url).__name__}")
    if not isinstance(method, str):
        raise TypeError(f"method must be str, such as 'GET' or 'POST', not {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        raise ValueError(
            f"method must be one word, such as 'GET' or 'POST' (RFC 9110 section 9.1), not {method!r:.80}"
        )
    parts, credentials = split_credentials(checked_url(url))
    headers = named_once(headers)
    for name, value in headers.items():
        wrong = _NOT_IN_VALUES.search(value)
        if wrong is not None:  # the value itself may be a secret
            raise ValueError(
                f"headers has {name!r} with {wrong[0]!a} at index {wrong.start()} of its value, which HTTP cannot "
                "carry (RFC 9110 section 5.5); strip control characters, and encode what is not Latin-1"
            )
    if auth is not None:
        if not (isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str) for part in auth)):
            given = type(auth).__name__
            if isinstance(auth, tuple):
                given = f"a tuple of ({', '.join(type(part).__name__ for part in auth)})"
            raise TypeError(f"auth must be a tuple of user name and password, both str, not {given}")
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


def named_once(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of `headers`, in which each name stands once, in whatever case.

    Of two values for one name one would get lost on the way, so that is a `ValueError`, as is a name that is no token;
    `TypeError` for what is no mapping of `str` to `str`.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(
            f"headers must be a mapping of names to values, such as a dict, not {type(headers).__name__}"
        )
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"headers has {name!r:.80} with a value of type {type(value).__name__}; names and values must be str"
            )
        if not _TOKEN.fullmatch(name):
            raise ValueError(
                f"headers has the name {name!r:.80}, which is no token (RFC 9110 section 5.6.2); use letters, digits "
                "and hyphens, without a colon or a space"
            )
        other = names.setdefault(name.lower(), name)
        if name in found or other != name:
            raise ValueError(
                f"headers has {other!r} and {name!r}, which are one header; give it once, with its values joined by a "
                "comma (RFC 9110 section 5.3)"
            )
        found[name] = value
    return found


def in_place_of(own: Mapping[str, T], given: Mapping[str, T]) -> dict[str, T]:
    """Return the fields of `own` that `given` does not name, in any case, and behind them all of `given`."""
    names = {name.lower() for name in given}
    return {**{name: value for name, value in own.items() if name.lower() not in names}, **given}


def checked_url(url: str) -> SplitResult:
    """Return the parts of an `http` or `https` URL without its fragment. Raises `ValueError` for any other."""
    shown = re.sub(r"//[^/?#]*@", "//", url.partition("?")[0])  # without what may be secret
    advice = "give http://host/path or https://host/path"
    try:
        url.encode()
        parts = urlsplit(url)
    except UnicodeEncodeError:
        raise ValueError(f"{shown!a} is not a URL that can be read: it has a lone surrogate") from None
    except ValueError:  # whose text may show the password
        raise ValueError(f"{shown!a} is not a URL that can be read, its host is none; {advice}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown!a} is not a URL that can be read; {advice}")
    try:
        if parts.port == 0:  # nothing can listen there
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{shown!a} is not a URL that can be read: its port must be a number from 1 to 65535"
        ) from None
    try:
        parts.hostname.encode("idna")
        if not parts.hostname.isprintable() or " " in parts.hostname:
            raise UnicodeError("it has a space or a control character")
    except UnicodeError as error:
        raise ValueError(f"{parts.hostname!r} is not a host name: {error}") from error
    return parts._replace(fragment="")


def split_credentials(parts: SplitResult) -> tuple[SplitResult, tuple[str, str] | None]:
    """Return a URL without its user name and password, and those, decoded; None where it has none."""
    information, _, location = parts.netloc.rpartition("@")
    user, _, password = information.partition(":")
    credentials = (unquote(user), unquote(password)) if user or password else None
    return parts._replace(netloc=location), credentials
