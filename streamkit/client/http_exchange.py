"""One request and its answer at a time, each on a connection of its own: proxies, TLS and redirects.

The law: the thread that opens an exchange reads and closes it. `StopSignal.set` from any other ends what it waits for.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Final

from streamkit.client.http_request import REDIRECTS, HTTPRequest, in_place_of
from streamkit.client.proxies import Proxy, proxy_for
from streamkit.client.response_body import ResponseBody
from streamkit.client.stoppable_connection import StoppableConnection, StopSignal
from streamkit.errors import CertificateRefused, DecodeError, RedirectFailed

MAX_REDIRECTS: Final = 20
"""The limit of the Fetch standard (section 4.4, HTTP-redirect fetch)."""

MAX_EXCERPT: Final = 16 * 1024
"""Bytes of a refusal that are kept: more than any API's error, less than most pages."""

EXCERPT_SECONDS: Final = 5.0
"""Seconds that the body of a refusal may take; it must not keep anybody from hearing of the refusal."""


class HTTPExchange:
    """Sends a request, follows redirects, and reads the answer.

    - `timeout`: seconds for each step up to the end of the head, and seconds without a byte from then on; None waits
      for ever.
    - `context`: for TLS; None verifies against the certificates of the system.
    - `proxy`: see `proxy_for`.
    """

    def __init__(
        self,
        stop: StopSignal,
        *,
        timeout: float | None,
        context: ssl.SSLContext | None,
        proxy: str | None,
    ) -> None:
        self._stop = stop
        self._timeout = timeout
        self._context = context
        self._proxy = proxy
        self._connection: StoppableConnection | None = None
        self._response: http.client.HTTPResponse | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(
        self, request: HTTPRequest, extra: Mapping[str, str | bytes]
    ) -> tuple[HTTPRequest, http.client.HTTPResponse]:
        """Send `request` with `extra` headers, and again where it is redirected to; return what was asked in the end.

        Headers of the request win over `extra`. Raises `RedirectFailed`, `CertificateRefused` and `ProxyFailed`;
        `OSError` and `http.client.HTTPException` for the network; `ValueError` for headers that cannot be sent.
        """
        first = request
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = self._send(request, extra)
            except ssl.SSLCertVerificationError as error:
                raise CertificateRefused(
                    f"{request} has a certificate that is not trusted: {error}"
                ) from error
            if response.status not in REDIRECTS:
                return request, response
            location = response.headers.get("Location")
            self.close()
            request = request.redirected(response.status, location)
        raise RedirectFailed(f"{first} was redirected more than {MAX_REDIRECTS} times", response.status)

    def _send(self, request: HTTPRequest, extra: Mapping[str, str | bytes]) -> http.client.HTTPResponse:
        proxy = proxy_for(request.url.scheme, request.host, request.port, self._proxy)
        secure = request.url.scheme == "https"
        if secure and self._context is None:
            self._context = ssl.create_default_context()
        self._connection = StoppableConnection(
            request.host,
            request.port,
            stop=self._stop,
            timeout=self._timeout,
            context=self._context if secure else None,
            through=None if proxy is None else (proxy.host, proxy.port),
            tunnel_headers=None if proxy is None else proxy.headers,
        )
        # Not by `request`: only a server that has been reached, under TLS where that is asked for, may hang up below.
        self._connection.connect()
        target = request.target if secure or proxy is None else request.absolute_target
        with suppress(BrokenPipeError):  # it may have answered, and hung up, before it had heard all
            self._connection.request(request.method, target, request.body, _headers(request, extra, proxy))
        self._response = self._connection.getresponse()
        return self._response

    def excerpt(self) -> bytes:
        """Return the beginning of the answer's body, as much as comes of 16 KiB within five seconds."""
        if self._response is None:
            return b""
        if self._connection is not None:
            self._connection.hurry(min(EXCERPT_SECONDS, self._timeout or EXCERPT_SECONDS))
        until = monotonic() + EXCERPT_SECONDS
        found = b""
        with suppress(OSError, http.client.HTTPException, DecodeError):
            body = ResponseBody(self._response)
            while len(found) < MAX_EXCERPT and monotonic() < until and (data := body.read()):
                found += data
        return found[:MAX_EXCERPT]

    def close(self) -> None:
        """Close the connection, if there is one. By the thread that opened it."""
        response, self._response = self._response, None
        connection, self._connection = self._connection, None
        for opened in (response, connection):
            if opened is not None:
                with suppress(OSError):  # a TLS socket may still have something to say
                    opened.close()
        self._stop.forget()


def _headers(
    request: HTTPRequest, extra: Mapping[str, str | bytes], proxy: Proxy | None
) -> dict[str, str | bytes]:
    """The header fields of one request: each name once, and the caller's own last."""
    to_proxy = proxy.headers if proxy is not None and request.url.scheme == "http" else {}
    return in_place_of({**extra, **to_proxy}, request.headers)
