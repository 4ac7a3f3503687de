"""Who is reviewing which batch just now: a hint that nobody is held up by. It stands in Redis, one sorted set a team,
and ends by itself `STANDS_S` after the last word of the page that gave it. While Redis is away, nobody is shown."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from accounts.access import Access, Right
from accounts.models import User
from runs import live

STANDS_S = 16.0
NAMED = 2


@dataclass(slots=True)
class Place:
    """Where one open page stands: the batch that is reviewed on it, if any. `told` is what Redis was told last."""

    batch: uuid.UUID | None = None
    page: str = field(default_factory=lambda: uuid.uuid4().hex)
    told: str = ""


People = dict[uuid.UUID, tuple[User, ...]]


def meet(access: Access, place: Place) -> People:
    """Says where this page stands, and reads which others review what. Only who may decide reviews; one's own other
    pages are left out. Rings the team's inboxes when this page has moved."""
    member = f"{place.batch}:{access.user.id}:{place.page}" if place.batch and access.may(Right.DECIDE) else ""
    now, key = time.time(), _key(access.team.id)
    commands: list[live.Command] = [("ZREMRANGEBYSCORE", key, "-inf", str(now))]
    if place.told and place.told != member:
        commands.append(("ZREM", key, place.told))
    if member:
        commands += [("ZADD", key, str(now + STANDS_S), member), ("EXPIRE", key, str(int(STANDS_S) + 1))]
    answers = live.ask(*commands, ("ZRANGE", key, "0", "-1"))
    if answers is None:
        return {}
    if place.told != member:
        place.told = member
        live.ring_inbox(access.team.id)
    return _others(access, answers[-1])


def leave(team_id: uuid.UUID, place: Place) -> None:
    """The page was closed."""
    if place.told:
        live.ask(("ZREM", _key(team_id), place.told))
        place.told = ""
        live.ring_inbox(team_id)


def words(people: Iterable[User]) -> str:
    """`Ana Lind is reviewing this`, `Ana Lind, Marco Ruiz and 2 others are reviewing this`; empty for nobody."""
    names = [person.label for person in people]
    if not names:
        return ""
    if len(names) > NAMED + 1:
        names = [*names[:NAMED], f"{len(names) - NAMED} others"]
    who = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{who} {'is' if len(names) == 1 else 'are'} reviewing this"


def _key(team_id: uuid.UUID) -> str:
    return f"agentsite:reviewing:{team_id}"


def _others(access: Access, members: Iterable[bytes]) -> People:
    found: dict[uuid.UUID, set[uuid.UUID]] = {}
    for member in members:
        batch, user, _ = member.decode().split(":")
        if user != str(access.user.id):
            found.setdefault(uuid.UUID(batch), set()).add(uuid.UUID(user))
    if not found:
        return {}
    everyone = set().union(*found.values())
    known = User.objects.filter(id__in=everyone, is_active=True, memberships__team=access.team)
    people = {person.id: person for person in known.order_by("first_name", "last_name", "username")}
    return {
        batch: tuple(person for key, person in people.items() if key in reviewing) for batch, reviewing in found.items()
    }
