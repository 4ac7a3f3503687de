"""What holds tests to plain Python: no Django in `tests/engine` and `tests/loop`, no database in some folders more.

pytest-django has loaded Django long before, so `sys.modules` proves nothing: the sources are looked at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import runs.engine

ALLOWED = ("runs.engine", "tests.engine", "tests.loop", "tests.plain", "pytest", "hypothesis")
DATABASE_FIXTURES = frozenset({"db", "live_server", "transactional_db"})  # whatever opens one asks for one of these


def foreign_imports(folder: Path) -> list[str]:
    """What the modules of `folder` and of the engine import beside the standard library and themselves."""
    paths = [path for each in (folder, *map(Path, runs.engine.__path__)) for path in each.glob("*.py")]
    assert paths
    return [f"{path.name} imports {name}" for path in paths for name in _imports(path) if not _is_plain(name)]


def refuse_databases(items: Sequence[pytest.Item], folder: Path) -> None:
    """Once for all tests, because a fixture for each would cost more than many of them."""
    for item in items:
        if folder in item.path.parents:
            wanted = DATABASE_FIXTURES & set(getattr(item, "fixturenames", ()))
            if wanted or item.get_closest_marker("django_db"):
                raise pytest.UsageError(f"{item.nodeid} wants a database; the tests of this folder have none")


def _imports(path: Path) -> list[str]:
    found = re.findall(r"^\s*(?:import (\S+)|from (\S+) import (\w+))", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [module or f"{package}.{name}" for module, package, name in found]


def _is_plain(name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    return top in sys.stdlib_module_names or any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED)
