"""20 people and 1,000 actions at once; the inbox with 1,000 that wait. On the database that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys

TESTS = ("tests/flows/test_load.py", "tests/approvals/test_first_paint.py")


def main() -> int:
    environment = {**os.environ, "LOAD_ACTIONS": os.environ.get("LOAD_ACTIONS", "1000")}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:randomly", *TESTS]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
