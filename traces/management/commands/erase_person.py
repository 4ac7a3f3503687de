from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from runs.erasure import NotYet, find
from traces.erasing import erase_user
from traces.models import Alert


class Command(BaseCommand):
    help = (
        "Says what there is of a person, and with --yes erases it: name, addresses, access, the texts of their runs "
        "and messages. Decisions and the audit log stay, because they prove who allowed what."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--yes", action="store_true", help="erase it; this can't be undone")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username__iexact=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['username']}”.")
        try:
            found = erase_user(user, by="agentsite", alerts=Alert.objects.all()) if options["yes"] else find(user)
        except NotYet as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps({"erased": options["yes"], **asdict(found)}, indent=2))
            return
        self.stdout.write(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(found).items()))
        done = "Erased; the receipts stay." if options["yes"] else "Nothing was changed. Add --yes to erase."
        self.stdout.write(done)
