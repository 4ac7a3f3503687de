"""Migrations and first-run data, then a one-time sign-in link: `python -m agentsite.preparation`.

A program of its own, so that `up`, which stays for as long as the site, does not carry what only this needs.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

import django
from django.core.management import call_command

LINK = "sign-in path: "


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
    gc.disable()  # measured: a fifth quicker, and this program is over before it would pay
    django.setup()
    from accounts import first_run as accounts_first_run  # noqa: PLC0415  (models can be imported only now)
    from accounts import sign_in  # noqa: PLC0415
    from agentsite.checks import check_environment  # noqa: PLC0415
    from runs import first_run as runs_first_run  # noqa: PLC0415
    from runs.models import WorkerHeartbeat  # noqa: PLC0415

    if wrong := [message for message in check_environment(None) if message.is_serious()]:
        sys.exit("\n".join(str(message) for message in wrong))
    say("database: migrating")
    call_command("migrate", interactive=False, verbosity=0)
    say("first-run data: people and teams")
    user = accounts_first_run.ensure_first_run().user
    say("first-run data: sample agents and their shop")
    runs_first_run.ensure_samples()
    # The last beats of workers that were stopped a moment ago would make /readyz answer for them.
    WorkerHeartbeat.objects.filter(worker__startswith=f"{socket.gethostname()}:").delete()
    say(LINK + sign_in.sign_in_path(sign_in.issue_sign_in_link(user)))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
