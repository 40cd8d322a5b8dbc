"""A key or a signature does not hold, or the caller of a page may not."""

from __future__ import annotations

from fedtasks.errors.base import CryptoError, PageError


class KeyWeak(CryptoError):
    """Raised when a key is too short or of a form that leaks."""

    code = "KEY_WEAK"
    summary = "The key is too weak"
    remedy = "Make a new key with `fedtasks psi keygen`"


class KeyInvalid(CryptoError):
    """Raised when a key cannot be read or its proof does not hold."""

    code = "KEY_INVALID"
    who = "both"
    summary = "The key or its proof is invalid"
    remedy = "Make a new key with `fedtasks psi keygen`"


class SignatureWrong(CryptoError):
    """Raised when a signature does not verify."""

    code = "SIGNATURE_WRONG"
    who = "both"
    summary = "A signature does not verify"
    remedy = "Do not go on with this peer before the cause is known"


class NotSignedIn(PageError):
    """Raised when a page's caller has not signed in to Airflow."""

    code = "NOT_SIGNED_IN"
    summary = "Nobody is signed in"
    remedy = "Sign in to Airflow again, then reload the page"


class NotAllowed(PageError):
    """Raised when Airflow does not give the caller the right."""

    code = "NOT_ALLOWED"
    summary = "Airflow does not give the caller the right"
    remedy = "Ask whoever administers Airflow for the right"


class RequestInvalid(PageError):
    """Raised when a request to a page's API is not one that it understands."""

    code = "REQUEST_INVALID"
    summary = "The page's request is not understood"
    remedy = "Reload the page; if that does not help, compare the versions of page and server"
