from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runs.schemas import FoundTool
from runs.tools.mcp import ServerPool, discover
from tests.adapters.workbench import HttpServer, Workshop, stdio
from tests.plain import refuse_databases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    refuse_databases(items, Path(__file__).parent)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[FoundTool]:
    return discover(stdio(tmp_path_factory.mktemp("discover") / "log"), "workshop")


@pytest.fixture
def pool() -> Iterator[ServerPool]:
    made = ServerPool(allow_private=True)
    yield made
    made.close()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[HttpServer]:
    server = HttpServer(tmp_path / "log")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["stdio", "http"])
def workshop(
    request: pytest.FixtureRequest, found: list[FoundTool], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """Shared by tests that leave it as it was; each uses keys of its own."""
    log = tmp_path_factory.mktemp("workshop") / "log"
    server, pool = HttpServer(log), ServerPool(allow_private=True)
    if request.param == "http":
        server.start()
    config = server.config if request.param == "http" else stdio(log)
    yield Workshop(pool.tools("id", "workshop", config, found), log, pool)
    pool.close()
    server.stop()


@pytest.fixture
def local(pool: ServerPool, found: list[FoundTool], tmp_path: Path) -> Workshop:
    log = tmp_path / "log"
    return Workshop(pool.tools("id", "workshop", stdio(log), found), log, pool)
