"""What can go wrong for a client: each with a stable ``code``, a sentence, and what to do about it."""

from __future__ import annotations


class ClientError(Exception):
    """The root: ``code`` is stable, ``hint`` says what to do, ``retry_after_s`` when it is worth trying again."""

    def __init__(
        self, code: str, message: str, *, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.retry_after_s = retry_after_s


class LoginEnded(ClientError):
    """Not logged in, or no longer (close code 4401): log in again and start another client."""

    def __init__(self) -> None:
        super().__init__("login_ended", "The login does not hold any more.", hint="Log in again.")


class RoleLost(ClientError):
    """The person's role is not what it was (close code 4403): log in again and start another client."""

    def __init__(self) -> None:
        super().__init__("role_lost", "This login's role was taken away.", hint="Log in again.")


class Closed(ClientError):
    """The client was left while somebody still waited for it."""

    def __init__(self) -> None:
        super().__init__("closed", "The client has been closed.", hint="Wait inside its async with block.")


class Refused(ClientError):
    """The server said no to one request: ``code`` is the protocol's, such as forbidden or unknown_topic."""


class Unreachable(ClientError):
    """The server did not answer, or with a fault of its own, or something else did."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        hint = "Check the address and the network, then try again."
        super().__init__("unreachable", message, hint=hint, retry_after_s=retry_after_s)
