"""`serve [TARGET]`: a WSGI application, a directory of files, or the demo, on the server of the standard library."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamkit.cli import reload
from streamkit.cli.arguments import add_command, port_number
from streamkit.cli.failures import FINE, WRONG, CommandFailed, UsageError
from streamkit.cli.module_loading import is_module_name, load_module, module_of_file
from streamkit.cli.output import Output

PACKAGE = Path(__file__).resolve().parent.parent  # streamkit/, in a folder or in a zip file
DEMO_APP = "app:app"

EXAMPLES = """\
  python -m streamkit serve                      the demo
  python -m streamkit serve app:app --reload     a WSGI application, started again when its code changes
  python -m streamkit serve public/ --port 8080  the files of a folder, with ranges and ETags
"""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(
        commands, "serve", "serve a WSGI application, a folder of files, or the demo", EXAMPLES
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        default="demo",
        help="module:name of a WSGI callable, such as app:app; or a folder, whose files are served (an index.html "
        'for a folder, names that begin with "." not at all); or demo (default)',
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port",
        type=port_number,
        default=8000,
        help="port to listen on; 0 takes a free one (default %(default)s)",
    )
    parser.add_argument(
        "--reload", action="store_true", help="start again when a loaded module changes; for development"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM: 0. Returns 1 where the module fails. Raises UsageError and CommandFailed."""
    if arguments.reload and not reload.is_child():
        return reload.supervise(arguments)
    if arguments.reload:
        reload.watch()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    if arguments.json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JSONLine())
    with _application(arguments.target) as application:
        if application is None:
            if arguments.reload:
                reload.wait_for_change()
            return WRONG
        listen(application, arguments.host, arguments.port, as_json=arguments.json)
    return reload.exit_code() if arguments.reload else FINE


class _JSONLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words: dict[str, object] = {"time": record.created, "level": record.levelname, "logger": record.name}
        words["message"] = record.getMessage()
        if record.exc_info:
            words["traceback"] = self.formatException(record.exc_info)
        return json.dumps(words)


@contextmanager
def _application(target: str) -> Iterator[Any]:
    """The WSGI callable that TARGET means, for as long as it is served; None where its module fails."""
    if target == "demo":
        with demo_folder() as folder:
            yield load(DEMO_APP, folder)
    elif os.path.isdir(target):  # False for the empty word too, which is the working folder to `Path`
        from streamkit.cli.folder import folder_app

        yield folder_app(Path(target))
    elif ":" not in target and not module_of_file(target) and ("/" in target or os.path.exists(target)):
        raise UsageError(f"{target!r} is not a folder; give a folder, or module:name, such as app:app")
    else:
        yield load(target, Path.cwd())


def listen(application: Any, host: str, port: int, *, as_json: bool = False) -> None:
    """Serve until it is told to stop. Raises CommandFailed where it cannot listen, or the output cannot be written."""
    from streamkit import serve

    try:
        if as_json:
            _serve_for_programs(application, host, port)
        else:
            serve(application, host, port)
    except BrokenPipeError:  # by the line at the end: who read the address (`| head -1`) had enough
        pass
    except OSError as error:  # of the server, which says where it cannot listen; or of a line that is printed
        reason = str(error.strerror or error)
        if not reason.startswith("cannot listen"):
            reason = f"cannot write to the standard output: {reason}"
        raise CommandFailed(reason) from None


def _serve_for_programs(application: Any, host: str, port: int) -> None:
    """Serve as `streamkit.serve` does, with JSON instead of its two lines."""
    from streamkit import streams
    from streamkit.servers.http_server import StreamServer

    with StreamServer(application, host, port, on_shutdown=streams.drain) as server:
        cut = server.serve_until_told(lambda: Output().json({"url": server.url}))
        Output().json({"stopped": True, "cut": cut})


def load(target: str, folder: Path) -> Any:
    """The WSGI callable that `module:name` names, with `folder` first among the places of modules.

    None where the module itself fails; its traceback is printed. Raises UsageError where there is no such module or
    name, or it cannot be called.
    """
    module_name, _, name = target.partition(":")
    if not (name and is_module_name(module_name, folder)):
        meant = module_of_file(module_name)
        advice = (
            f"write {meant}:{name or 'app'}" if meant else "give module:name, such as app:app, or a folder"
        )
        raise UsageError(f"TARGET is {target!r}; {advice}")
    module = load_module(module_name, folder)
    return None if module is None else attribute(module, name)


def attribute(module: Any, name: str) -> Any:
    """`module.name`, where `name` may have dots. Raises UsageError where it is missing or cannot be called."""
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"the module {module.__name__!r} has no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"{name!r} in {module.__name__!r} is of type {type(found).__name__}; a WSGI application is callable"
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
