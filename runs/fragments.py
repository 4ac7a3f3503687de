"""What a browser that watches a run is sent: steps after the last one it has, the call in flight, and changed regions.

Rings are hints only. Whatever was missed is found by reading again, so each reading compares with what was sent before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.template.loader import render_to_string
from django.utils.html import format_html

from accounts.access import Access, Right, access_now
from accounts.models import User
from runs import live, page
from runs.human_side import human_side
from runs.models import Run
from runs.page import LivePage
from runs.step_rows import MOST_STEPS, FlightRow, flight_row, plain, render_flight, render_row, rows_after

REGIONS_EVERY_S = 0.5
BADGE_EVERY_S = 2.0
FAMILY_EVERY_S = 1.0  # a run that waits for its sub-agents is rung by none of them, and shows what they do
NEVER = 3600.0


class SignedOut(Exception):
    """Nobody is signed in, or the session has ended since."""


class NotAllowed(Exception):
    """No such run for this person: unknown, of another team, or no longer theirs to see."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`again_in_s`: something was held back so as not to send too often; read again after this time."""

    html: str
    again_in_s: float = NEVER


class Watcher:
    """One browser at one run. Not for use by two threads at once."""

    def __init__(self, user: User, session: Any, run_id: str, after: int) -> None:
        self._user = user
        self._session = session
        self._run_id = run_id
        self.seq = after
        self._page: LivePage | None = None
        self._regions_at = 0.0
        self._flight: FlightRow | None = None
        self._flight_length = 0
        self._badge = -1
        self._badge_at = 0.0

    def group(self) -> str:
        """The group to join before the first reading. Raises SignedOut and NotAllowed, as `catch_up` does."""
        _, run = self._open()
        return live.run_group(run.id)

    def catch_up(self) -> Frame:
        """Everything that this browser does not have yet. The right to see it is asked afresh each time."""
        access, run = self._open()
        if run.last_seq - self.seq > MOST_STEPS:
            return Frame("<div data-reload></div>")
        html = [render_row(row) for row in self._new_rows(run)]
        html += self._flying(run)
        regions, again_in_s = self._regions(access, run)
        return Frame("".join([*html, *regions, *self._waiting(access, at_once=bool(regions))]), again_in_s)

    def forget_regions(self) -> None:
        """The next reading sends each region, changed or not."""
        self._page = None

    def delta(self, event: Mapping[str, Any]) -> str | None:
        """More text of the call in flight; None when something before it is missing and has to be read."""
        if self._flight is None or event["key"] != self._flight.key or event["offset"] > self._flight_length:
            return None
        self._flight_length = max(self._flight_length, event["offset"] + len(event["text"]))
        return _more_text(self._flight, event["offset"], event["text"])

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[Access, Run]:
        try:
            access = access_now(self._user, self._session)
            if access is None:
                raise SignedOut
            return access, page.load(access, self._run_id, Right.VIEW)
        except (PermissionDenied, Http404) as error:
            raise NotAllowed from error

    def _new_rows(self, run: Run) -> list[Any]:
        if run.last_seq <= self.seq:
            return []
        found = rows_after(run, self.seq)
        self.seq = max([self.seq, *(row.seq for row in found)])
        return found

    def _flying(self, run: Run) -> list[str]:
        flight = flight_row(live.read_in_flight(run.id), self.seq) if run.status == "running" else None
        before, self._flight = self._flight, flight
        if flight is None:
            # What was in flight and never landed: the run was parked, cancelled or failed in the middle of a call.
            gone = run.status != "running" and (self._page is None or (before is not None and before.seq > self.seq))
            return [format_html('<div data-remove="#step-{}"></div>', self.seq + 1)] if gone else []
        if before is not None and before.key == flight.key and before.seq == flight.seq:
            had, self._flight_length = self._flight_length, max(self._flight_length, flight.length)
            return [_more_text(flight, 0, flight.text)] if flight.length > had else []
        self._flight_length = flight.length
        return [render_flight(flight)]

    def _regions(self, access: Access, run: Run) -> tuple[list[str], float]:
        now, found = time.monotonic(), page.live_page(access, run)
        names = page.changed(found, self._page)
        later = FAMILY_EVERY_S if found.beneath.at_work else NEVER
        wait = self._regions_at + REGIONS_EVERY_S - now
        is_urgent = self._page is None or (found.status, found.waits) != (self._page.status, self._page.waits)
        if not names or (wait > 0 and not is_urgent):
            return [], wait if names else later
        self._page, self._regions_at = found, now
        return [page.render_region(name, found) for name in names], later

    def _waiting(self, access: Access, *, at_once: bool) -> list[str]:
        """How many batches wait for this person, of whatever run: the frame's own figure beside Approvals. Not asked
        again with each step; what other runs ask is found at the next healing."""
        now = time.monotonic()
        if not at_once and now < self._badge_at + BADGE_EVERY_S:
            return []
        self._badge_at, before, self._badge = now, self._badge, human_side().waiting_for(access)
        if self._badge == before:
            return []
        item = {"key": "approvals", "count": self._badge}
        places = ("nav", "tab")
        return [render_to_string("_frame/nav_count.html", {"item": item, "id_prefix": place}) for place in places]


def _more_text(flight: FlightRow, offset: int, text: str) -> str:
    """Added to the row's text by the browser. Offsets count characters, so a repeated piece adds nothing."""
    return format_html('<div data-text-append="#flight-{}" data-offset="{}">{}</div>', flight.seq, offset, plain(text))
