"""Builds what the engine is given for one run. Worker code: this is where the SDK and the tools come in."""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings
from django.utils import timezone

from runs import filtering, provider, toolbox
from runs.breakers import DbBreakers
from runs.children import DbChildren, slugs_above, subagents_of
from runs.engine.loop import Ports
from runs.engine.outputs import READER
from runs.engine.types import Limits, Mode, Policy, RunSpec, ToolGrant
from runs.leases import Lease
from runs.models import Run
from runs.schemas import AgentIn
from runs.store import DbBudget, DbControls, DbJournal, SystemClock
from runs.tools.answers import misfit
from runs.tools.mcp import McpTool
from runs.tools.outputs import ReadOutput
from runs.verdicts import DbVerdicts

# Whoever uses a server's tools may read on in their outputs: they are this run's own.
READ_ON = ToolGrant(name=READER, policy=Policy.AUTO)


def run_spec(run: Run) -> RunSpec:
    definition = AgentIn.model_validate(run.agent_version.definition)
    if run.model:
        definition = definition.model_copy(update={"model": run.model})
    agent = definition.to_engine(
        slug=run.agent.slug, version=run.agent_version.number, default_model=settings.AGENTSITE_MODEL
    )
    return RunSpec(
        id=str(run.id),
        agent=replace(agent, tools=(*agent.tools, READ_ON), filters=filtering.filters_of(run.team, definition)),
        task=filtering.task_of(run),
        mode=Mode(run.mode),
        limits=Limits(
            max_steps=run.max_steps,
            max_input_tokens=run.max_input_tokens,
            max_output_tokens=run.max_output_tokens,
            max_cost_usd=run.max_cost_usd,
            max_seconds=run.max_seconds,
        ),
        policy_version=f"{run.agent.slug}@{run.agent_version.number}",
        started_at=run.started_at or timezone.now(),
        waited_ms=run.wait_ms,
        forked=run.forked_seq > 0,
        subagents=subagents_of(run, definition.subagents),
        ancestors=slugs_above(run),
        # What was reserved for a call is given back with the step that records it, or with the lease.
        call_cut_off=run.reserved_output_tokens > 0,
    )


def build_ports(run: Run, lease: Lease) -> Ports:
    journal = DbJournal(run, lease)
    controls = DbControls(run, lease)
    tools = toolbox.tools_for(run)
    for tool in tools.values():
        if isinstance(tool, McpTool):
            tool.heed(controls.cancelled)
    if any(tool.spec.server for tool in tools.values()):
        tools[READER] = ReadOutput(journal)
    return Ports(
        journal=journal,
        llm=provider.Provider(),
        budget=DbBudget(run, lease, journal),
        verdicts=DbVerdicts(run, lease),
        controls=controls,
        clock=SystemClock(),
        tools=tools,
        children=DbChildren(run, lease),
        breakers=DbBreakers(run.team_id),
        misfit=misfit(AgentIn.model_validate(run.agent_version.definition).output_schema),
    )
