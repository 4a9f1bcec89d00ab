"""Imports the modules of all services into the fork server."""

import gc
import sys
from importlib import import_module

from tests.forks.service import SERVICES

for name in SERVICES:
    program = f"{name}.__main__" if hasattr(import_module(name), "__path__") else name
    import_module(program)
    del sys.modules[program]  # each fork executes it
gc.collect()
gc.freeze()  # a garbage collection in a fork would copy the memory of all modules
