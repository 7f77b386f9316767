"""The application of `tests/testing/applications.py` by a name that servers in other processes can import."""

from __future__ import annotations

from tests.testing.applications import Application

app = Application()
