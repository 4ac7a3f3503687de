"""Which files' tests stay in one test process, one after the other; all others go to whichever process is free.

Not by pytest-xdist's mark `xdist_group`: since pytest 9.2 keeps the names of tests elsewhere, it changes nothing.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    # Each starts half a dozen processes.
    "tests/crash/test_outage.py": "up",
    "tests/crash/test_sixteen.py": "up",
    "tests/ops/test_up.py": "up",
    # They look at the same week of work, which takes half a minute to make.
    "tests/e2e/test_accessibility.py": "past",
    "tests/e2e/test_pictures.py": "past",
}


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Large groups come first."""

    def _split_scope(self, nodeid: str) -> str:
        return GROUPS.get(nodeid.partition("::")[0], nodeid)
