"""Programs that `make services` installs. A test without its program says so when it skips; CI never skips."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found is not None:
            return found
    missing = f"{' or '.join(names)} is not installed; `make services` does it"
    if os.environ.get("STREAMKIT_REQUIRE_SERVICES"):
        pytest.fail(missing)
    pytest.skip(missing)
