"""`schema MODULE`: the events that a module declares, as a fragment of OpenAPI 3.2 or as a Markdown table."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from streamkit.cli.arguments import add_command
from streamkit.cli.failures import FINE, WRONG, CommandFailed, UsageError
from streamkit.cli.output import Output, complain

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
    module = load(arguments.module, Path.cwd())
    if module is None:
        return WRONG
    try:
        kinds = declared_events(module)
        if not kinds:
            raise CommandFailed(
                f'the module {arguments.module!r} declares no events; decorate a class with @event("name")'
            )
        if arguments.format == "markdown":
            text = markdown_table(*kinds).rstrip("\n")
        else:
            text = json.dumps(openapi_fragment(*kinds), indent=2)
    except (TypeError, ValueError) as error:  # of a declaration; both say which field, and what to do
        raise CommandFailed(str(error)) from None
    Output().line(text)
    return FINE


def load(name: str, folder: Path) -> ModuleType | None:
    """The module, with `folder` first among the places of modules; None where it fails (its traceback is printed).

    Raises UsageError where there is none of that name.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"MODULE is {name!r}; give the name of a Python module, such as shop.events")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {error.name!r} in {folder} or on the path of Python"
            ) from None
        traceback.print_exc()
    except Exception:
        traceback.print_exc()
    complain(f"error: the module {name!r} cannot be imported; see above")
    return None
