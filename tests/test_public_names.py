"""The front door: a sorted `__all__`, every name documented, and nothing loaded before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import streamkit
from tests.conftest import ROOT


def test_all_is_sorted_and_complete() -> None:
    assert streamkit.__all__ == sorted(streamkit.__all__)
    assert set(streamkit.__all__) == set(streamkit._HOME)
    assert set(streamkit.__all__) <= set(dir(streamkit))


@pytest.mark.parametrize("name", streamkit.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(streamkit, name)
    documented = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    assert inspect.getdoc(documented), f"{name} has no docstring"
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert f"`{name}" in reference, f"docs/reference.md does not mention {name}"


@pytest.mark.parametrize("name", streamkit.__all__)
def test_every_public_method_is_documented(name: str) -> None:
    thing = getattr(streamkit, name)
    kind = thing if inspect.isclass(thing) else type(thing)
    for method_name, method in vars(kind).items():
        if not method_name.startswith("_") and (inspect.isroutine(method) or isinstance(method, property)):
            assert inspect.getdoc(getattr(kind, method_name)), f"{name}.{method_name} has no docstring"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        streamkit.no_such_name  # noqa: B018


def test_importing_loads_nothing() -> None:
    code = (
        "import sys, streamkit\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "parts = [name for name in sys.modules if name.startswith('streamkit.')]\n"
        "print(sorted(loaded & {'werkzeug', 'flask', 'gunicorn', 'redis', 'socket', 'http'}), parts)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert output.strip() == "[] []"
