"""`make bench`: every benchmark, or those that are named (`python -m tests.bench engine`). Each prints a table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A process each: they set up Django for databases of their own.
BENCHMARKS = ("engine", "pace", "traces", "browser", "deciding")


def main() -> int:
    wanted = sys.argv[1:] or BENCHMARKS
    unknown = [name for name in wanted if not (Path(__file__).parent / f"{name}.py").is_file()]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return max(subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode for name in wanted)


if __name__ == "__main__":
    sys.exit(main())
