"""A worker process in small: starts the workshop through a pool, prints its pid, then waits inside a call."""

from __future__ import annotations

import sys

from runs.schemas import FoundTool, ServerConfig
from runs.tools.mcp import ServerPool


def main() -> None:
    names = ("whoami", "nap")
    found = [FoundTool(name=name, input_schema={"type": "object"}, effect="read") for name in names]
    config = ServerConfig(transport="stdio", command=sys.argv[1:])
    tools = ServerPool().tools("id", "workshop", config, found)
    answer = tools["workshop.whoami"].execute({}, idempotency_key="", timeout_s=20)
    print(answer.content["pid"], flush=True)
    tools["workshop.nap"].execute({"seconds": 600}, idempotency_key="", timeout_s=600)


if __name__ == "__main__":
    main()
