"""What every page's frame shows: where one can go, what waits there, who is signed in, which theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

if TYPE_CHECKING:
    from accounts.access import Access

THEME_COOKIE: Final = "theme"
THEMES: Final = ("light", "dark")


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of the sidebar. `key` also names its count; `shortcut` follows `g`, or stands alone for launching."""

    key: str
    label: str
    href: str
    icon: str
    shortcut: str


NAV: Final = (
    Destination("launch", "Launch", "/", "rocket", "n"),
    Destination("approvals", "Approvals", "/approvals/", "inbox", "g i"),
    Destination("runs", "Runs", "/runs/", "activity", "g r"),
    Destination("traces", "Traces", "/traces/", "list-tree", "g t"),
    Destination("costs", "Costs", "/costs/", "coins", "g c"),
    Destination("agents", "Agents", "/agents/", "bot", "g a"),
)
TABS: Final = ("approvals", "runs", "launch", "costs")  # the thumb's order; the rest is under More

WATCHED: Final = frozenset({"running", "waiting", "delegating"})

# Who counts and lists for the frame; filled where the project is composed, so that this module imports no app.
Counter = Callable[["Access"], int]
RecentRuns = Callable[["Access"], Sequence[Mapping[str, Any]]]
COUNTERS: dict[str, Counter] = {}
RECENT_RUNS: list[RecentRuns] = []


def frame(request: HttpRequest) -> dict[str, Any]:
    """`frame`: nav, tabs, here, theme, simulated, access, user_label, team_name, recent_runs, watching.

    Lazy as a whole, because the fragments for htmx run through here too and use none of it.
    """
    return {"frame": SimpleLazyObject(lambda: _frame(request))}


def _frame(request: HttpRequest) -> dict[str, Any]:
    access = _access(request)
    theme = request.COOKIES.get(THEME_COOKIE, "")
    nav = _nav(access, _here(request.path))
    recent = _recent(access)
    return {
        "nav": nav,
        "tabs": _tabs(nav),
        "here": _here(request.path),
        "theme": theme if theme in THEMES else "",
        "simulated": settings.SIMULATED,
        "access": access,
        "user_label": str(access.user.label) if access else "",
        "team_name": access.team.name if access else "",
        "recent_runs": recent,
        "watching": [run for run in recent if run["status"] in WATCHED][:4],
    }


def _access(request: HttpRequest) -> Access | None:
    """None also for a person in no team: an error is shown to them within the frame too."""
    try:
        return getattr(request, "access", None) or None
    except PermissionDenied:
        return None


def _here(path: str) -> str:
    """Key of the destination the path lies under; empty when under none."""
    if path == "/":
        return "launch"
    return next((item.key for item in NAV if item.href != "/" and path.startswith(item.href)), "")


def _nav(access: Access | None, here: str) -> list[dict[str, Any]]:
    return [
        {
            "key": item.key,
            "label": item.label,
            "href": item.href,
            "icon": item.icon,
            "shortcut": item.shortcut,
            "current": item.key == here,
            "count": COUNTERS[item.key](access) if access and item.key in COUNTERS else 0,
        }
        for item in NAV
    ]


def _tabs(nav: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """`main`: the four tabs in the thumb's order; `more`: what the fifth opens."""
    by_key = {item["key"]: item for item in nav}
    return {"main": [by_key[key] for key in TABS], "more": [item for item in nav if item["key"] not in TABS]}


def _recent(access: Access | None) -> list[Mapping[str, Any]]:
    """Latest runs as {href, title, ref, status}, newest first."""
    return [run for source in RECENT_RUNS for run in source(access)] if access else []
