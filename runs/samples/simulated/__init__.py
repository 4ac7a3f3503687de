"""A Messages API on loopback: the model of an installation without a key, and the fake that tests and benchmarks drive.

Standard library only. `FakeMessagesServer(respond)` serves; `minds.respond` is the simulated model itself.
"""

from __future__ import annotations

from runs.samples.simulated.minds import respond
from runs.samples.simulated.reply import Reply, ToolCall
from runs.samples.simulated.script import Script
from runs.samples.simulated.server import Call, FakeMessagesServer

__all__ = ["Call", "FakeMessagesServer", "Reply", "Script", "ToolCall", "respond"]
