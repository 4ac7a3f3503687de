"""Making and ending API tokens."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Collection

from django.db import transaction
from django.utils import timezone

from accounts import receipts
from accounts.access import SCOPE_OF, rights_of, token_digest
from accounts.models import ApiToken, Membership, Team, User
from accounts.schemas import Role, Scope

MARK = "as_"
"""Begins every token, so that scanners for leaked secrets can know one."""


class TokenRefused(ValueError):
    """The text says why."""


def scopes_of(role: Role) -> list[Scope]:
    """In the order of the rights."""
    rights = rights_of(role)
    return [scope for right, scope in SCOPE_OF.items() if right in rights]


def create_token(
    user: User,
    team: Team,
    *,
    name: str,
    scopes: Collection[Scope] | None = None,
    expires_at: dt.datetime | None = None,
) -> tuple[ApiToken, str]:
    """The row, and the raw token, which exists nowhere else. Without `scopes`: all that the role has.

    Raises TokenRefused.
    """
    membership = Membership.objects.filter(user=user, team=team, user__is_active=True).first()
    if membership is None:
        raise TokenRefused(f"{user.label} is not an active member of {team.name}.")
    granted = _granted(Role(membership.role), scopes)
    raw = MARK + secrets.token_urlsafe(32)
    with transaction.atomic():
        token = ApiToken.objects.create(
            team=team,
            user=user,
            name=name,
            digest=token_digest(raw),
            prefix=raw[: len(MARK) + 6],
            scopes=granted,
            expires_at=expires_at,
        )
        _receipt(token, "token.created", user)
    return token, raw


def revoke_token(token: ApiToken, by: User) -> bool:
    """False when it had been revoked before."""
    with transaction.atomic():
        revoked = ApiToken.objects.filter(id=token.id, revoked_at__isnull=True).update(revoked_at=timezone.now()) == 1
        if revoked:
            _receipt(token, "token.revoked", by)
    return revoked


def _granted(role: Role, wanted: Collection[Scope] | None) -> list[Scope]:
    available = scopes_of(role)
    if wanted is None:
        return available
    beyond = [scope for scope in wanted if scope not in available]
    if beyond:
        raise TokenRefused(f"The role {role} has no scope {', '.join(beyond)}; it has {', '.join(available)}.")
    if not wanted:
        raise TokenRefused("A token needs at least one scope.")
    return [scope for scope in available if scope in wanted]


def _receipt(token: ApiToken, kind: str, actor: User) -> None:
    receipts.append(
        token.team_id,
        kind,
        actor=actor,
        subject_type="token",
        subject_id=token.id,
        payload={"name": token.name, "prefix": token.prefix, "owner": token.user.label, "scopes": list(token.scopes)},
    )
