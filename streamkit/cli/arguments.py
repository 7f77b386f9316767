"""What the arguments of several commands have in common: how they are read, and how their help is laid out."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from streamkit.cli.failures import UsageError

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_OF_ONE_VALUE: Final = frozenset(
    {
        *("authorization", "content-length", "content-type", "date", "from", "host", "if-modified-since"),
        *("if-range", "if-unmodified-since", "last-event-id", "origin", "proxy-authorization", "range"),
        *("referer", "user-agent"),
    }
)
"""Fields of a request that are no lists, in lower case, so that their values cannot be joined (RFC 9110 5.3)."""


def add_command(commands: Any, name: str, summary: str, examples: str, **options: Any) -> Any:
    """Add the parser of one command, with its summary, its examples and `--json`; returns the parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples.rstrip()}\n\nexit codes: 0 fine, 1 something was found wrong, 2 usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of text")
    return parser


def add_headers(parser: Any) -> None:
    """Add `-H`, which may be repeated: `arguments.header` is a list for `header_fields`."""
    parser.add_argument(
        "-H",
        "--header",
        type=header,
        action="append",
        default=[],
        help="'Name: value', to add to the request; may be given several times",
    )


def port_number(text: str) -> int:
    """A TCP port, 0 to 65535. Raises argparse.ArgumentTypeError, as all of these do."""
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")


def count(text: str) -> int:
    """A whole number from 1 on."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**9:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a count; give a whole number from 1 on")


def duration(text: str) -> float:
    """Seconds above 0, from "30", "2.5s", "500ms", "2m" or "1h"."""
    seconds = duration_or_none(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0; give one such as 30s")
    return seconds


def duration_or_none(text: str) -> float | None:
    """The same, and None for 0, which is how a wait is switched off. At most 24 hours."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|)", text, re.ASCII)
    if match is None or float(match[1]) * _SECONDS[match[2]] > 86400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time of up to 24 hours; give a number with ms, s, m or h, such as 30s"
        )
    return float(match[1]) * _SECONDS[match[2]] or None


def http_url(text: str) -> str:
    """An `http` or `https` URL; without a scheme (`localhost:8000/events`) it is `http`."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL; give http://host/path or https://host/path")
    if not url.isprintable() or " " in url:
        raise argparse.ArgumentTypeError(f"{text!r} has a space or a control character; percent-encode it")
    return url


def header(text: str) -> tuple[str, str]:
    """A request header as curl takes it, `Name: value` (RFC 9110 5.5)."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not a header; give 'Name: value'")
    if not value.isprintable():
        raise argparse.ArgumentTypeError(f"the value of the header {name!r} has a control character")
    try:
        value.encode("latin-1")  # as `http.client` sends it
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"the value of the header {name!r} has characters that HTTP cannot carry; percent-encode them"
        ) from None
    return name, value.strip()


def header_fields(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields of a request, each name once: the values of a name that was given again are joined.

    That is what two lines mean (RFC 9110 5.3); cookies have a separator of their own (RFC 6265 4.2.1). Raises
    UsageError for a field that has one value and was given two.
    """
    fields: dict[str, str] = {}
    names: dict[str, str] = {}
    for written, value in given:
        name = names.setdefault(written.lower(), written)
        if name in fields and name.lower() in _OF_ONE_VALUE:
            raise UsageError(f"the header {name} was given twice, but it takes one value; give it once")
        joint = "; " if name.lower() == "cookie" else ", "
        fields[name] = f"{fields[name]}{joint}{value}" if name in fields else value
    return fields


def method(text: str) -> str:
    """A request method, in capitals (RFC 9110 9.1)."""
    if re.fullmatch(r"[A-Za-z-]{1,32}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a method; give one such as GET or POST")
    return text.upper()


def without_secrets(url: str) -> str:
    """The URL for messages: without query, fragment, user name and password, in which secrets travel."""
    parts = urlsplit(url)
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine: "localhost", or an address of 127.0.0.0/8 or ::1 (RFC 6761 6.3)."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
