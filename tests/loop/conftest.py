"""Whole runs of the engine over ports in memory, and what always holds of them. The pieces are in tests/engine."""

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
