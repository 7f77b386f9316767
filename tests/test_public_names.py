"""The front door: a sorted `__all__`, every name documented, and nothing loaded before it is used."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import subprocess
import sys

import pytest

import streamkit
import streamkit.testing
from streamkit import errors
from streamkit.responses.options import StreamOptions
from tests.conftest import ROOT

REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def parameters_of(thing: object) -> list[str]:
    """The names that callers use; `**options` are documented once for all."""
    assert callable(thing)
    named = [
        name
        for name, parameter in inspect.signature(thing).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and not name.startswith("_")
    ]
    return [name for name in named if name != "self"]


def test_all_is_sorted_and_complete() -> None:
    assert streamkit.__all__ == sorted(streamkit.__all__)
    assert set(streamkit.__all__) == set(streamkit._HOME)
    assert set(streamkit.__all__) <= set(dir(streamkit))


@pytest.mark.parametrize("name", streamkit.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(streamkit, name)
    documented = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    assert inspect.getdoc(documented), f"{name} has no docstring"
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        assert f"\n`{name}`\n: " in REFERENCE, f"docs/reference.md has no entry for {name}"
        return
    entry = re.search(rf"^`{name}\((.*?)\)`\n: ", REFERENCE, re.MULTILINE | re.DOTALL)
    assert entry, f"docs/reference.md has no entry for {name}"
    written = re.findall(r"(?:^|[\s(])(\w+)(?==|,|$)", entry[1])
    assert written == parameters_of(thing), f"docs/reference.md gives {name} other parameters than the code"


def test_the_defaults_in_the_reference_are_those_of_the_code() -> None:
    for name in streamkit.__all__:
        thing = getattr(streamkit, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        entry = re.search(rf"^`{name}\((.*?)\)`\n: ", REFERENCE, re.MULTILINE | re.DOTALL)
        assert entry
        shown = dict(re.findall(r"(\w+)=(\"[^\"]*\"|[^,\s]+)", entry[1]))
        for parameter in inspect.signature(thing).parameters.values():
            default = parameter.default
            if parameter.name.startswith("_") or default is parameter.empty or inspect.isroutine(default):
                continue
            assert parameter.name in shown, f"docs/reference.md: {name} has a default for {parameter.name}"
            assert eval(shown[parameter.name]) == default, f"docs/reference.md: {name}, {parameter.name}"


def test_every_option_is_documented_once() -> None:
    for option in StreamOptions.__annotations__:
        rows = re.findall(rf"^\| (?:`\w+`, )?`{option}`[ ,]", REFERENCE, re.MULTILINE)
        assert len(rows) == 1, f"docs/reference.md has {len(rows)} rows for the option {option}"


@pytest.mark.parametrize("name", streamkit.testing.__all__)
def test_every_tool_for_tests_is_documented(name: str) -> None:
    assert re.search(rf"`{name}\b", REFERENCE), f"docs/reference.md does not mention {name}"


def test_names_that_docstrings_mention_are_where_the_reference_says() -> None:
    """What `help()` of a public name refers to can be imported: from the front door, or as written there."""
    section = REFERENCE.partition("## Names that docstrings mention")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `([\w.]+)` \|", section, re.MULTILINE)
    told = {name for names, _ in rows for name in re.findall(r"\w+", names)}
    for names, module in rows:
        for name in re.findall(r"\w+", names):
            assert inspect.getdoc(getattr(importlib.import_module(module), name))
    assert len(told) > 8
    code = set(dir(streamkit.testing) + dir(errors) + dir(builtins)) | set(streamkit.__all__)
    for public in streamkit.__all__:
        docstring = inspect.getdoc(getattr(streamkit, public)) or ""
        named = set(re.findall(r"[Ss]ee `?([A-Za-z]\w+)`?[,.;)]", docstring)) - {"which", "below", "above"}
        methods = set(dir(getattr(streamkit, public)))
        assert named <= told | code | methods, f"{public}: {named - told - code - methods} cannot be found"


def test_every_error_is_documented() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.StreamkitError):
            assert f"`{name}`" in REFERENCE, f"docs/reference.md does not mention {name}"
            assert inspect.getdoc(error)


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
