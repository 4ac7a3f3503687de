"""A worker process that has no place left leaves what is queued in the broker, for another that has room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.site import Site, running_site
from tests.up import eventually

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(120), pytest.mark.xdist_group("up")]
QUEUE = "celery"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One worker with one place, and a model that thinks for a minute."""
    with running_site(tmp_path / "data", AGENTSITE_CONCURRENCY="1") as site:
        site.model.first_token_s = 60
        yield site


def test_a_full_worker_reserves_nothing_and_takes_the_next_when_a_place_is_free(site: Site) -> None:
    first, *others = [site.launch() for _ in range(3)]
    eventually(lambda: site.run(first)["status"] == "running")
    broker = redis.Redis.from_url((site.up.data_dir / "redis.url").read_text().strip())
    eventually(lambda: broker.llen(QUEUE) == len(others))
    site.api(f"/runs/{first}/cancel", {})
    eventually(lambda: "running" in [site.run(run)["status"] for run in others])
    broker.close()
