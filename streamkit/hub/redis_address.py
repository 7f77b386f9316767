"""What a `redis://` URL says. Opens nothing, and needs no client library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

# The registered port of Redis (IANA: 6379).
DEFAULT_PORT: Final = 6379
DEFAULT_STREAM: Final = "streamkit"
# A name is a part of every key and every message.
MAX_STREAM_CHARACTERS: Final = 200

_SCHEMES: Final = {"redis": "tcp", "valkey": "tcp", "rediss": "tls", "valkeys": "tls", "unix": "unix"}
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_SWITCHES: Final = {"ssl_check_hostname": {"true": True, "false": False}}
_TLS_REQUIREMENTS: Final = ("required", "optional", "none")


@dataclass(frozen=True)
class RedisAddress:
    """`redis://[[user]:password@]host[:port][/database][?stream=name]`, parsed.

    The defaults are localhost, port 6379, database 0 and the stream "streamkit"; user and password may be
    percent-encoded. `valkey://` means the same, and `unix://[[user]:password@]/path/of/the.sock[?db=0]` a server on
    this machine. `rediss://` and `valkeys://` are TLS: the server's certificate has to be valid for the host, by the
    system's authorities or by those in `ssl_ca_certs=file`; `ssl_certfile` and `ssl_keyfile` show one of our own;
    `ssl_cert_reqs=none` and `ssl_check_hostname=false` trust more than one should.
    """

    stream: str
    kind: Literal["tcp", "tls", "unix"]
    options: dict[str, Any] = field(repr=False)
    """For the connection class of redis-py."""
    shown: str
    """The URL for messages: without user, password and options."""

    @classmethod
    def of(cls, url: str) -> RedisAddress:
        """Parse a URL. Raises ValueError that says what is wrong with it, without showing its password."""
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        kind = _SCHEMES.get(parts.scheme)
        if kind is None:
            raise ValueError(f"{shown!r} is not a redis://, rediss://, valkey://, valkeys:// or unix:// URL")
        if parts.fragment:
            raise ValueError(f"{shown!r}: a '#' in a user or password is written %23")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if kind == "unix":
            options = _path_options(parts, query, shown)
        else:
            options = _host_options(parts, shown)
        if parts.username:
            options["username"] = unquote(parts.username)
        if parts.password:
            options["password"] = unquote(parts.password)
        stream = query.pop("stream", DEFAULT_STREAM)
        if not 1 <= len(stream) <= MAX_STREAM_CHARACTERS or not stream.isprintable():
            raise ValueError(
                f"{shown!r}: stream={stream[:80]!a} is not a name of 1 to {MAX_STREAM_CHARACTERS} printable characters"
            )
        if kind == "tls":
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        for name, value in query.items():
            options[name] = _tls_option(name, value, kind, shown)
        if options.get("ssl_cert_reqs") == "none":
            options["ssl_check_hostname"] = False
        shown += f"?stream={quote(stream)}"
        return cls(stream, cast('Literal["tcp", "tls", "unix"]', kind), options, shown)


def _host_options(parts: SplitResult, shown: str) -> dict[str, Any]:
    try:
        port = parts.port or DEFAULT_PORT
        host = unquote(parts.hostname or "localhost")
    except ValueError as error:
        raise ValueError(f"{shown!r}: {error}; a URL is redis://host:port/0?stream=name") from None
    # Keep-alive, so that the connection of the reader, silent for seconds, is not forgotten by what is in between.
    database = _database(parts.path.strip("/"), shown)
    return {"host": host, "port": port, "db": database, "socket_keepalive": True}


def _path_options(parts: SplitResult, query: dict[str, str], shown: str) -> dict[str, Any]:
    if parts.hostname or not parts.path.strip("/"):
        raise ValueError(
            f"{shown!r}: write the absolute path of the socket, unix:///run/redis.sock?stream=name"
        )
    return {"path": unquote(parts.path), "db": _database(query.pop("db", ""), shown)}


def _database(text: str, shown: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError(f"{shown!r}: the database is a number, as in redis://host/0, not {text[:80]!a}")
    return int(text or 0)


def _tls_option(name: str, value: str, kind: str, shown: str) -> Any:
    if name in _TLS_SWITCHES and value.lower() in _TLS_SWITCHES[name]:
        allowed: Any = _TLS_SWITCHES[name][value.lower()]
    elif (name in _TLS_FILES and value) or (name == "ssl_cert_reqs" and value in _TLS_REQUIREMENTS):
        allowed = value
    else:
        known = ", ".join(
            ("stream", *_TLS_FILES, "ssl_cert_reqs=required|none", "ssl_check_hostname=true|false")
        )
        raise ValueError(f"{shown!r}: {name!a}={value!a} is not an option of this URL; it takes {known}")
    if kind != "tls":
        raise ValueError(f"{shown!r}: {name} is for rediss://, where the connection is encrypted")
    return allowed
