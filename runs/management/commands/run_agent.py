"""Launches a run from the command line, as the page does."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError
from django.http import Http404
from pydantic import ValidationError

from accounts.access import access_for_user
from accounts.models import User
from runs import commands, presenters
from runs.engine.types import Mode
from runs.errors import Invalid
from runs.models import Run

POLL_S = 0.5
EXIT_OF = {"completed": 0, "dry_run_ready": 0, "waiting": 3, "paused": 3}


class Command(BaseCommand):
    help = (
        "Launch an agent. With --wait, follow the run until it ends or waits for a person. "
        "Exit codes: 0 done or launched, 1 bad input, 2 stopped, failed, cancelled, 3 waiting or paused, 4 timed out."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="the agent, refund-desk for one")
        parser.add_argument("task", help="what it should do")
        parser.add_argument("--mode", choices=[mode.value for mode in Mode], help="the agent's own unless given")
        parser.add_argument("--user", default="admin", help="in whose name (admin)")
        parser.add_argument("--team", help="slug of the team, the user's first unless given")
        parser.add_argument("--wait", action="store_true", help="until the run ends or needs a person")
        parser.add_argument("--timeout", type=float, default=600, help="seconds to wait at most (600)")
        parser.add_argument("--json", action="store_true", help="print the run as the API gives it")

    def handle(self, *args: Any, **options: Any) -> None:
        run = self._launch(options)
        if options["wait"]:
            self._follow(run, options["timeout"])
        run = Run.objects.select_related("agent", "agent_version", "owner").get(id=run.id)
        if options["json"]:
            self.stdout.write(json.dumps(presenters.run_json(run), indent=2))
        else:
            self.stdout.write(f"{run.short_id} {run.id} {run.status} {run.stop_detail}".strip())
            if run.result:
                self.stdout.write(run.result)
        if options["wait"] and (code := EXIT_OF.get(run.status, 2)):
            raise SystemExit(code)

    def _launch(self, options: dict[str, Any]) -> Run:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.")
        mode = Mode(options["mode"]) if options["mode"] else None
        try:
            access = access_for_user(user, options["team"])
            return commands.launch(access, commands.Launch(agent=options["slug"], task=options["task"], mode=mode))
        except (Invalid, ValidationError, PermissionDenied, Http404) as error:
            raise CommandError(str(error)) from error

    def _follow(self, run: Run, timeout: float) -> None:
        """Progress goes to stderr, so that --json stays clean."""
        shown, until = 0, time.monotonic() + timeout
        while time.monotonic() < until:
            run.refresh_from_db()
            for step in run.steps.filter(seq__gt=shown).order_by("seq"):
                self.stderr.write(f"{step.seq:>4} {step.kind:<9} {step.title}: {step.summary}"[:160])
                shown = step.seq
            if run.is_ended or run.status in ("waiting", "paused"):
                return
            time.sleep(POLL_S)
        self.stderr.write(f"{run.short_id} is still {run.status} after {timeout:g} s; it goes on.")
        raise SystemExit(4)
