"""The pieces of the engine by themselves, quick enough for every save: under a second. Whole runs are in tests/loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain import foreign_imports, refuse_databases

HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="session")
def _plain_python() -> None:
    foreign = foreign_imports(HERE)
    assert not foreign, foreign


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    refuse_databases(items, HERE)
