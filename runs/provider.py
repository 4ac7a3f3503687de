"""Which model provider this installation uses. Worker code: imports the SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from runs import slots
from runs.engine.ports import ModelError
from runs.engine.types import ModelReply, ModelRequest
from runs.llm import AnthropicLlm, build_llm


class Provider:
    """The provider of the settings, looked up for each call: the simulated model may have been started again."""

    def complete(
        self, request: ModelRequest, *, on_text: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> ModelReply:
        with slots.released():
            return _client().complete(request, on_text=on_text, interrupted=interrupted)

    def count_tokens(self, request: ModelRequest) -> int | None:
        try:
            with slots.released():
                return _client().count_tokens(request)
        except ModelError:
            return None


def _client() -> AnthropicLlm:
    if not settings.SIMULATED:
        return build_llm(settings.ANTHROPIC_BASE_URL, settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_FEATURES)
    return build_llm(f"http://127.0.0.1:{_simulated_port()}", "simulated")


def _simulated_port() -> int:
    """`up` starts the simulated model and writes its port down."""
    try:
        return int(Path(settings.SIMULATED_MODEL_PORT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise ModelError("simulated_model_away", "the simulated model is not running", retryable=True) from error
