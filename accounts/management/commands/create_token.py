from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.utils import timezone

from accounts.models import Membership, Team, User
from accounts.schemas import Scope
from accounts.tokens import TokenRefused, create_token


class Command(BaseCommand):
    help = "Creates an API token and prints it, once, alone on stdout."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="username or e-mail address")
        parser.add_argument("--team", help="slug; needed by a user of several teams")
        parser.add_argument("--name", default="command line", help="what will use the token")
        parser.add_argument("--scopes", help=f"some of {','.join(Scope)}; default: all that the user's role has")
        parser.add_argument("--expires-days", type=int, help="default: valid until revoked")

    def handle(self, *args: Any, **options: Any) -> None:
        user = _user(options["user"])
        team = _team(user, options["team"])
        try:
            token, raw = create_token(
                user,
                team,
                name=options["name"][:80],
                scopes=_scopes(options["scopes"]),
                expires_at=_expiry(options["expires_days"]),
            )
        except TokenRefused as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(raw)
        self.stderr.write(f"For {user.label} in {team.name}, scopes {', '.join(token.scopes)}. It is not shown again.")


def _user(name: str) -> User:
    found = User.objects.filter(Q(username__iexact=name) | Q(email__iexact=name, email__gt="")).first()
    if found is None:
        raise CommandError(f"There is no user “{name}”.")
    return found


def _team(user: User, slug: str | None) -> Team:
    teams = [membership.team for membership in Membership.objects.filter(user=user).select_related("team")]
    named = [team for team in teams if slug in (None, team.slug)]
    if not named:
        raise CommandError(f"{user.label} is not a member of {f'the team “{slug}”' if slug else 'any team'}.")
    if len(named) > 1:
        raise CommandError(f"{user.label} has several teams: say --team {' or '.join(team.slug for team in named)}.")
    return named[0]


def _scopes(text: str | None) -> list[Scope] | None:
    if text is None:
        return None
    try:
        return [Scope(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError as error:
        raise CommandError(f"Scopes are {', '.join(Scope)}, not “{text}”.") from error


def _expiry(days: int | None) -> dt.datetime | None:
    if days is None:
        return None
    if not 0 < days <= 36_500:
        raise CommandError("--expires-days must be from 1 to 36500.")
    return timezone.now() + dt.timedelta(days=days)
