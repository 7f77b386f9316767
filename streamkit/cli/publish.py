"""`publish HUB TOPIC DATA`: put an event into a hub from a shell, a cron job or another program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from streamkit.cli.arguments import add_command
from streamkit.cli.failures import FINE, CommandFailed, UsageError
from streamkit.cli.output import Output, safe_line
from streamkit.errors import StreamkitError

EXAMPLES = """\
  python -m streamkit publish sqlite:///events.db news "hello"
  python -m streamkit publish redis://127.0.0.1:6379/0 prices '{"EUR": 1.08}' --event price
  tail -F app.log | python -m streamkit publish sqlite:///events.db log -
"""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(commands, "publish", "publish an event to a topic of a hub", EXAMPLES)
    parser.add_argument(
        "hub", metavar="HUB", help="where the hub keeps its events: sqlite:///PATH or redis://HOST/0"
    )
    parser.add_argument("topic", metavar="TOPIC", help="what its subscribers listen to, such as news")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="the text of the event; - publishes every line of the standard input as one",
    )
    parser.add_argument(
        "--event", metavar="NAME", help="the name of the event (default: none, a plain message)"
    )
    parser.add_argument("--id", help="the id of the event (default: the hub gives one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish; print the id of each event. Raises UsageError and CommandFailed."""
    if arguments.hub.startswith("memory:"):
        raise UsageError(
            "memory:// is a hub inside one process, so nobody would hear it; give sqlite:///PATH or redis://HOST/0"
        )
    if arguments.data == "-" and arguments.id is not None:
        raise UsageError("--id names one event, and the standard input is many; leave one of them out")
    from streamkit.hub.hub import Hub  # here, since only this command needs the brokers

    output = Output()
    try:
        hub = Hub(arguments.hub)
    except (StreamkitError, OSError, ImportError) as error:
        raise CommandFailed(f"cannot open the hub: {error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        for data in _texts(arguments.data):
            name = hub.publish(arguments.topic, data, event=arguments.event, id=arguments.id)
            if arguments.json:
                output.json({"topic": arguments.topic, "id": name})
            else:
                output.line(safe_line(name))
    except (StreamkitError, OSError) as error:  # before ValueError, which an id that was taken before is too
        raise CommandFailed(f"cannot publish: {error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    finally:
        hub.close()
    return FINE


def _texts(data: str) -> Iterator[str]:
    if data != "-":
        yield data
        return
    # Bytes, since text would also end its lines at a lone CR, and the whole pipe at the first byte that is none.
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode(sys.stdin.encoding, "replace")
