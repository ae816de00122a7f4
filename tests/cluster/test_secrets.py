"""A key of an endpoint, with a server that repeats it wherever it can: whole runs in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Job, plain_config, records, write_pool

from oracles.endpoint_server import Say, completion, endpoint

pytestmark = [pytest.mark.cluster, pytest.mark.long]

KEY = "sk-c4n4ry-of-a-whole-run"


def test_a_key_is_in_no_table_file_or_line_of_whole_runs(tmp_path: Path) -> None:
    closed = []

    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        if closed:
            return Say(401, f"who is {KEY}?".encode(), {"X-Key": KEY})
        if "ask 1\n" in text:
            return completion({"quality": 3, "complexity": KEY})
        return (
            Say(400, f"not with {KEY}".encode()) if "ask 2\n" in text else completion({"quality": 3, "complexity": 2})
        )

    with endpoint(reply) as server:
        judge = {"kind": "endpoint", "base_url": server.url, "model": "m", "max_wait": 0, "api_key_env": "MIG_KEY"}
        annotate = {"tagger": {"kind": "column"}, "scorer": judge, "allow_degenerate": True}
        config = plain_config(tmp_path, annotate=annotate)
        write_pool(tmp_path / "in", records(12))
        good = Job(tmp_path, config, env={"MIG_KEY": KEY})
        done = good.end()
        assert (done["code"], done["counts"]["annotate"]["waiting"]) == (0, 2), good.said()[-2000:]
        closed.append(True)
        # nothing has changed, but two rows wait for an answer
        bad = Job(tmp_path, config, env={"MIG_KEY": KEY})
        told = bad.end()
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert (told["code"], told["kind"]) == (2, "AnnotationError")
    assert "who is •••?" in told["error"]
    assert "who is •••?" in bad.said()
    wrong = Job(tmp_path, {**config, "annotate": {**annotate, "scorer": {**judge, "api_key_env": KEY}}})
    # the config that was written for it is the one file that has the key
    assert wrong.end()["kind"] == "ConfigError"
    wrong.log.with_suffix(".yaml").unlink()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 30
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    assert json.loads(bad.out.read_text().splitlines()[-1])["status"] == "failed"
