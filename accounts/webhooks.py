"""Signed webhooks, as Standard Webhooks has them: who receives one can tell that it is ours, and how old it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from django.utils import timezone

MARK: Final = "whsec_"


def new_secret() -> str:
    return MARK + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """The headers: HMAC-SHA256 over `id.timestamp.body`, so that a replay shows by its time."""
    sent_at = str(int(timezone.now().timestamp()))
    key = base64.b64decode(secret.removeprefix(MARK))
    signed = hmac.new(key, f"{message_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
