"""Encryption of what must be stored but not read by whoever finds a copy of the database."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes

PURPOSE = b"accounts.secrets.1"


class UnreadableSecret(Exception):
    """It was encrypted under another SECRET_KEY, or changed since."""


def encrypt(text: str) -> bytes:
    return _fernet().encrypt(text.encode())


def decrypt(data: bytes | memoryview) -> str:
    """Accepts what a BinaryField gives on either database. Raises UnreadableSecret."""
    try:
        return _fernet().decrypt(bytes(data)).decode()
    except InvalidToken as error:
        raise UnreadableSecret("Enter this secret again: it can't be read with the present SECRET_KEY.") from error


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(_key(secret)) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def _key(secret: str | bytes) -> bytes:
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=PURPOSE).derive(force_bytes(secret))
    return base64.urlsafe_b64encode(derived)
