"""What keeps an agent in bounds, and who may do what with it, as its page says it. Nothing here is decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings

from accounts.access import Right, rights_of
from accounts.models import Membership, Team, User
from accounts.schemas import Role
from runs import durations, filtering
from runs.engine.breakers import FAILURES
from runs.engine.evaluators import PATIENCE
from runs.engine.filters import Filters
from runs.engine.guardrails import STOP_AT, TELL_AT
from runs.engine.policy import percent
from runs.engine.raising import WARN_FROM
from runs.policies import ToolLine
from runs.schemas import AgentIn
from runs.timing import ASK_FOR

MAY = ((Right.LAUNCH, "Launch and steer"), (Right.DECIDE, "Approve"), (Right.MANAGE, "Change it"))
FILTERED = (
    ("secrets", "secrets"),
    ("personal", "personal data"),
    ("contacts", "contacts"),
    ("instructions", "instructions in results"),
)
ACTS = {"redact": "kept out of what is stored", "block": "end the run", "mark": "marked for the agent"}
MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`value`: its number or state, as on a control; an `is_off` one does nothing for this agent."""

    icon: str
    title: str
    text: str
    value: str
    is_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """Who may do one thing, by name: at most `MOST_NAMES`, and how many `more`."""

    right: str
    words: str
    people: tuple[User, ...]
    more: int


def guards(team: Team, definition: AgentIn, tools: Sequence[ToolLine]) -> tuple[Guard, ...]:
    """Those that hold for every run of it, in the order in which a run meets them."""
    judged = definition.evaluation == "every_step"
    at_limit = "Warns, and asks people for more" if definition.raise_limits else "Warns, then sums up and stops"
    asking = {line.name for line in tools if line.asks}
    granted = [tool for tool in definition.tools if tool.name in asking]
    undo = [settings.AGENTSITE_UNDO_SECONDS if tool.undo_s is None else tool.undo_s for tool in granted]
    expires = [tool.expires_s or int(ASK_FOR.total_seconds()) for tool in granted]
    return (
        Guard(
            icon="repeat",
            title="Loop guard",
            text="The same call with the same result: the agent is told, then the run stops",
            value=f"{TELL_AT[1]}, then {STOP_AT[1]} times",
        ),
        Guard(
            icon="trending-down",
            title="Diminishing returns",
            text="Stops when evaluations see no progress" if judged else "Needs an evaluation after every step",
            value=f"{PATIENCE} in a row" if judged else "off",
            is_off=not judged,
        ),
        Guard(icon="gauge", title="Budget warning", text=at_limit, value=f"at {percent(float(WARN_FROM))}"),
        _filters(filtering.filters_of(team, definition)),
        Guard(
            icon="timer",
            title="Approvals expire",
            text="Then nothing runs and the agent is told" if granted else "No tool of it asks",
            value=f"after {_span(expires)}" if granted else "–",
            is_off=not granted,
        ),
        Guard(
            icon="undo-2",
            title="Approvals can be taken back",
            text="Until then nothing begins" if any(undo) else "What is approved begins at once",
            value=f"for {_span(undo)}" if any(undo) else "off",
            is_off=not any(undo),
        ),
        Guard(
            icon="power",
            title="Circuit breakers",
            text="A tool server or a model that fails is left alone, then tried",
            value=f"{FAILURES} failures",
        ),
    )


def permitted(team: Team) -> tuple[Permitted, ...]:
    """By role: who of the team may launch, approve and change its agents. One query."""
    members = Membership.objects.filter(team=team, user__is_active=True).select_related("user")
    found = sorted(members, key=lambda member: member.user.label.casefold())
    return tuple(_permitted(right, words, found) for right, words in MAY)


def _permitted(right: Right, words: str, members: Iterable[Membership]) -> Permitted:
    people = [member.user for member in members if right in rights_of(Role(member.role))]
    return Permitted(right=right.value, words=words, people=tuple(people[:MOST_NAMES]), more=len(people[MOST_NAMES:]))


def _filters(wanted: Filters) -> Guard:
    """`Secrets and personal data: kept out of what is stored; instructions in results: marked for the agent`."""
    states = {words: getattr(wanted, name) for name, words in FILTERED}
    on = [state for state in states.values() if state != "off"]
    terms = []
    for state, act in ACTS.items():
        names = [words for words, chosen in states.items() if chosen == state]
        if names:
            terms.append(f"{', '.join(names[:-1])} and {names[-1]}: {act}" if names[1:] else f"{names[0]}: {act}")
    text = "; ".join(terms) or "Texts are stored and shown as they come"
    return Guard(
        icon="shield-check",
        title="Content filters",
        text=text[:1].upper() + text[1:],
        value=f"{len(on)} of {len(states)}" if on else "off",
        is_off=not on,
    )


def _span(seconds: Sequence[int]) -> str:
    """`45 min`, or `45 min to 24 h` where tools differ."""
    least, most = durations.written(min(seconds)), durations.written(max(seconds))
    return least if least == most else f"{least} to {most}"
