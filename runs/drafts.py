"""Drafts of agents: an admin changes one field at a time, sees what it would do, and publishes it as a new version.

A published version is never changed, and a run keeps the one it began with: publishing releases nothing that waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.access import Access, Right, get, rows
from accounts.models import Team
from runs import agents, settings_form
from runs.errors import Conflict, Invalid
from runs.models import Agent, AgentDraft, AgentVersion
from runs.schemas import AgentIn


def of(access: Access, agent: Agent) -> AgentDraft | None:
    return rows(access, AgentDraft).filter(agent=agent).select_related("base", "updated_by").first()


def change(access: Access, slug: str, typed: Mapping[str, str]) -> AgentDraft | None:
    """The draft with these fields, or None when it says what the live version says. Raises `Invalid` by field."""
    with transaction.atomic():
        agent, live = _hold(access, slug)
        draft = AgentDraft.objects.filter(agent=agent).first()
        known = AgentIn.model_validate(draft.definition if draft else live.definition)
        wanted = settings_form.apply(known, typed)
        try:
            agents.check_references(access, slug, wanted)
        except Invalid as invalid:
            raise Invalid(settings_form.at_fields(invalid.errors, wanted)) from invalid
        if draft is None and _dump(wanted) == _dump(AgentIn.model_validate(live.definition)):
            return None
        return _store(access, agent, draft.base if draft else live, wanted, draft)


def discard(access: Access, slug: str) -> bool:
    with transaction.atomic():
        agent, _ = _hold(access, slug)
        gone, _ = AgentDraft.objects.filter(agent=agent).delete()
    return gone > 0


def publish(access: Access, slug: str, revision: int) -> agents.Saved:
    """`revision` is the draft's as it was shown. Raises `Conflict` when the draft or the live version moved since: the
    draft then stands on the new live version, to be looked at again."""
    moved = ""
    with transaction.atomic():
        agent, live = _hold(access, slug)
        draft = AgentDraft.objects.select_related("base").filter(agent=agent).first()
        if draft is None:
            raise Conflict("There is no draft any more: it was published or discarded.", status=f"v{live.number}")
        if draft.revision != revision:
            raise Conflict("The draft has changed since this page was shown. Look at it again.", status="draft")
        wanted = AgentIn.model_validate(draft.definition)
        if draft.base_id != live.id:
            merged = _merged(*map(_as_read, (draft.base.definition, draft.definition, live.definition)))
            _store(access, agent, live, AgentIn.model_validate(merged), draft)
            who = live.created_by.label if live.created_by else "A program"
            moved = f"{who} published v{live.number} meanwhile. Your changes now stand on it; look at them again."
        else:
            agents.check_references(access, slug, wanted)
            saved = agents.save_agent(access.team, slug, wanted, by=access.user)
            draft.delete()
    if moved:
        raise Conflict(moved, status=f"v{live.number}")
    return saved


def _hold(access: Access, slug: str) -> tuple[Agent, AgentVersion]:
    """The agent and its live version. The team's row makes drafts, publishing and the API's PUT take turns."""
    get(access, Agent, slug=slug, right=Right.MANAGE)
    Team.objects.select_for_update().get(id=access.team.id)
    agent = get(access, Agent.objects.select_related("current__created_by"), slug=slug)
    if agent.current is None:
        raise Invalid({"name": "This agent was never saved."})
    return agent, agent.current


def _store(access: Access, agent: Agent, base: AgentVersion, wanted: AgentIn, draft: AgentDraft | None) -> AgentDraft:
    fields: dict[str, Any] = {
        "base": base,
        "definition": _dump(wanted),
        "updated_by": access.user,
        "updated_at": timezone.now(),
    }
    if draft is None:
        return AgentDraft.objects.create(agent=agent, **fields)
    for name, value in {**fields, "revision": draft.revision + 1}.items():
        setattr(draft, name, value)
    draft.save()
    return draft


def _as_read(stored: dict[str, Any]) -> dict[str, Any]:
    return _dump(AgentIn.model_validate(stored))


def _dump(definition: AgentIn) -> dict[str, Any]:
    return definition.model_dump(mode="json")


def _merged(base: dict[str, Any], draft: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """The live definition with what the draft changed of its base; tools one by one, limits too."""
    merged = {name: live.get(name) if draft[name] == base.get(name) else draft[name] for name in draft}
    merged["limits"] = {
        name: (live["limits"] if value == base["limits"].get(name) else draft["limits"]).get(name)
        for name, value in draft["limits"].items()
    }
    old, new, now = ({tool["name"]: tool for tool in each["tools"]} for each in (base, draft, live))
    chosen = {name: now.get(name) if new.get(name) == old.get(name) else new.get(name) for name in [*now, *new]}
    merged["tools"] = [tool for tool in chosen.values() if tool is not None]
    return merged
