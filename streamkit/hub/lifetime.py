"""What happens to hubs when the process forks, and when it ends.

Law of this file
- The hubs of a process are known here as long as somebody else holds them; they are not kept alive.
- In a child every hub begins anew on the same log: connections, threads and subscriptions are the parent's.
- At exit live streams are told to end first, then hubs are closed, and only then do the stream threads wait for
  producers: functions that were registered last are called first.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Final

from streamkit.flow.failure_log import log_failure
from streamkit.flow.streams import drain

if TYPE_CHECKING:
    from streamkit.hub.hub import Hub


_hubs: Final[weakref.WeakSet[Hub]] = weakref.WeakSet()


def watch(hub: Hub) -> None:
    """Look after this hub from now on."""
    _hubs.add(hub)


def be_first_at_exit() -> None:
    """Called again whenever a run was started, because the stream threads register themselves at their first one."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def _at_exit() -> None:
    drain(0.0)  # first, so that clients are told to come back and not that the hub was closed
    for hub in list(_hubs):
        try:
            hub.close()
        except Exception:
            log_failure("hub: closing at exit failed")


def _after_fork() -> None:
    for hub in list(_hubs):
        hub.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
be_first_at_exit()
