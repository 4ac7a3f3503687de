"""A reply of the Messages API, folded from the events of its stream. Pure Python: the SDK is in `runs/llm.py`."""

from __future__ import annotations

from typing import Any

from runs import strict_json
from runs.engine.ports import ModelError
from runs.engine.types import JsonObject, ModelReply, Usage

DETAIL_CHARACTERS = 500


class Reply:
    """Folds stream events into content blocks, kept as the plain JSON objects that came."""

    def __init__(self) -> None:
        self.stopped = False
        self.streamed_bytes = 0
        self._blocks: dict[int, JsonObject] = {}
        self._tool_inputs: dict[int, list[str]] = {}
        self._message: JsonObject = {}
        self._usage: JsonObject = {}
        self._stop_reason: str | None = None
        self._output_reported = False
        self._end_came = False

    @property
    def has_begun(self) -> bool:
        return bool(self._message)

    @property
    def is_counted(self) -> bool:
        """Whether the usage is that of the whole reply: the provider says so at its end."""
        ended = self._end_came or self._stop_reason is not None
        return self.has_begun and self._output_reported and ended

    @property
    def usage(self) -> Usage:
        return usage_of(self._usage)

    def add(self, event: JsonObject) -> str:
        """The text to show. Raises `ModelError` for an event of the wrong shape."""
        try:
            return self._add(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise bad_reply(f"the event {event.get('type')!r} of the stream has the wrong shape") from error

    def _add(self, event: JsonObject) -> str:
        match event.get("type"):
            case "message_start":
                self._message = dict(event["message"])
                self._count(self._message.get("usage"))
            case "content_block_start":
                block = dict(event["content_block"])
                self._blocks[event["index"]] = block
                return str(block.get("text") or "") if block.get("type") == "text" else ""
            case "content_block_delta":
                return self._extend(event["index"], event["delta"])
            case "content_block_stop":
                self._close_block(event["index"])
            case "message_delta":
                self._stop_reason = _optional_text(event["delta"].get("stop_reason"))
                self._count(event.get("usage"))
                self._output_reported = "output_tokens" in (event.get("usage") or {})
            case "message_stop":
                self._end_came = True
                if not self._message:
                    raise ValueError("the message has no start")
                if self._stop_reason is None:
                    raise bad_reply("the reply ended without saying why")
                self.stopped = True
        return ""

    def _extend(self, index: int, delta: JsonObject) -> str:
        block = self._blocks[index]
        self.streamed_bytes += sum(len(delta.get(name, "").encode()) for name in ("text", "partial_json", "thinking"))
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                return str(delta["text"])
            case "input_json_delta":
                self._tool_inputs.setdefault(index, []).append(delta["partial_json"])
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        return ""

    def _close_block(self, index: int) -> None:
        if written := "".join(self._tool_inputs.pop(index, ())):
            self._blocks[index]["input"] = tool_input(written)

    def _count(self, usage: object) -> None:
        """Later numbers replace earlier ones: the API's are cumulative."""
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})

    def finish(self, request_id: str) -> ModelReply:
        for index in list(self._tool_inputs):
            self._close_block(index)
        return ModelReply(
            content=tuple(self._blocks[index] for index in sorted(self._blocks)),
            stop_reason=self._stop_reason,
            usage=usage_of(self._usage),
            model=str(self._message.get("model") or ""),
            request_id=request_id,
        )


def tool_input(written: str) -> Any:
    """The JSON value, or the text itself when it is no strict JSON: whoever reads the call then refuses it.

    NaN and repeated keys are refused here, because a reader further on could not see them any more.
    """
    try:
        return strict_json.loads(written)
    except ValueError:
        return written


def usage_of(usage: JsonObject) -> Usage:
    created = usage.get("cache_creation")
    parts = created if isinstance(created, dict) else {}
    one_hour = tokens_of(parts.get("ephemeral_1h_input_tokens"))
    five_minutes = tokens_of(parts.get("ephemeral_5m_input_tokens"))
    # Servers that know one kind of cache write give the sum only; what it holds beyond the parts is of that kind.
    unsplit = max(0, tokens_of(usage.get("cache_creation_input_tokens")) - one_hour - five_minutes)
    return Usage(
        input_tokens=tokens_of(usage.get("input_tokens")),
        output_tokens=tokens_of(usage.get("output_tokens")),
        cache_read_tokens=tokens_of(usage.get("cache_read_input_tokens")),
        cache_write_5m_tokens=five_minutes + unsplit,
        cache_write_1h_tokens=one_hour,
        terms=_terms(usage),
    )


def _terms(usage: JsonObject) -> str:
    """What the provider says of the tier, the speed and the place of a call, as `Usage.terms`."""
    geo = str(usage.get("inference_geo") or "").lower()
    found = [
        "batch" if usage.get("service_tier") == "batch" else "",
        "fast" if usage.get("speed") == "fast" else "",
        f"geo={geo}" if geo.isalnum() and len(geo) <= 12 and geo != "global" else "",
    ]
    return ";".join(filter(None, found))


def tokens_of(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def bad_reply(detail: str) -> ModelError:
    return ModelError("bad_reply", detail[:DETAIL_CHARACTERS], retryable=True)
