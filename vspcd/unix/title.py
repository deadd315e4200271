"""The name of a process, as ``ps`` shows it.

Does: sets it, by the setproctitle library's module in C.
Owns: nothing.
Never: imports the package around that module where it can do without. It would bring in the modules logging and
threading, which have something done in each child right after each fork: 45 copied pages in a worker.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import PathFinder
from typing import Callable

PACKAGE, MODULE = "setproctitle", "setproctitle._setproctitle"


def found() -> Callable[[str], None]:
    """What sets the name."""
    package = PathFinder.find_spec(PACKAGE)
    places = None if package is None else package.submodule_search_locations
    spec = None if places is None else PathFinder.find_spec(MODULE, places)
    if spec is None or spec.loader is None:
        module = importlib.import_module(PACKAGE)
    else:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    set_it: Callable[[str], None] = module.setproctitle
    return set_it


set_title = found()
