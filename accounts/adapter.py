from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.http import HttpRequest

from accounts import secrets


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """People are added by an admin of a team; nobody signs up by themselves."""
        return False


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Seeds of authenticator apps are not stored in the clear."""

    def encrypt(self, text: str) -> str:
        return secrets.encrypt(text).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return secrets.decrypt(encrypted_text.encode())
