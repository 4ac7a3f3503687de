"""How quickly a browser sees what happens. Prints a table; uses a data directory of its own."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgpack
import redis
from playwright.sync_api import Page, sync_playwright

from tests.conftest import BROWSER_ARGUMENTS
from tests.up import Up, free_port

# The launch page of a team without runs is a welcome; what is measured is the everyday page.
FIRST_RUN = [sys.executable, "manage.py", "run_agent", "nightly-cleanup", "Clean up.", "--mode", "dry_run", "--wait"]
WATCH_ROWS = """() => {
  window.seen = [];
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes)
      if (node.dataset?.seq) window.seen.push([Number(node.dataset.seq), Date.now()]);
  }).observe(document.getElementById("steps"), {childList: true});
}"""


# The click is timed by the page that is clicked, the frame by the page that follows: what a person's browser sees.
TIME_LAUNCH = """
addEventListener("click", (event) => {
  if (event.target.closest("[data-launch]")) sessionStorage.clicked = performance.timeOrigin + performance.now();
}, true);
window.WebSocket = class extends WebSocket {
  constructor(...how) {
    super(...how);
    this.addEventListener("message", () => { window.firstFrame ??= performance.timeOrigin + performance.now(); });
  }
};
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=15, help="launches to measure (15)")
    runs = options.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        up = Up(Path(folder), free_port())
        try:
            began = time.perf_counter()
            up.wait_until_ready()
            ready = time.perf_counter() - began
            subprocess.run(
                FIRST_RUN, env={**os.environ, "AGENTSITE_DATA_DIR": folder}, check=True, stdout=subprocess.DEVNULL
            )
            figures = in_browser(up, Path(folder), runs)
            memory = memory_mb(up)
        finally:
            up.close()
    print(f"\n{'figure':<44}{'median':>10}{'p95':>10}{'n':>6}   floor")
    print(f"{'from start to ready, first run':<44}{ready:>8.2f} s{'':>10}{1:>6}   5 s")
    print(f"{'memory of all processes (PSS)':<44}{memory:>7.0f} MB{'':>10}{1:>6}   500 MB")
    row("click on Launch to first socket message", figures["launch"], 100)
    row("step commit to row in the browser", figures["steps"], 50)


def memory_mb(up: Up) -> float:
    """Proportional set size of every process that `up` started: shared pages are counted once."""
    total = 0
    for pid in up.processes():
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def sign_in_link(up: Up) -> str:
    return next(line.rpartition(" ")[2] for line in up.seen if line.startswith("sign in as"))


def row(name: str, values: list[float], floor: int) -> None:
    values = sorted(values)
    p95 = values[min(len(values) - 1, int(len(values) * 0.95))]
    print(f"{name:<44}{statistics.median(values):>7.1f} ms{p95:>7.1f} ms{len(values):>6}   {floor} ms")


def in_browser(up: Up, data_dir: Path, runs: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"launch": [], "steps": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(TIME_LAUNCH)
        page.goto(sign_in_link(up))
        page.click("form button[type=submit]")
        page.wait_for_load_state()
        for number in range(runs + 1):
            launched, steps = one_run(page, up, data_dir)
            if number:  # the first one warms caches
                figures["launch"].append(launched)
                figures["steps"] += steps
        browser.close()
    return figures


def one_run(page: Page, up: Up, data_dir: Path) -> tuple[float, list[float]]:
    """(milliseconds from the click to the first socket frame, milliseconds from commits to rows)."""
    page.goto(f"{up.url}/")
    commits: dict[int, float] = {}
    stop = listen(data_dir, commits)
    page.click("[data-launch]")
    page.wait_for_url("**/runs/*/")
    page.evaluate(WATCH_ROWS)
    page.wait_for_selector("#run-status[data-status=waiting]", timeout=90_000)
    seen = page.evaluate("window.seen")
    launched = page.evaluate("window.firstFrame - Number(sessionStorage.clicked)")
    stop()
    return launched, [at - commits[seq] * 1000 for seq, at in seen if seq in commits]


def listen(data_dir: Path, commits: dict[int, float]) -> Callable[[], None]:
    """Notes when each ring was published, which is right after its commit. Returns how to stop."""
    bell = redis.Redis.from_url((data_dir / "redis.url").read_text().strip()).pubsub()  # type: ignore[no-untyped-call]
    bell.psubscribe("asgi__group__run.*")
    over = threading.Event()

    def follow() -> None:
        while not over.is_set():
            message = bell.get_message(timeout=0.2)
            if message and message["type"] == "pmessage":
                rung = msgpack.unpackb(message["data"])
                if rung.get("type") == "ring":
                    commits.setdefault(int(rung["seq"]), time.time())
        bell.close()

    threading.Thread(target=follow).start()
    return over.set


if __name__ == "__main__":
    main()
