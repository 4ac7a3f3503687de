"""The engine's tests stay plain Python: no Django, no database. What would break that fails here, with its reason.

pytest-django has loaded Django long before, so `sys.modules` proves nothing: the sources are looked at.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import runs.engine

FOLDERS = (Path(__file__).parent, *map(Path, runs.engine.__path__))
ALLOWED = ("runs.engine", "tests.engine", "pytest", "hypothesis")
DATABASE_FIXTURES = frozenset({"admin_user", "client", "db", "live_server", "settings", "transactional_db"})


def _imports(path: Path) -> list[str]:
    found = re.findall(r"^\s*(?:import (\S+)|from (\S+) import (\w+))", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [module or f"{package}.{name}" for module, package, name in found]


def _is_plain(name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    return top in sys.stdlib_module_names or any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED)


@pytest.fixture(autouse=True, scope="session")
def _plain_python() -> None:
    paths = [path for folder in FOLDERS for path in folder.glob("*.py")]
    assert paths
    foreign = [f"{path.name} imports {name}" for path in paths for name in _imports(path) if not _is_plain(name)]
    assert not foreign, foreign


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Once for all tests, because a fixture for each would cost more than many of them."""
    for item in items:
        if FOLDERS[0] in item.path.parents:
            wanted = DATABASE_FIXTURES & set(getattr(item, "fixturenames", ()))
            if wanted or item.get_closest_marker("django_db"):
                raise pytest.UsageError(f"{item.nodeid} wants a database; the tests of the engine have none")
