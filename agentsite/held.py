"""Load a program's heavy parts, wait for the end of standard input, then be that program.

`up` starts workers and web while it still prepares the database, so that their imports do not add to its duration:
`python -m agentsite.held --load agentsite.asgi -- uvicorn agentsite.asgi:application`
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from importlib import import_module

import django


def main() -> None:
    split = sys.argv.index("--")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
    gc.disable()  # measured: imports take a sixth less without it, and leave nothing to collect
    django.setup()
    for name in sys.argv[1:split]:
        if name != "--load":
            import_module(name)
    gc.freeze()
    gc.enable()
    sys.stdin.read()
    program = sys.argv[split + 1]
    sys.argv = sys.argv[split + 1 :]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
