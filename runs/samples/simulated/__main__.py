"""`python -m runs.samples.simulated --port 0 --port-file FILE`: serves the simulated model until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from runs.samples.simulated import FakeMessagesServer, respond

KEPT_CALLS = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m runs.samples.simulated", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument(
        "--pace", type=float, default=40.0, help="tokens a second; 0 is as fast as it goes (default 40)"
    )
    parser.add_argument("--first-token", type=float, default=0.25, help="seconds before a reply begins (default 0.25)")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server = FakeMessagesServer(
            respond, port=options.port, pace=options.pace, first_token_s=options.first_token, keep_calls=KEPT_CALLS
        )
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{options.port}: {error}", file=sys.stderr)
        return 1
    with server:
        if options.port_file:
            write_port(options.port_file, server.port)
        print(f"simulated model on {server.url}", flush=True)
        stopped.wait()
    return 0


def write_port(path: Path, port: int) -> None:
    """In one move, so that a reader never sees half a number."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(f"{port}\n", encoding="ascii")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
