"""Standing grants: one decision made for a few more calls that are like it, and for no others.

A grant is bound to one agent, one tool in one version, a matcher for every argument, a number of uses, a total value
and a time. Each use is taken by one conditional UPDATE before the action exists, so two runs can't both take the last
one, and writes a Decision in the name of the person who gave the grant. It never covers what needs two people, what is
riskier than the action it was born from, or what its giver could not approve now.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, access_for_user, get, rows, still_may
from accounts.models import Team
from approvals import duties, evidence, grant_proof
from approvals.models import GRANT_CHANNEL, Decision, GrantUse, StandingGrant, Verdict
from approvals.schemas import MatcherIn
from runs.engine import rules
from runs.engine.rules import Comparison
from runs.engine.types import Call, JsonObject, Risk, Route, ToolSpec
from runs.errors import Conflict, Invalid
from runs.models import Action, Run

LOOK_BACK = dt.timedelta(days=30)
MOST_USES = 1000
LARGEST = 10**9
SMALLEST = Decimal("0.000001")
MOST_DAYS = 90
MOST_LOOKED_AT = 1000
TRIES = 20  # of taking a use that others take at the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants to allow. `value_argument` names the number that `value` limits in total."""

    matchers: tuple[MatcherIn, ...]
    uses: int
    days: int
    value_argument: str = ""
    value: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a grant would have covered of the last 30 days' actions that people were asked about."""

    covered: tuple[Action, ...]
    asked: int
    rejected: int
    value: Decimal | None
    is_cut: bool


# --- giving and taking back ------------------------------------------------------------------------------------------


def origin(access: Access, action_id: uuid.UUID | str) -> Action:
    """The decided action that a grant may be born from. Raises `Conflict` when this person may not give one for it."""
    source = Action.objects.select_related("run__agent", "run__agent_version")
    action = get(access, source, action_id, right=Right.DECIDE)
    said = rows(access, Decision).filter(action=action, actor=access.user, verdict=Verdict.APPROVE)
    if action.kind != "action" or not said.exclude(channel=GRANT_CHANNEL).exists():
        raise Conflict("Only who approved an action can allow more like it.", status=action.status)
    if action.needed > 1:
        raise Conflict("What two people have to approve can’t be allowed by one in advance.", status=action.status)
    return action


def check(action: Action, wish: Wish) -> None:
    """Raises `Invalid` by field."""
    problems = _problems(action, wish)
    if problems:
        raise Invalid(problems)


def give(access: Access, action_id: uuid.UUID | str, wish: Wish) -> StandingGrant:
    """Raises `Invalid` by field, `Conflict` as `origin`."""
    action = origin(access, action_id)
    check(action, wish)
    now = timezone.now()
    with transaction.atomic():
        grant = StandingGrant.objects.create(
            team=access.team,
            agent=action.run.agent,
            tool=action.tool,
            tool_version=action.tool_version,
            matchers=[matcher.model_dump(mode="json") for matcher in wish.matchers],
            max_risk=action.risk,
            uses_most=wish.uses,
            uses_left=wish.uses,
            value_argument=wish.value_argument,
            value_most=wish.value if wish.value_argument else None,
            value_left=wish.value if wish.value_argument else None,
            born_of=action,
            created_by=access.user,
            expires_at=now + dt.timedelta(days=wish.days),
        )
        facts = grant_proof.facts_digest(StandingGrant.objects.get(id=grant.id))
        _receipt(
            grant,
            grant_proof.GIVEN,
            access,
            matchers=grant.matchers,
            uses=wish.uses,
            born_of=str(action.id),
            channel="web" if access.token is None else "api",
            facts=facts,
        )
    return grant


def revoke(access: Access, grant_id: uuid.UUID | str) -> bool:
    """Whether it still stood. What it released before and did not begin yet is stopped at the claim."""
    grant = get(access, StandingGrant, grant_id, right=Right.DECIDE)
    with transaction.atomic():
        revoked = StandingGrant.objects.filter(id=grant.id, revoked_at__isnull=True)
        if revoked.update(revoked_at=timezone.now(), revoked_by=access.user) != 1:
            return False
        _receipt(grant, grant_proof.REVOKED, access)
    return True


def listed(access: Access) -> QuerySet[StandingGrant]:
    found = rows(access, StandingGrant).select_related("agent", "created_by", "revoked_by")
    return found.order_by("-created_at", "-id")


def preview(action: Action, wish: Wish) -> Preview:
    since = timezone.now() - LOOK_BACK
    asked = Action.objects.filter(
        run__agent=action.run.agent_id,
        tool=action.tool,
        kind__in=["action", "unknown"],
        supersedes__isnull=True,
        needed=1,
        created_at__gte=since,
    )
    found = list(asked.defer("preview", "preconditions", "result").order_by("-created_at", "-id")[: MOST_LOOKED_AT + 1])
    covered = [each for each in found[:MOST_LOOKED_AT] if _fits(each, action, wish)]
    values = [rules.number(rules.at(each.args, wish.value_argument)[1]) for each in covered if wish.value_argument]
    return Preview(
        covered=tuple(covered),
        asked=len(found[:MOST_LOOKED_AT]),
        rejected=sum(each.status in ("rejected", "superseded") for each in covered),
        value=sum((value for value in values if value is not None), Decimal(0)) if wish.value_argument else None,
        is_cut=len(found) > MOST_LOOKED_AT,
    )


def covers(matchers: Sequence[MatcherIn], args: JsonObject) -> bool:
    """Every argument has its matcher and passes it. One that no matcher names is never let through."""
    by_name = {matcher.argument: matcher for matcher in matchers}
    return set(args) <= set(by_name) and all(_passes(matcher, args) for matcher in by_name.values())


# --- using -----------------------------------------------------------------------------------------------------------


def route(run: Run, call: Call, tool: ToolSpec, chosen: Route) -> Route:
    """`chosen`, or a release by a grant. Its use is taken here, within the caller's transaction, once for each call."""
    known = GrantUse.objects.select_related("grant__created_by").filter(run=run, intent=call.intent).first()
    if known is not None:
        return _released(known.grant, chosen)
    now = timezone.now()
    standing = StandingGrant.objects.select_related("created_by").filter(
        team_id=run.team_id, agent_id=run.agent_id, tool=call.tool, tool_version=tool.version, revoked_at__isnull=True
    )
    for grant in standing.filter(expires_at__gt=now, uses_left__gt=0).order_by("expires_at", "id"):
        if _may_cover(grant, run, call, chosen) and _take(grant, call.args):
            GrantUse.objects.create(grant=grant, run=run, intent=call.intent, value=_value(grant, call.args), at=now)
            return _released(grant, chosen)
    return chosen


def decide(row: Action) -> None:
    """The Decision of a use, with the action it released. Within the transaction that stores the action."""
    use = GrantUse.objects.select_related("grant__created_by").get(run_id=row.run_id, intent=row.intent)
    decision = Decision.objects.create(
        action=row,
        actor=use.grant.created_by,
        verdict=Verdict.APPROVE,
        note="",
        shown_digest=row.digest,
        shown_version=1,
        channel=GRANT_CHANNEL,
        at=row.decided_at or timezone.now(),
    )
    GrantUse.objects.filter(id=use.id).update(action=row)
    evidence.record_decision(decision)


def give_back(run_id: uuid.UUID, intent: str) -> None:
    """A use whose action never came to be, because the tool would refuse it."""
    with transaction.atomic():
        use = GrantUse.objects.filter(run_id=run_id, intent=intent, action__isnull=True).first()
        if use is None or GrantUse.objects.filter(id=use.id, action__isnull=True).delete()[0] == 0:
            return
        for _ in range(TRIES):
            grant = StandingGrant.objects.get(id=use.grant_id)
            value = None if grant.value_left is None else grant.value_left + use.value
            if _same_state(grant).update(uses_left=grant.uses_left + 1, value_left=value) == 1:
                return


def still_stands(action: Action) -> bool:
    """Asked just before the effect: an action that a grant released stops when the grant is taken back."""
    return not GrantUse.objects.filter(action=action, grant__revoked_at__isnull=False).exists()


# --- helpers ---------------------------------------------------------------------------------------------------------


def _take(grant: StandingGrant, args: JsonObject) -> bool:
    """One use, and its value, by one UPDATE on the row as it was read; read again when somebody else was first."""
    for _ in range(TRIES):
        value = _value(grant, args)
        if grant.uses_left < 1 or (grant.value_left is not None and value > grant.value_left):
            return False
        left = None if grant.value_left is None else grant.value_left - value
        standing = _same_state(grant).filter(revoked_at__isnull=True, expires_at__gt=timezone.now())
        if standing.update(uses_left=F("uses_left") - 1, value_left=left) == 1:
            return True
        grant.refresh_from_db(fields=["uses_left", "value_left", "revoked_at", "expires_at"])
        if grant.revoked_at is not None or grant.expires_at <= timezone.now():
            return False
    return False


def _same_state(grant: StandingGrant) -> QuerySet[StandingGrant]:
    return StandingGrant.objects.filter(id=grant.id, uses_left=grant.uses_left, value_left=grant.value_left)


def _may_cover(grant: StandingGrant, run: Run, call: Call, chosen: Route) -> bool:
    if chosen.risk.level > Risk(grant.max_risk).level or not covers(matchers_of(grant), call.args):
        return False
    value = rules.number(rules.at(call.args, grant.value_argument)[1]) if grant.value_argument else Decimal(0)
    if value is None or not 0 <= value < LARGEST:
        return False
    if not still_may(grant.created_by_id, run.team_id, Right.DECIDE):
        return False
    team = Team.objects.get(id=run.team_id)
    giver = access_for_user(grant.created_by, team.slug)
    stand_in = Action(run=run, tool=call.tool, risk=chosen.risk, needed=chosen.needed)
    return not duties.bar(giver, run, stand_in, team) and grant_proof.is_as_given(grant)


def matchers_of(grant: StandingGrant) -> list[MatcherIn]:
    return [MatcherIn.model_validate(each) for each in grant.matchers]


def _released(grant: StandingGrant, chosen: Route) -> Route:
    reason = f"{grant.created_by.label} allowed calls like this one in advance, for {grant.uses_most} in all"
    return Route(outcome="release", reason=reason, risk=chosen.risk, needed=1, standing=str(grant.created_by_id))


def _passes(matcher: MatcherIn, args: JsonObject) -> bool:
    there, value = rules.at(args, matcher.argument)
    if not there:
        return matcher.optional
    return rules.covers(Comparison(matcher.test), matcher.value, value)


def _fits(each: Action, origin: Action, wish: Wish) -> bool:
    return Risk(each.risk).level <= Risk(origin.risk).level and covers(wish.matchers, each.args)


def _value(grant: StandingGrant, args: JsonObject) -> Decimal:
    """Rounded up to what the column holds, so that many small uses never come to more than was allowed."""
    if not grant.value_argument:
        return Decimal(0)
    value = rules.number(rules.at(args, grant.value_argument)[1]) or Decimal(0)
    return value.quantize(SMALLEST, ROUND_UP)


def _problems(action: Action, wish: Wish) -> dict[str, str]:
    problems: dict[str, str] = {}
    missing = sorted(set(action.args) - {matcher.argument for matcher in wish.matchers})
    if missing:
        problems["matchers"] = f"Say for each argument what it may be: {', '.join(missing)}."
    elif not covers(wish.matchers, action.args):
        problems["matchers"] = "This would not cover the action that you approved."
    if all(matcher.test == "any" for matcher in wish.matchers):
        problems["matchers"] = "Bind at least one argument: else anything would be covered."
    if not 1 <= wish.uses <= MOST_USES:
        problems["uses"] = f"From 1 to {MOST_USES:,}."
    if not 1 <= wish.days <= MOST_DAYS:
        problems["days"] = f"From 1 to {MOST_DAYS} days."
    if wish.value_argument:
        problems |= _value_problems(action, wish)
    elif wish.value is not None:  # a bound that somebody relies on, and nothing keeps
        problems["value_argument"] = "Say which argument adds up to this value."
    return problems


def _value_problems(action: Action, wish: Wish) -> dict[str, str]:
    own = rules.number(rules.at(action.args, wish.value_argument)[1])
    if own is None:
        return {"value_argument": "This argument is not a number."}
    if wish.value is None or not wish.value.is_finite() or not 0 < wish.value < LARGEST:
        return {"value": "Write the most that all uses together may come to."}
    return {}


def _receipt(grant: StandingGrant, kind: str, access: Access, **payload: object) -> None:
    facts: Mapping[str, object] = {"tool": grant.tool, "agent": str(grant.agent_id), **payload}
    receipts.append(
        grant.team_id,
        kind,
        actor=access.user,
        subject_type="grant",
        subject_id=grant.id,
        payload=dict(facts),  # type: ignore[arg-type]
    )
