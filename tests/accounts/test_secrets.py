from __future__ import annotations

import pytest
from pytest_django import Settings

from accounts.secrets import UnreadableSecret, decrypt, encrypt

TEXT = '{"headers": {"Authorization": "Bearer größer"}}'


def test_what_is_encrypted_can_be_read_again_and_not_be_seen() -> None:
    data = encrypt(TEXT)
    assert b"Bearer" not in data
    assert data != encrypt(TEXT)
    assert decrypt(data) == TEXT
    assert decrypt(memoryview(data)) == TEXT


def test_changed_data_is_refused() -> None:
    data = bytearray(encrypt(TEXT))
    data[40] ^= 1
    with pytest.raises(UnreadableSecret):
        decrypt(bytes(data))


def test_another_key_cannot_read_it_unless_it_is_kept_as_a_fallback(settings: Settings) -> None:
    settings.SECRET_KEY = "the first key"
    data = encrypt(TEXT)
    settings.SECRET_KEY = "the second key"
    with pytest.raises(UnreadableSecret, match="SECRET_KEY"):
        decrypt(data)
    settings.SECRET_KEY_FALLBACKS = ["the first key"]
    assert decrypt(data) == TEXT
