"""The shop's SQLite file: opened and seeded once, read from a connection that cannot write, changed only through the
ledger. Every call takes its own connection, so that threads and several server processes can share one file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from runs.samples.shop import seed

JsonObject = dict[str, Any]

APPLICATION_ID = 0x53484F50  # "SHOP": tells our file from somebody's database that was named by mistake
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0


class ShopError(Exception):
    """A refusal in words for the caller. Nothing has changed."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


class Store:
    """`now` is the clock that ages are counted from: dates are kept as ages, so the story never grows old."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self.now = now

    @property
    def today(self) -> date:
        return self.now().date()

    def prepare(self) -> None:
        """Creates and seeds the file when it is missing. Raises `ShopError` for a file that is not a shop's."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db:
                self._seed(db)
                use_wal(db)
        except (OSError, sqlite3.Error) as error:
            raise ShopError(f"{self.path} cannot be used as the shop's file: {error}") from error

    def _seed(self, db: sqlite3.Connection) -> None:
        with transaction(db, "IMMEDIATE"):
            if pragma(db, "application_id") == APPLICATION_ID:
                self._check_version(db)
                return
            if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise ShopError(f"{self.path} is a database of something else, not a shop's file")
            for statement in seed.SCHEMA:
                db.execute(statement)
            for table, rows in seed.ROWS.items():
                insert_rows(db, table, rows)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_version(self, db: sqlite3.Connection) -> None:
        version = pragma(db, "user_version")
        if version != SCHEMA_VERSION:
            raise ShopError(f"{self.path} has version {version}, this shop needs {SCHEMA_VERSION}: move the file away")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot on a connection on which any write fails."""
        with closing(self._connect()) as db:
            db.execute("PRAGMA query_only = ON")
            with transaction(db, "DEFERRED"):
                yield db

    def effect(
        self, key: str, tool: str, arguments: JsonObject, apply: Callable[[sqlite3.Connection], JsonObject]
    ) -> JsonObject:
        """Applies a change and writes it into the ledger in one transaction, at most once for each key."""
        with closing(self._connect()) as db, transaction(db, "IMMEDIATE"):
            first = recorded(db, key)
            if first is not None:
                return repeated(first, tool, arguments)
            result = apply(db)
            db.execute(
                "INSERT INTO effects (key, tool, arguments, result, at) VALUES (?, ?, ?, ?, ?)",
                (key, tool, to_json(arguments), to_json(result), rfc3339(self.now())),
            )
            return {**result, "repeat": False}

    def ledger(self) -> list[JsonObject]:
        """All effects, oldest first: `{id, key, tool, arguments, result, at}`."""
        with self.reading() as db:
            return [ledger_entry(row) for row in db.execute("SELECT * FROM effects ORDER BY id")]


@contextmanager
def transaction(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def use_wal(db: sqlite3.Connection) -> None:
    """Lets readers go on during a write. A process that finds the file in use goes on without: it is as safe."""
    try:
        db.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise


def pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def insert_rows(db: sqlite3.Connection, table: str, rows: Sequence[JsonObject]) -> None:
    for row in rows:
        columns, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" for _ in row)
        values = [to_json(value) if isinstance(value, list) else value for value in row.values()]
        # The names are those of seed.py; values never become part of a statement.
        db.execute(f'INSERT INTO "{table}" ({columns}) VALUES ({marks})', values)  # noqa: S608


def recorded(db: sqlite3.Connection, key: str) -> JsonObject | None:
    row = db.execute("SELECT * FROM effects WHERE key = ?", (key,)).fetchone()
    return None if row is None else ledger_entry(row)


def repeated(first: JsonObject, tool: str, arguments: JsonObject) -> JsonObject:
    """The first result again; the key of another call is refused, because its caller means something else by it."""
    if (first["tool"], first["arguments"]) != (tool, arguments):
        raise ShopError("this idempotency key was already used for a call with another tool or other arguments")
    return {**first["result"], "repeat": True}


def ledger_entry(row: sqlite3.Row) -> JsonObject:
    return {**dict(row), "arguments": json.loads(row["arguments"]), "result": json.loads(row["result"])}
