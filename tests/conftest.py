"""What tests of several folders share: one browser for all that drive one, and the option that keeps their pictures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Containers have no user namespaces for the sandbox; the rest keeps the browser from calling home.
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-pictures", action="store_true", help="the browser tests write the README's pictures anew")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.groups import ByGroup  # only where tests run in several processes

    return ByGroup(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For its closing words Hypothesis's plugin imports all of it: half a second for tests that use nothing of it."""
    if "hypothesis" not in sys.modules:
        session.config.pluginmanager.unregister(name="hypothesispytest")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # only who asks for a browser pays for it

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "these tests need Chromium on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Threads that a library keeps for itself keep their connection too, and PostgreSQL drops no database in use."""
    from django.test import TransactionTestCase  # needs settings, which the tests of the engine do without

    from tests.emptying import empty_the_tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_the_tables)
        yield
    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )


@pytest.fixture(autouse=True)
def a_process_of_its_own() -> Iterator[None]:
    """What a process remembers for a while, of breakers or the index, must not be what the next test sees."""
    yield
    for name in ("runs.breakers", "traces.text_index"):
        if (remembered := sys.modules.get(name)) is not None:
            remembered.forget()
