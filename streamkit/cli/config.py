"""`config PROGRAM`: a short, commented configuration file for a program in front of, around or under a stream."""

from __future__ import annotations

import argparse
import re
from typing import Any

from streamkit.cli.arguments import add_command
from streamkit.cli.config_files import FILES
from streamkit.cli.failures import FINE
from streamkit.cli.output import Output

EXAMPLES = """\
  python -m streamkit config nginx > /etc/nginx/conf.d/site.conf
  python -m streamkit config gunicorn > gunicorn.conf.py
  python -m streamkit config caddy --upstream 127.0.0.1:9000 --path /live --name example.org
"""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(commands, "config", "print a configuration file that lets streams through", EXAMPLES)
    parser.add_argument("program", metavar="PROGRAM", choices=sorted(FILES), help=", ".join(sorted(FILES)))
    parser.add_argument(
        "--app",
        type=_application,
        default="app:app",
        help="module:name of the application (default %(default)s)",
    )
    parser.add_argument(
        "--upstream", type=_address, default="127.0.0.1:8000", help="where it listens (default %(default)s)"
    )
    parser.add_argument(
        "--path", type=_path, default="/events", help="where its streams begin (default %(default)s)"
    )
    parser.add_argument(
        "--name", type=_host, default="localhost", help="the name of the site (default %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the file."""
    name, text = FILES[arguments.program]
    host, _, port = arguments.upstream.rpartition(":")
    for mark, value in (
        ("@APP@", arguments.app),
        ("@UPSTREAM@", arguments.upstream),
        ("@HOST@", host),
        ("@PORT@", port),
        ("@PATH@", arguments.path),
        ("@NAME@", arguments.name),
    ):
        text = text.replace(mark, value)
    output = Output()
    if arguments.json:
        output.json({"program": arguments.program, "file": name, "text": text})
    else:
        output.line(text.rstrip("\n"))
    return FINE


# What is filled in cannot end a line, a string or a block of any of these languages: it is checked, not escaped.


def _application(text: str) -> str:
    return _matching(text, r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", "module:name, such as app:app")


def _address(text: str) -> str:
    wanted = "host:port, such as 127.0.0.1:8000"
    _matching(text, r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}", wanted)
    if not 0 < int(text.rpartition(":")[2]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}; a port is 1 to 65535")
    return text


def _path(text: str) -> str:
    """Without the slash at its end: each file says in the words of its language that it means what is below too."""
    path = text.rstrip("/")
    if text and not path:
        raise argparse.ArgumentTypeError(
            f"{text!r} is the path of pages too; give the one that all streams begin with, such as /events"
        )
    return _matching(
        path, r"(?:/[A-Za-z0-9._~-]+)+", "a path of letters, digits and ._~-, such as /events or /live/prices"
    )


def _host(text: str) -> str:
    return _matching(text, r"[A-Za-z0-9.-]+", "a host name, such as example.org")


def _matching(text: str, pattern: str, wanted: str) -> str:
    if re.fullmatch(pattern, text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return text
