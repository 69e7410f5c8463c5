"""Train files as modules, from a source that stands in no file."""

from __future__ import annotations

import linecache
import sys
import types


def module_of(source: str, name: str) -> types.ModuleType:
    """Run a source as a module of that name. `inspect` knows its lines: kernels written in Python are read there."""
    path = f"<{name}>"
    module = types.ModuleType(name)
    sys.modules[name] = module
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    exec(compile(source, path, "exec"), module.__dict__)
    return module
