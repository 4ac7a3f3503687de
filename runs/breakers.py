"""The circuit breakers as rows that all workers share. A change swaps the value that was read, or is made anew."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from runs.engine import breakers
from runs.engine.breakers import Breaker, State, Unavailable
from runs.models import Breaker as Row
from runs.schemas import AgentIn
from runs.tools import RESERVED_SLUGS

# A closed breaker costs one query a second and process, whatever the number of runs.
FRESH_S = 1.0
TRIES = 8

_seen: dict[str, tuple[float, Breaker]] = {}
_lock = threading.Lock()


class DbBreakers:
    """Of one team's tool servers, and of the models that all teams share."""

    def __init__(self, team_id: uuid.UUID) -> None:
        self.team_id = team_id

    def peek(self, name: str) -> Unavailable | None:
        return breakers.refusal(_known(self._key(name)), timezone.now())

    def enter(self, name: str) -> Unavailable | None:
        key, now = self._key(name), timezone.now()
        known = _known(key)
        if known.state is State.CLOSED:
            return None
        refused: Unavailable | None = None

        def change(breaker: Breaker) -> Breaker:
            nonlocal refused
            refused = breakers.refusal(breaker, now)
            return breaker if refused is not None else breakers.entered(breaker, now)

        _swap(key, change)
        return refused

    def worked(self, name: str) -> None:
        key = self._key(name)
        if _known(key) != Breaker():
            _swap(key, breakers.worked)

    def failed(self, name: str, reason: str, retry_after_s: float | None = None) -> None:
        now = timezone.now()
        _swap(self._key(name), lambda breaker: breakers.failed(breaker, now, reason, retry_after_s))

    def _key(self, name: str) -> str:
        return key_of(self.team_id, name)


def key_of(team_id: uuid.UUID, name: str) -> str:
    """`tool:SERVER` belongs to a team, `model:MODEL` to the provider that everybody here uses."""
    kind, _, rest = name.partition(":")
    return f"{kind}:{team_id if kind == 'tool' else provider_name()}:{rest}"[:240]


def provider_name() -> str:
    if settings.SIMULATED:
        return "simulated"
    return urlsplit(settings.ANTHROPIC_BASE_URL).netloc or "api.anthropic.com"


def states(team_id: uuid.UUID, names: Iterable[str]) -> dict[str, Breaker]:
    """As they are now, by name; one query. What never failed has no row and is closed."""
    keys = {key_of(team_id, name): name for name in names}
    rows = {row.key: _value(row) for row in Row.objects.filter(key__in=keys)}
    return {name: rows.get(key, Breaker()) for key, name in keys.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What an agent depends on, and whether it is there. `name` is the breaker's, `label` what people call it."""

    name: str
    label: str
    is_model: bool
    breaker: Breaker
    unavailable: Unavailable | None

    @property
    def is_tried(self) -> bool:
        return (self.breaker.state is not State.CLOSED and self.unavailable is None) or (
            self.breaker.state is State.HALF_OPEN
        )


def connections(team_id: uuid.UUID, agent: AgentIn) -> list[Connection]:
    """The agent's models in their order, each once, then the servers of its tools. One query."""
    models = [agent.model or settings.AGENTSITE_MODEL, *agent.fallback_models, agent.judge_model]
    names = list(dict.fromkeys(f"model:{model}" for model in models if model))
    servers = {tool.name.partition(".")[0] for tool in agent.tools} - set(RESERVED_SLUGS)
    names += sorted(f"tool:{slug}" for slug in servers)
    found, now = states(team_id, names), timezone.now()
    return [
        Connection(
            name=name,
            label=name.partition(":")[2],
            is_model=name.startswith("model:"),
            breaker=found[name],
            unavailable=breakers.refusal(found[name], now),
        )
        for name in names
    ]


def try_now(team_id: uuid.UUID, name: str) -> None:
    """A person wants no more waiting. Nothing happens to what is there."""
    key, now = key_of(team_id, name), timezone.now()
    if Row.objects.filter(key=key).exists():
        _swap(key, lambda breaker: breakers.ready(breaker, now))


def forget() -> None:
    """What this process remembers of them; the rows stay."""
    with _lock:
        _seen.clear()


def _known(key: str) -> Breaker:
    with _lock:
        at, breaker = _seen.get(key, (float("-inf"), Breaker()))
    if time.monotonic() - at < FRESH_S:
        return breaker
    row = Row.objects.filter(key=key).first()
    return _remember(key, _value(row) if row is not None else Breaker())


def _swap(key: str, change: Callable[[Breaker], Breaker]) -> None:
    """Somebody else's change in between is built upon. After many of them this one is not needed any more."""
    for _ in range(TRIES):
        row, _made = Row.objects.get_or_create(key=key)
        old = _value(row)
        new = change(old)
        if new == old or _replace(row, new):
            _remember(key, new)
            return


def _replace(row: Row, new: Breaker) -> bool:
    changes = {
        "state": new.state,
        "failures": new.failures,
        "opened": new.opened,
        "until": new.until,
        "reason": new.reason,
        "version": F("version") + 1,
        "changed_at": timezone.now(),
    }
    return Row.objects.filter(key=row.key, version=row.version).update(**changes) == 1


def _value(row: Row) -> Breaker:
    return Breaker(state=State(row.state), failures=row.failures, opened=row.opened, until=row.until, reason=row.reason)


def _remember(key: str, breaker: Breaker) -> Breaker:
    with _lock:
        _seen[key] = (time.monotonic(), breaker)
    return breaker
