"""`serve [APP]`: a WSGI application, or the demo, on the server of the standard library."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent  # streamkit/, in a folder or in a zip file
DEMO_APP = "app:app"


class UsageError(Exception):
    """The command line asks for what is not there."""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve a WSGI application, or the demo",
        description="Serve a WSGI application with nothing but the standard library. Without APP: the demo.",
    )
    parser.add_argument(
        "app", metavar="APP", nargs="?", help="module:name of a WSGI callable, such as app:app"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port",
        type=port_number,
        default=8000,
        help="port to listen on; 0 takes a free one (default %(default)s)",
    )
    parser.set_defaults(run=run)


def port_number(text: str) -> int:
    """A TCP port, 0 to 65535. Raises argparse.ArgumentTypeError."""
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM: 0. Returns 1 where it cannot listen or the module fails. Raises UsageError."""
    from streamkit import serve

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    if arguments.app is not None:
        application = load(arguments.app, Path.cwd())
        if application is None:
            return 1
        return listen(serve, application, arguments.host, arguments.port)
    with demo_folder() as folder:
        application = load(DEMO_APP, folder)
        return 1 if application is None else listen(serve, application, arguments.host, arguments.port)


def listen(serve: Any, application: Any, host: str, port: int) -> int:
    """Call `serve`, and say in one line why the address cannot be used."""
    try:
        serve(application, host, port)
    except OSError as error:
        print(f"error: cannot listen on {host} port {port}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def load(target: str, folder: Path) -> Any:
    """The WSGI callable that `module:name` names, with `folder` first among the places of modules.

    None where the module itself fails; its traceback is printed, for that is what its author needs. Raises UsageError
    where there is no such module or name, or it cannot be called.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"APP is {target!r}; give module:name, such as app:app")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {error.name!r} in {folder} or on the path of Python"
            ) from None
        traceback.print_exc()
    except Exception:
        traceback.print_exc()
    else:
        return attribute(module, name)
    print(f"error: the module {module_name!r} cannot be imported; see above", file=sys.stderr)
    return None


def attribute(module: Any, name: str) -> Any:
    """`module.name`, where `name` may have dots. Raises UsageError where it is missing or cannot be called."""
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"the module {module.__name__!r} has no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"{name!r} in {module.__name__!r} is a {type(found).__name__}; a WSGI application is callable"
        )
    return found


@contextmanager
def demo_folder() -> Iterator[Path]:
    """The folder of the demo: examples/demo beside the package, or demo/ of a zipapp, unpacked while it is in use.

    Raises UsageError where there is neither: an installed package has no demo.
    """
    checkout = PACKAGE.parent / "examples" / "demo"
    if (checkout / "app.py").is_file():
        yield checkout
        return
    if zipfile.is_zipfile(PACKAGE.parent):
        with zipfile.ZipFile(PACKAGE.parent) as archive:
            members = [name for name in archive.namelist() if name.startswith("demo/")]
            if "demo/app.py" in members:
                with tempfile.TemporaryDirectory(prefix="streamkit-demo-") as folder:
                    archive.extractall(folder, members)
                    yield Path(folder, "demo")
                return
    raise UsageError(
        "the demo is not part of an installed package; run this in a source checkout, or give an application:"
        " python -m streamkit serve module:name"
    )
