"""The form of Stanford Alpaca's data, with the keys that LLaMA-Factory's data/README adds: `system` and `history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from mig_spark.export.format import LineFormat, Message, SelectedRow, Unfit
from mig_spark.kernels.export.turns import turn_problems
from mig_spark.kernels.ingest.names import first_of


class Alpaca(LineFormat):
    """instruction, input, output; earlier turns under history, a system prompt under system."""

    kind: Literal["alpaca"] = "alpaca"

    holds: ClassVar[frozenset[str]] = frozenset({"system"})
    own: ClassVar[frozenset[str]] = frozenset({"instruction", "input", "output", "system", "history", "text"})

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        found = row.dialogue
        turns = list(found.messages)
        system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
        if [m["role"] for m in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
            raise Unfit("the turns are not questions and answers in pairs")
        texts = [m["content"] for m in turns]
        record = {"instruction": texts[-2], "input": "", "output": texts[-1]}
        if row.schema == "alpaca":
            record |= _as_it_came(row, texts[-2])
        if system:
            record["system"] = system
        if texts[:-2]:
            record["history"] = [texts[k : k + 2] for k in range(0, len(texts) - 2, 2)]
        return {**record, **found.notes()}

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:
        """See `LineFormat.problems`."""
        missing = [key for key in ("instruction", "output") if not isinstance(record.get(key), str)]
        if missing:
            return [f"`{missing[0]}` is no text"]
        odd = [key for key in ("input", "system") if not isinstance(record.get(key), str | None)]
        if odd:
            return [f"`{odd[0]}` is no text"]
        history = record.get("history") or []
        if not isinstance(history, list) or not all(map(_is_exchange, history)):
            return ["`history` is not a list of [question, answer]"]
        return list(turn_problems(self.dialogues(record)[0][0]))

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:
        """See `LineFormat.dialogues`."""
        turns = [{"role": "system", "content": record["system"]}] if record.get("system") else []
        asked = "\n".join(t for t in (record["instruction"], record.get("input") or "") if t.strip())
        for question, answer in [*(record.get("history") or ()), (asked, record["output"])]:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [(turns, None)]


def _is_exchange(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _as_it_came(row: SelectedRow, asked: str) -> dict[str, str]:
    """Instruction and input apart, as the record has them, where they are texts."""
    _, instruction = first_of(row.record, row.names.instruction)
    _, given = first_of(row.record, row.names.input)
    if isinstance(instruction, str) and isinstance(given, str) and given.strip():
        joined = "\n".join(t for t in (instruction, given) if t.strip())
        return {"instruction": instruction, "input": given} if joined == asked else {}
    return {}
