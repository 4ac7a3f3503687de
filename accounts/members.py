"""Who belongs to a team, and in which role. A team always keeps an active admin."""

from __future__ import annotations

from typing import NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts import receipts, tokens
from accounts.models import ApiToken, Membership, Team, User
from accounts.schemas import Role, Separation


class MemberRefused(ValueError):
    """The text says why."""


class Added(NamedTuple):
    membership: Membership
    is_new_user: bool


def add_member(team: Team, *, name: str, email: str, role: Role, by: User | str) -> Added:
    """Somebody known by this username or e-mail, else a new user without a password. Raises MemberRefused."""
    try:
        with transaction.atomic():
            user, is_new = _known(name, email) or (_new_user(name, email), True)
            membership = Membership.objects.create(team=team, user=user, role=role)
            _receipt(membership, "member.added", by, {"role": role})
    except IntegrityError as error:
        raise MemberRefused(f"{name or email} is a member of {team.name} already, or was added just now.") from error
    return Added(membership, is_new)


def change_role(membership: Membership, role: Role, by: User) -> None:
    """Raises MemberRefused for the last admin."""
    with transaction.atomic():
        receipts.lock_team(membership.team_id)
        before = Membership.objects.get(id=membership.id).role
        if before == role:
            return
        _keep_an_admin(membership, still_admin=role == Role.ADMIN)
        Membership.objects.filter(id=membership.id).update(role=role)
        _receipt(membership, "member.role_changed", by, {"before": before, "role": role})


def remove_member(membership: Membership, by: User) -> None:
    """Their tokens for this team end too. Raises MemberRefused for the last admin."""
    with transaction.atomic():
        receipts.lock_team(membership.team_id)
        _keep_an_admin(membership, still_admin=False)
        for token in ApiToken.objects.filter(team=membership.team, user=membership.user, revoked_at__isnull=True):
            tokens.revoke_token(token, by)
        _receipt(membership, "member.removed", by, {"role": membership.role})
        membership.delete()


def set_separation(team: Team, mode: Separation, by: User) -> None:
    """Whether who launched a run may approve its risky actions: a change of it is in the audit log."""
    with transaction.atomic():
        before = receipts.lock_team(team.id).separation
        if before == mode:
            return
        Team.objects.filter(id=team.id).update(separation=mode)
        receipts.append(
            team.id,
            "team.separation_changed",
            actor=by,
            subject_type="team",
            subject_id=team.id,
            payload={"before": before, "separation": str(mode)},
        )


def _known(name: str, email: str) -> tuple[User, bool] | None:
    wanted = Q(username__iexact=name) if name else Q(email__iexact=email)
    if name and email:
        wanted |= Q(email__iexact=email)
    found = list(User.objects.filter(wanted)[:2])
    if len(found) > 1:
        raise MemberRefused(f"{name} and {email} are two different people here. Give one of the two.")
    if found and not found[0].is_active:
        raise MemberRefused(f"{found[0].label} was made inactive on this installation.")
    return (found[0], False) if found else None


def _new_user(name: str, email: str) -> User:
    if not name:
        raise MemberRefused(f"Nobody here has the address {email}. Give a username too, and they are added.")
    user = User(username=name, email=email)
    user.set_unusable_password()
    user.save()
    return user


def _keep_an_admin(membership: Membership, *, still_admin: bool) -> None:
    admins = Membership.objects.filter(team_id=membership.team_id, role=Role.ADMIN, user__is_active=True)
    if not still_admin and not admins.exclude(id=membership.id).exists():
        raise MemberRefused("A team needs an admin. Make somebody else admin first.")


def _receipt(membership: Membership, kind: str, actor: User | str, roles: dict[str, str]) -> None:
    receipts.append(
        membership.team_id,
        kind,
        actor=actor,
        subject_type="member",
        subject_id=membership.user_id,
        payload={"member": membership.user.label, **{key: str(role) for key, role in roles.items()}},
    )
