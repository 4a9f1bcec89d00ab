"""Objects that only the garbage collector frees, because they belong to reference cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collect_garbage(*packages: str) -> Iterator[list[str]]:
    """Collect the cyclic garbage of a block.

    Other objects of the process, such as those of engines that run meanwhile, may become garbage in the block as well.
    So only objects of the named packages are reported.

    Args:
        packages: top-level packages.

    Yields:
        A list that contains the qualified type names of the garbage after the block.
    """
    names: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield names
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        types = map(type, gc.garbage)
        names += [
            f"{each.__module__}.{each.__qualname__}" for each in types if each.__module__.split(".")[0] in packages
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
