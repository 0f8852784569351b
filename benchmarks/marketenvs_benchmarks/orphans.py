"""Worker processes that do not outlive the command that started them.

Python's process pools wait for their parent for ever: after ``kill -9`` of the command its workers, and the manager that carries
their progress, would stay. Each of them therefore watches its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """For ``initializer=``: end this process as soon as the one that started it is gone.

    It ends at once, in the middle of whatever it does: result files are written under another name and renamed, so a
    kill leaves whole ones only. In a process without a parent nothing happens.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
