"""What taggers and scorers that run a language model through transformers have in common."""

from __future__ import annotations

import string
from typing import Any, ClassVar, Literal

from pydantic import Field

from mig_spark.config.base import Section
from mig_spark.kernels.annotation.annotators import CostKind
from mig_spark.kernels.annotation.model_files import model_identity


class LanguageModelConfig(Section):
    """How a model is run through transformers in the executors."""

    cost: ClassVar[CostKind] = "slow"
    runs_model: ClassVar[bool] = True

    revision: str | None = Field(
        None, description="branch, tag or commit of a model on the hub; null: the hub's default. Part of the version"
    )
    device: str = Field(
        "auto", description="where the model runs: cpu, cuda, cuda:1, ...; auto: the first GPU, else the CPU"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of the weights; auto: float32 on a CPU, as they are stored elsewhere"
    )
    batch_tokens: int = Field(8192, ge=1, description="tokens in one batch of the model, padding included")
    max_tokens: int = Field(
        2048, ge=16, description="tokens of a prompt; of a longer one the middle is left out and the row is flagged"
    )

    def identity(self, model: str) -> str:
        """What tells a model from any other, its revision included.

        Raises:
            DependencyError: it is a path, and nothing is there.
        """
        identity = model_identity(model)
        return f"{identity}@{self.revision}" if self.revision and "@" not in identity else identity

    def loading(self, threads: int) -> dict[str, Any]:
        """Arguments of `causal_lm.load_lm` beside the model's name."""
        return {"revision": self.revision, "device": self.device, "dtype": self.dtype, "threads": threads}


def check_prompt(name: str, prompt: str | None, *places: str) -> None:
    """See that a prompt has the places that are filled, and no others.

    Raises:
        ValueError: it has not.
    """
    if prompt is None:
        return
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None}
    except ValueError as e:
        raise ValueError(f"{name} has a brace that stands alone ({e}); write {{{{ and }}}} for braces") from None
    if found != set(places):
        wanted = " and ".join(f"{{{place}}}" for place in places)
        raise ValueError(f"{name} must have {wanted} and nothing else in braces; write {{{{ and }}}} for braces")
