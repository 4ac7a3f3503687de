from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.sign_in import address_of, issue_sign_in_link, sign_in_path


class Command(BaseCommand):
    help = "Prints a link that signs a user in: once, and within ten minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="username")
        parser.add_argument(
            "--base-url",
            help="put before the path, for example https://agents.example.com; default: where `up` serves this data",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username__iexact=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.")
        if not user.is_active:
            raise CommandError(f"{user.label} is inactive and can't sign in.")
        base = options["base_url"] or address_of(settings.DATA_DIR)
        self.stdout.write(base.rstrip("/") + sign_in_path(issue_sign_in_link(user)))
