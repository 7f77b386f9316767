"""Modules of the user, by name: for `serve`, `doctor` and `schema`. What is wrong with one is its author's to see."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from streamkit.cli.failures import UsageError
from streamkit.cli.output import complain


def is_module_name(name: str, folder: Path) -> bool:
    """Whether `name` can be one: identifiers joined by dots, and not a file of Python in `folder`, such as app.py."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    return not (name.endswith(".py") and os.path.isfile(folder / name))  # False too where it is too long


def module_of_file(path: str) -> str | None:
    """The name of the module that the path of a file means: shop.web for ./shop/web.py; None for other words."""
    if not path.endswith(".py"):
        return None
    name = path.removeprefix("./").removesuffix(".py").replace("/", ".")
    return name if all(part.isidentifier() for part in name.split(".")) else None


def load_module(name: str, folder: Path) -> ModuleType | None:
    """The module, with `folder` first among the places of modules; None where it fails.

    A failing one prints its traceback, for that is what its author needs. Raises UsageError where there is none of that
    name, which `is_module_name` has taken.
    """
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
