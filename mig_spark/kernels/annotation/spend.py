"""What requests to endpoints cost, and what a task may still spend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Spent:
    """What this process has spent so far. `reused`: answers that an earlier attempt had paid for."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    unparsable: int = 0

    def copy(self) -> Spent:
        """As it is now."""
        return Spent(**vars(self))


SPENT = Spent()


@dataclass
class Budget:
    """What a task may still spend; None: without limit."""

    requests: int | None = None
    tokens: int | None = None

    @property
    def capped(self) -> bool:
        """Whether there is a limit."""
        return self.requests is not None or self.tokens is not None

    def reserve(self, tokens: int) -> bool:
        """Set a request and its likely tokens aside, where both are left."""
        if (self.requests is not None and self.requests < 1) or (self.tokens is not None and self.tokens < tokens):
            return False
        self.take(1, tokens)
        return True

    def take(self, requests: int, tokens: int) -> None:
        """Count what was spent, also where it is more than was left."""
        if self.requests is not None:
            self.requests -= requests
        self.give_back(-tokens)

    def give_back(self, tokens: int) -> None:
        """Correct what was set aside by what was used."""
        if self.tokens is not None:
            self.tokens += tokens
