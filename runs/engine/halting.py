"""The two ways in which the work on a run halts: it ends, or it parks."""

from __future__ import annotations

from runs.engine.types import Parked, RunStatus, StopReason


class Stop(Exception):
    """The run ends here, for `reason`. `limit` names the run's own limit that was reached, if it was one."""

    def __init__(self, reason: StopReason, detail: str, limit: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.limit = limit

    @property
    def status(self) -> RunStatus:
        if self.reason is StopReason.CANCELLED:
            return RunStatus.CANCELLED
        failures = (StopReason.MODEL_ERROR, StopReason.TOOL_ERROR, StopReason.INTERNAL_ERROR)
        return RunStatus.FAILED if self.reason in failures else RunStatus.STOPPED


class Park(Exception):
    """Nothing more can be done now."""

    def __init__(self, parked: Parked) -> None:
        super().__init__(parked.why)
        self.parked = parked
