"""`schema MODULE`: the events that a module declares, as a fragment of OpenAPI 3.2 or as a Markdown table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from streamkit.cli.arguments import add_command
from streamkit.cli.failures import FINE, WRONG, CommandFailed, UsageError
from streamkit.cli.module_loading import is_module_name, load_module, module_of_file
from streamkit.cli.output import Output

EXAMPLES = """\
  python -m streamkit schema shop.events                       content for a response, components for the document
  python -m streamkit schema shop.events --format markdown     a table for people
"""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(
        commands, "schema", "document the events that a module declares with @event", EXAMPLES
    )
    parser.add_argument("module", metavar="MODULE", help="name of a Python module, such as shop.events")
    parser.add_argument(
        "--format",
        choices=("json", "markdown"),
        help="a fragment of OpenAPI 3.2, which is JSON (default), or a Markdown table",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it: 0. Returns 1 where the module fails. Raises UsageError, and CommandFailed where nothing is declared."""
    from streamkit.formats.schema_documents import declared_events, markdown_table, openapi_fragment

    if arguments.json and arguments.format == "markdown":
        raise UsageError("--json and --format markdown exclude each other; give one of them")
    name, folder = arguments.module, Path.cwd()
    if not is_module_name(name, folder):
        meant = module_of_file(name)
        advice = f"write {meant}" if meant else "give the name of a Python module, such as shop.events"
        raise UsageError(f"MODULE is {name!r}; {advice}")
    module = load_module(name, folder)
    if module is None:
        return WRONG
    try:
        kinds = declared_events(module)
        if not kinds:
            raise CommandFailed(
                f'the module {name!r} declares no events; decorate a class with @event("name")'
            )
        if arguments.format == "markdown":
            text = markdown_table(*kinds).rstrip("\n")
        else:
            text = json.dumps(openapi_fragment(*kinds), indent=2)
    except (TypeError, ValueError) as error:  # of a declaration; both say which field, and what to do
        raise CommandFailed(str(error)) from None
    Output().line(text)
    return FINE
