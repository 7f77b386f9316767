"""The arrows of the architecture: packages import only what lies below them, and third parties have their places."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamkit"

BELOW = {
    "errors": set(),
    "formats": {"errors"},
    "flow": {"errors", "formats"},
    "hub": {"errors", "formats", "flow"},
    "delivery": {"errors", "formats", "flow"},
    "responses": {"errors", "formats", "flow", "delivery"},
    "servers": {"errors", "formats", "flow", "delivery", "responses"},
    "client": {"errors", "formats"},
    "cli": {"errors", "formats", "flow", "hub", "delivery", "responses", "servers", "client"},
    "testing": {"errors", "formats", "flow", "hub", "delivery", "responses", "servers", "client"},
}
"""The picture: what each part may import. The front door, `streamkit/__init__.py`, imports nothing until used."""

THIRD_PARTIES = {
    "werkzeug": {"responses/streamed.py", "testing/running_server.py"},
    "redis": {"hub/redis.py"},
    "prometheus_client": {"servers/metrics.py"},
    "rich": {"cli/output.py"},
    "waitress": {"testing/running_server.py"},
    "uwsgi": {"delivery/connection.py"},  # a module that exists inside a uWSGI process alone
    "pytest": {"testing/pytest_plugin.py"},
}
"""Where a module that is not of the standard library may be named, under a condition."""

TYPES_ONLY = ("streamkit", "_typeshed", "typing_extensions")
"""Our own, and what only a type checker imports."""

FILES = sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether that is at the top level of the file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where the arrow points"
            yield node.module or "", id(node) in top


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = _part(path)
    if part in ("__init__", "__main__"):
        return
    for module, _ in _imports(path):
        if not module.startswith("streamkit."):
            continue
        target = module.split(".")[1]
        assert target == part or target in BELOW[part], f"{part} imports {module}: that arrow points up"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_places(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for module, at_top in _imports(path):
        name = module.split(".")[0]
        if name in sys.stdlib_module_names or name in TYPES_ONLY:
            continue
        assert place in THIRD_PARTIES.get(name, set()), f"{place} imports {module}"
        assert not at_top, f"{place} imports {module} without a condition"


def test_no_cycles_between_modules() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(("streamkit", *path.relative_to(PACKAGE).with_suffix("").parts))
        graph[name] = {
            module for module, at_top in _imports(path) if at_top and module.startswith("streamkit")
        }
    while True:  # take away what imports nothing that is left, until nothing or a cycle is left
        leaves = {name for name, targets in graph.items() if not targets & (graph.keys() - {name})}
        if not leaves:
            break
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph, f"these modules import each other: {sorted(graph)}"
