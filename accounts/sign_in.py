"""One-time sign-in links: for the first run, for invited people, for a lost password."""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
from pathlib import Path

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from accounts.access import token_digest
from accounts.models import SignInLink, User

LIFETIME = dt.timedelta(minutes=10)


def issue_sign_in_link(user: User, lifetime: dt.timedelta = LIFETIME) -> str:
    """The token of the link, which exists nowhere else."""
    token = secrets.token_urlsafe(32)
    SignInLink.objects.create(user=user, digest=token_digest(token), expires_at=timezone.now() + lifetime)
    return token


def sign_in_path(token: str) -> str:
    return reverse("accounts:sign_in_link", args=[token])


def address_of(data_dir: Path) -> str:
    """Where the `up` that works on this data serves it; empty when none does."""
    try:
        found = re.fullmatch(r"pid (\d+), (https?://\S+)", (data_dir / "up.lock").read_text().strip())
    except OSError:
        return ""
    return found[2] if found and _lives(int(found[1])) else ""


def _lives(pid: int) -> bool:
    """The lock outlives its process."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # under another user
    except (OSError, OverflowError):
        return False
    return True


def whose_link(token: str) -> User | None:
    """Looks only: whom the link would sign in, or None when it was used, has expired or never was."""
    link = _open(token).select_related("user").first()
    return link.user if link else None


def spend_link(token: str) -> User | None:
    """One UPDATE spends it: of two requests at the same moment one gets the user, the other None.

    Its condition names the link's own columns only. With a join, Django would write it as a subquery, which PostgreSQL
    does not look at again when it has waited for the other request.
    """
    if whose_link(token) is None:
        return None
    now = timezone.now()
    unspent = SignInLink.objects.filter(digest=token_digest(token), used_at__isnull=True, expires_at__gt=now)
    if unspent.update(used_at=now) != 1:
        return None
    return SignInLink.objects.select_related("user").get(digest=token_digest(token)).user


def _open(token: str) -> QuerySet[SignInLink]:
    return SignInLink.objects.filter(
        digest=token_digest(token), used_at__isnull=True, expires_at__gt=timezone.now(), user__is_active=True
    )
