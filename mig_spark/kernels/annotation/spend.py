"""What requests to endpoints cost, and what a task may still spend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Spent:
    """What this process has spent on endpoints so far.

    Attributes:
        requests: sent, retries included.
        retries: those that were sent again.
        prompt_tokens: tokens in, as the server counted them, else estimated.
        completion_tokens: tokens out, likewise.
        reused: answers that were there already, paid by an attempt or run that died.
        unparsable: answers that could not be read.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    unparsable: int = 0

    def copy(self) -> Spent:
        """A copy, to measure from."""
        return Spent(**vars(self))


SPENT = Spent()


@dataclass
class Budget:
    """What a task may still spend: requests, and tokens in and out; None: no limit."""

    requests: int | None = None
    tokens: int | None = None

    @property
    def capped(self) -> bool:
        """Whether there is a limit."""
        return self.requests is not None or self.tokens is not None

    def reserve(self, tokens: int) -> bool:
        """Reserve a request and its likely tokens; False where not so much is left."""
        if (self.requests is not None and self.requests < 1) or (self.tokens is not None and self.tokens < tokens):
            return False
        self.take(1, tokens)
        return True

    def take(self, requests: int, tokens: int) -> None:
        """Count what was spent, even where it is more than was left."""
        if self.requests is not None:
            self.requests -= requests
        self.give_back(-tokens)

    def give_back(self, tokens: int) -> None:
        """Give back reserved tokens that were not used; a negative number takes more."""
        if self.tokens is not None:
            self.tokens += tokens
