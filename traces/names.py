"""Names as people write them, resolved to what a team has: so that letter case and stars mean the same everywhere, and
the database compares whole values, which its indexes serve."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection
from django.db.models import Q

from accounts.models import Team, User
from runs.models import AgentVersion, Run, SearchDocument
from traces.scope import Scope
from traces.tree import Op, Term

MOST_VALUES = 2_000
SOURCES = {
    "tool": (SearchDocument, "tool"),
    "model": (SearchDocument, "model"),
    "type": (Run, "task_type"),
    "owner": (Run, "owner_id"),
}


def matches(term: Term, text: str) -> bool:
    """Whether one of the term's values names this text; * stands for anything unless it must be exact."""
    if term.op == Op.ANY:
        return text != ""
    if term.op == Op.EXACT:
        return text in term.values
    return any(_like(str(value), text) for value in term.values)


def _like(pattern: str, text: str) -> bool:
    """Each part at its first place: a regular expression would try them all, in time that doubles with every star."""
    text = text.casefold()
    first, *parts = pattern.casefold().split("*")
    if not parts:
        return first == text
    last = parts.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for part in parts:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def pattern(value: str) -> str:
    """The same as a regular expression, for columns that only the database looks through. PostgreSQL's are matched in
    one pass; those of Python, which SQLite calls, have to be told not to try another place of a part."""
    first, *parts = (re.escape(part) for part in value.split("*"))
    if not parts:
        return f"^{first}$"
    if connection.vendor == "postgresql":
        return f"^{'.*'.join([first, *parts])}$"
    *parts, last = parts
    return f"^{first}{''.join(f'(?>.*?{part})' for part in parts)}.*{last}$"


def any_matches(term: Term, texts: Iterable[str]) -> bool:
    return any(matches(term, text) for text in texts)


def observed(team_id: uuid.UUID, source: str) -> list[Any]:
    """The distinct values of a column in this team, in order: one look into the index for each, however many rows."""
    model, column = SOURCES[source]
    table = connection.ops.quote_name(model._meta.db_table)
    column = connection.ops.quote_name(column)
    # The names are our own constants.
    first = f"SELECT {column} AS v FROM {table} WHERE team_id = %s"  # noqa: S608
    following = f"(SELECT {column} FROM {table} WHERE team_id = %s AND {column} > t.v ORDER BY {column} LIMIT 1)"  # noqa: S608
    statement = (
        f"WITH RECURSIVE t(v) AS (SELECT v FROM ({first} ORDER BY {column} LIMIT 1) AS f "  # noqa: S608
        f"UNION ALL SELECT {following} FROM t WHERE t.v IS NOT NULL) "
        f"SELECT v FROM t WHERE v IS NOT NULL LIMIT {MOST_VALUES}"
    )
    team = Team._meta.pk.get_db_prep_value(team_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(statement, [team, team])
        return [value for (value,) in cursor.fetchall() if value != ""]


def named(scope: Scope, source: str, term: Term) -> list[str]:
    """The column's values that are meant; an exact one need not be looked up."""
    if term.op == Op.EXACT:
        return [str(value) for value in term.values]
    if source not in scope.observed:
        scope.observed[source] = observed(scope.team_id, source)
    return [value for value in scope.observed[source] if matches(term, value)]


def people(team_id: uuid.UUID, term: Term) -> list[uuid.UUID]:
    """Members of the team, and who ever started a run in it."""
    owners = observed(team_id, "owner")
    found = User.objects.filter(Q(memberships__team=team_id) | Q(id__in=owners)).distinct()
    return [user.id for user in found if matches_person(term, user)]


def authors(team_id: uuid.UUID, term: Term) -> list[uuid.UUID]:
    """Who wrote notes in the team, whether or not they are still in it."""
    people = User.objects.filter(notes__team=team_id).distinct()
    return [person.id for person in people if matches_person(term, person)]


def matches_person(term: Term, user: User) -> bool:
    """Exactly, by the username alone: other names may be somebody else's too."""
    return any_matches(term, [user.username] if term.op == Op.EXACT else names_of(user))


def agent_names(term: Term, slug: str, name: str) -> list[str]:
    """Exactly, an agent is named by its slug alone, for the same reason."""
    return [slug] if term.op == Op.EXACT and term.field.name == "agent" else [slug, name]


def names_of(user: User) -> Sequence[str]:
    full = f"{user.first_name} {user.last_name}".strip()
    return [name for name in (user.username, user.email, user.first_name, user.last_name, full) if name]


def versions(team_id: uuid.UUID, term: Term) -> tuple[set[uuid.UUID], set[uuid.UUID]]:
    """(agents of which every version is meant, single versions). An agent is named by its slug or a version's name."""
    rows = AgentVersion.objects.filter(agent__team=team_id).values_list(
        "id", "agent_id", "agent__slug", "number", "definition__name"
    )
    meant: dict[uuid.UUID, set[uuid.UUID]] = {}
    known: dict[uuid.UUID, set[uuid.UUID]] = {}
    for version_id, agent_id, slug, number, name in rows:
        known.setdefault(agent_id, set()).add(version_id)
        texts = agent_names(term, slug, name or "")
        if term.field.name == "prompt":
            texts += [f"{text}@{mark}{number}" for text in texts for mark in ("", "v")]
        if any_matches(term, texts):
            meant.setdefault(agent_id, set()).add(version_id)
    whole = {agent_id for agent_id, found in meant.items() if found == known[agent_id]}
    return whole, {version for agent_id, found in meant.items() if agent_id not in whole for version in found}


def to_complete(team_id: uuid.UUID) -> dict[str, list[str]]:
    """Values to offer in the query box, by field."""
    owners = observed(team_id, "owner")
    agents = AgentVersion.objects.filter(agent__team=team_id).values_list("agent__slug", flat=True)
    users = User.objects.filter(Q(memberships__team=team_id) | Q(id__in=owners)).values_list("username", flat=True)
    return {
        "agent": sorted(set(agents)),
        "tool": observed(team_id, "tool"),
        "model": observed(team_id, "model"),
        "type": observed(team_id, "type"),
        "user": sorted(set(users)),
        "approver": sorted(set(users)),
        "noted_by": sorted(set(users)),
    }
