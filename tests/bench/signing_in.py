"""A token and a session for the requests of the benchmarks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from accounts.models import Team, User
from accounts.tokens import create_token


def keys(user: User, team: Team) -> dict[str, str]:
    _, raw = create_token(user, team, name="bench", scopes=None, expires_at=None)
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {"token": raw, "cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"}
