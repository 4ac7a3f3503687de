"""The sample shop: serves MCP on stdin and stdout, or prints the ledger of the effects that happened."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from runs.samples.shop.store import JsonObject, ShopError, Store


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    store = Store(options.data)
    try:
        if options.command == "ledger":
            return ledger(store, as_json=options.json)
        return serve(store)
    except ShopError as error:
        sys.stderr.write(f"shop: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m runs.samples.shop", description=__doc__)
    found.add_argument(
        "command",
        nargs="?",
        choices=("serve", "ledger"),
        default="serve",
        help="serve (default): speak MCP on stdin and stdout; ledger: print the effects that happened",
    )
    found.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help="the shop's SQLite file; serve creates it when missing"
    )
    found.add_argument("--json", action="store_true", help="ledger: one JSON object with the list `effects`")
    return found


def serve(store: Store) -> int:
    store.prepare()
    # Here, because the MCP SDK takes far longer to import than the ledger takes to print.
    from runs.samples.shop import server  # noqa: PLC0415

    server.main(store)
    return 0


def ledger(store: Store, *, as_json: bool) -> int:
    if not store.path.is_file():
        raise ShopError(f"there is no file {store.path}")
    store.prepare()
    effects = store.ledger()
    shown = json.dumps({"effects": effects}, ensure_ascii=False, indent=2) if as_json else as_text(effects)
    sys.stdout.write(f"{shown}\n")
    return 0


def as_text(effects: list[JsonObject]) -> str:
    head = f"{len(effects)} {'effect' if len(effects) == 1 else 'effects'}"
    return "\n".join([head, *map(line, effects)])


def line(entry: JsonObject) -> str:
    arguments = json.dumps(entry["arguments"], ensure_ascii=False)
    return f"{entry['id']:>4}  {entry['at']}  {entry['tool']}  {arguments}  key {entry['key']}"


if __name__ == "__main__":
    sys.exit(main())
