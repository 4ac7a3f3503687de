"""The only way to get a row for a person or a token: another team's row is a 404, a missing right a 403."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.http import Http404
from django.utils import timezone

from accounts.models import ApiToken, Membership, Team, User
from accounts.schemas import Role, Scope, type_of_scopes

M = TypeVar("M", bound=models.Model)
Source = type[M] | models.Manager[M] | models.QuerySet[M]

SESSION_TEAM = "team"
"""Session key: slug of the team a person works in at the moment."""

LAST_USED_EVERY = dt.timedelta(minutes=1)


class Right(StrEnum):
    VIEW = "view"
    LAUNCH = "launch"  # launch, steer, pause, cancel, comment
    DECIDE = "decide"
    MANAGE = "manage"  # agents, tool servers, members


LADDER = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)
ROLE_OF = dict(zip(Right, LADDER, strict=True))
SCOPE_OF = dict(zip(Right, (Scope.READ, Scope.RUNS, Scope.APPROVALS, Scope.AGENTS), strict=True))
MEANING = {
    Right.VIEW: "See this team's runs",
    Right.LAUNCH: "Launching, steering, cancelling and commenting on runs",
    Right.DECIDE: "Deciding on actions",
    Right.MANAGE: "Changing agents, tool servers and members",
}


class InvalidToken(Exception):
    """The text says why, for the owner of the token; it is an answer 401."""


class NoTeam(PermissionDenied):
    """A person who is signed in but is a member of no team."""


class MissingRight(PermissionDenied):
    """The text names what is missing and who can grant it."""

    def __init__(self, right: Right, message: str) -> None:
        super().__init__(message)
        self.right = right


def rights_of(role: Role) -> frozenset[Right]:
    return frozenset(right for right, needed in ROLE_OF.items() if LADDER.index(role) >= LADDER.index(needed))


@dataclass(frozen=True)
class Access:
    """Who asks, in which team, with which rights."""

    user: User
    team: Team
    role: Role
    rights: frozenset[Right]
    token: ApiToken | None = None

    def may(self, right: Right) -> bool:
        return right in self.rights

    @cached_property
    def others_decide(self) -> bool:
        """Whether somebody else of the team may decide on actions too. Asked once for each request."""
        return holders(self.team, Right.DECIDE).exclude(id=self.user.id).exists()

    @cached_property
    def deciders(self) -> frozenset[uuid.UUID]:
        """Who of the team may decide on actions now. Asked once for each request."""
        return frozenset(holders(self.team, Right.DECIDE).values_list("id", flat=True))

    def require(self, right: Right) -> None:
        if not self.may(right):
            raise MissingRight(right, self._what_is_missing(right))

    def acting(self) -> Access:
        """For a call that changes something: who may do that is answered with what it changed, and may read no more."""
        return replace(self, rights=self.rights | {Right.VIEW}) if self.rights else self

    def _what_is_missing(self, right: Right) -> str:
        if right in rights_of(self.role):
            return f"This token lacks the scope “{SCOPE_OF[right]}”. Create a token that has it in your settings."
        return (
            f"{MEANING[right]} needs the role {ROLE_OF[right]} in {self.team.name}; yours is {self.role}. "
            f"{_who_can_grant(self.team)}"
        )


# --- who asks --------------------------------------------------------------------------------------------------------


def access_for_user(user: User | AnonymousUser, team_slug: str | None = None) -> Access:
    """In the named team, or in the one joined first. Raises NoTeam, or Http404 for a team that isn't theirs."""
    if not isinstance(user, User) or not user.is_active:
        raise PermissionDenied("Sign in to see this.")
    memberships = Membership.objects.filter(user=user).select_related("team").order_by("created_at", "id")
    if team_slug is not None:
        memberships = memberships.filter(team__slug=team_slug)
    membership = memberships.first()
    if membership is None and team_slug is None:
        raise NoTeam("You are not a member of a team yet. An admin of a team can add you.")
    if membership is None:
        raise Http404("No such team.")
    role = Role(membership.role)
    return Access(user=user, team=membership.team, role=role, rights=rights_of(role))


def access_for_session(user: User | AnonymousUser, session: Mapping[str, Any]) -> Access:
    """In the team chosen in the session; one that was left since then falls back to the first."""
    try:
        return access_for_user(user, session.get(SESSION_TEAM))
    except Http404:
        return access_for_user(user)


def access_now(user: User, session: SessionBase) -> Access | None:
    """For a socket that stays open: asks afresh. None once the session has ended."""
    if not session.session_key or not session.exists(session.session_key):
        return None
    known = User.objects.filter(id=user.id).first()
    return access_for_session(known, session) if known else None


def access_for_token(raw: str) -> Access:
    """For the text after `Bearer `. Raises InvalidToken."""
    now = timezone.now()
    try:
        token = _tokens().get(digest=token_digest(raw))
    except ApiToken.DoesNotExist:
        raise InvalidToken("This token is not known here.") from None
    if token.revoked_at is not None:
        raise InvalidToken("This token was revoked.")
    if token.expires_at is not None and token.expires_at <= now:
        raise InvalidToken("This token has expired.")
    if not token.user.is_active:
        raise InvalidToken("The owner of this token is no longer active.")
    if token.role is None:
        raise InvalidToken("The owner of this token is no longer a member of its team.")
    role = Role(token.role)
    _note_use(token, now)
    scopes = type_of_scopes.validate_python(token.scopes)
    rights = frozenset(right for right in rights_of(role) if SCOPE_OF[right] in scopes)
    return Access(user=token.user, team=token.team, role=role, rights=rights, token=token)


@cache
def _tokens() -> models.QuerySet[Any]:
    """Never evaluated itself. To build it takes as long as to ask it, and each call of the API begins with it."""
    membership = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("team"))
    return ApiToken.objects.select_related("user", "team").annotate(role=Subquery(membership.values("role")))


def still_may(user_id: uuid.UUID, team_id: uuid.UUID, right: Right) -> bool:
    """Asks the database afresh: for the moment before an effect, when the page that was allowed is long gone."""
    role = _role(user_id, team_id)
    return role is not None and right in rights_of(role)


def token_digest(raw: str) -> str:
    """SHA-256 in hex. The tokens are 256 random bits, so a slow password hash would add nothing."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


# --- what they get ---------------------------------------------------------------------------------------------------


def rows(access: Access, source: Source[M]) -> models.QuerySet[M]:
    """The rows of the team. A model says by `team_path` how to get from it to its team; `team_id` unless told."""
    access.require(Right.VIEW)
    return _of_team(access, source)


def get(
    access: Access, source: Source[M], pk: uuid.UUID | str | None = None, *, right: Right = Right.VIEW, **lookup: Any
) -> M:
    """One row by id or by other fields. Http404 comes first: nobody learns that another team's row exists."""
    if pk is not None:
        lookup["pk"] = pk
    try:
        row = _of_team(access, source).get(**lookup)
    except (ObjectDoesNotExist, ValidationError, ValueError, TypeError, OverflowError) as error:
        raise Http404(f"No such {_queryset(source).model._meta.verbose_name}.") from error
    access.require(right)
    return row


def holders(team: Team, right: Right) -> models.QuerySet[User]:
    """Who of the team has a right by their role."""
    roles = [role for role in LADDER if right in rights_of(role)]
    memberships = Membership.objects.filter(team=team, role__in=roles)
    return User.objects.filter(is_active=True, id__in=memberships.values("user_id"))


def memberships_of(user: User) -> models.QuerySet[Membership]:
    """The teams a person is in, with the team: for choosing between them."""
    return Membership.objects.filter(user=user).select_related("team").order_by("team__name")


# --- helpers ---------------------------------------------------------------------------------------------------------


def _of_team(access: Access, source: Source[M]) -> models.QuerySet[M]:
    queryset = _queryset(source)
    path: str = getattr(queryset.model, "team_path", "team_id")
    return queryset.filter(**{path: access.team.id})


def _queryset(source: Source[M]) -> models.QuerySet[M]:
    if isinstance(source, models.QuerySet):
        return source
    return source.all() if isinstance(source, models.Manager) else source._default_manager.all()


def _role(user_id: uuid.UUID, team_id: uuid.UUID) -> Role | None:
    membership = Membership.objects.filter(user_id=user_id, team_id=team_id, user__is_active=True).first()
    return Role(membership.role) if membership else None


def _note_use(token: ApiToken, now: dt.datetime) -> None:
    """At most one write a minute; two requests at once agree by the condition."""
    long_ago = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    if token.last_used_at is None or token.last_used_at < now - LAST_USED_EVERY:
        ApiToken.objects.filter(long_ago, id=token.id).update(last_used_at=now)


def _who_can_grant(team: Team) -> str:
    admins = User.objects.filter(memberships__team=team, memberships__role=Role.ADMIN, is_active=True).order_by(
        "first_name", "username"
    )
    names = [admin.label for admin in admins[:3]]
    if not names:
        return "This team has no admin; whoever runs the installation can name one."
    return f"{names[0]} can grant it." if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]} can grant it."
