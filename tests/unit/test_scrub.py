"""A key in the wrong place is refused without being shown, and no text on its way out has a secret in it."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mig_spark.annotation.annotators import make_tagger
from mig_spark.annotation.secrets import look_up_secrets
from mig_spark.annotation.taggers.endpoint import EndpointTagger
from mig_spark.cli import main
from mig_spark.cli.base import print_trace
from mig_spark.config import build_config
from mig_spark.errors import AnnotationError, ConfigError, MigError, PlatformError
from mig_spark.kernels.annotation.http_post import shown
from mig_spark.masking import MASK
from mig_spark.scrub import Scrubbed, holds_secret, is_variable_name, looks_like_key, remember_secret, scrub

CANARY = "c4n4ry"
#: keys as they are given out: with signs that no variable has, with letters and digits alone, in hex
KEYS = [
    f"sk-{CANARY}-0123456789abcdef", f"hf_{CANARY}AbCdEfGhIj4567", f"{CANARY}0f3e9a8b7c6d5e4f3a2b1c0d9e8f7a6b",
    f"Bearer sk-{CANARY}-1", f"two\nlines-{CANARY}", f"{CANARY}é", f"9{CANARY}",
]  # fmt: skip


def plain(**tagger: Any) -> dict[str, Any]:
    tagger = {"kind": "endpoint", "base_url": "http://h/v1", "model": "m", **tagger}
    return {"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {"tagger": tagger}}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_place_of_its_variables_name_is_not_shown(key: str) -> None:
    with pytest.raises(
        ConfigError, match=r"annotate\.tagger\.api_key_env: this is not the name of an environment"
    ) as e:
        build_config(plain(api_key_env=key))
    assert CANARY not in str(e.value)
    with pytest.raises(ValidationError) as raw:
        EndpointTagger(base_url="http://h/v1", model="m", api_key_env=key)
    assert CANARY not in str(raw.value)


@pytest.mark.parametrize("name", ["LLM_KEY", "OPENAI_API_KEY_2", "key", "_x", "AzureOpenAiKeyForTeam2", "A" * 40])
def test_names_that_variables_have(name: str) -> None:
    assert is_variable_name(name)
    assert build_config(plain(api_key_env=name)).to_dict()["annotate"]["tagger"]["api_key_env"] == name


def test_what_looks_like_a_key() -> None:
    assert [looks_like_key(text) for text in ("kv-8f14e45f-ceea-467f", "openai-prod-2026", "1234567890123456")] == [
        False
    ] * 3


@pytest.mark.parametrize("options", [
    {"api_key_secret": {"scope": "mig", "key": KEYS[1]}}, {"api_key_secret": {"scope": KEYS[2], "key": "k"}},
    {"api_key_secret": KEYS[0]}, {"auth_header": f"Authorization: Bearer {CANARY}"}, {"auth_header": KEYS[2]},
    {"api_key_env": [KEYS[0]]}, {"body": CANARY}, {"model": "\ud800"}, {"body": {"seed": float("nan")}},
])  # fmt: skip
def test_other_wrong_places(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as e:
        build_config(plain(**options))
    assert CANARY not in str(e.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"http://me:{CANARY}@h/v1", "carries a name or password"),
        (f"http://{CANARY}@h/v1", "carries a name or password"),
        (f"http://h/v1?api-version=1&key={CANARY}", "a secret in the parameter key"),
        (f"http://h/v1?X-Amz-Signature={CANARY}", "a secret in the parameter X-Amz-Signature"),
        (f"http://h/v1?access_token={CANARY}", "a secret in the parameter access_token"),
        (f"http://h/v1#{CANARY}", "after #"),
        (f"http://h:99999/{CANARY}", "a number from 1 to 65535"),
        (f"http://h:x/{CANARY}", "a number from 1 to 65535"),
        (f"http://h:0/{CANARY}", "its port is 0"),
        (f"http://[::1/{CANARY}", "host or port"),
        (f"http://hôte/{CANARY}", "beyond ASCII"),
        (f"http://h/v1 {CANARY}", "a space"),
        (f"http://h/v1\n{CANARY}", "a line break"),
        (f"ftp://h/{CANARY}", "not an http or https address"),
        (f"http:///{CANARY}", "not an http or https address"),
    ],
)  # fmt: skip
def test_addresses_that_no_request_goes_to(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"annotate\.tagger\.base_url: .*{why}") as e:
        build_config(plain(base_url=url))
    assert CANARY not in str(e.value)


@pytest.mark.parametrize("url", ["https://h/v1?api-version=2024-02-01", "http://[::1]:8000/v1/", "http://a_b:65535"])
def test_addresses_that_requests_go_to(url: str) -> None:
    assert build_config(plain(base_url=url)).to_dict()["annotate"]["tagger"]["base_url"] == url


@pytest.mark.parametrize(
    "args",
    [
        ["--set", f"annotate.tagger.api_key_env={KEYS[0]}"],
        ["--set", f"annotate.tagger.base_url=http://me:{CANARY}@h/v1"],
        ["--set", f"annotate.tagger.api_key=[{CANARY}"],
        ["--set", f"annotate.tagger.model.token={CANARY}"],
        ["--set", f"spark.conf.fs.secret.key.x={CANARY}"],
        ["--set", f"lock.token={CANARY}"],
    ],
)  # fmt: skip
def test_the_command_line_ends_in_one_line_without_it(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(plain()))
    with pytest.raises(SystemExit) as end:
        main(["run", str(file), "--json", *args])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert json.loads(said.out.splitlines()[-1])["kind"] == "ConfigError"
    assert CANARY not in said.out + said.err
    assert len(said.err.splitlines()) == 1


def test_a_config_that_is_no_yaml_is_not_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"annotate:\n  api_key: {CANARY} : [\n")
    with pytest.raises(SystemExit):
        main(["run", str(file)])
    said = capsys.readouterr().err
    assert "cannot be read as YAML" in said
    assert "line 2" in said
    assert CANARY not in said


def test_errors_logs_and_traces_say_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    key = f'sk-{CANARY}/of "errors"'
    remember_secret(key)
    texts = [key, json.dumps(key), "sk-c4n4ry%2Fof%20%22errors%22", f"http://me:{CANARY}@h/v1"]
    for text in texts:
        error = AnnotationError(f"it said {text}!")
        assert CANARY not in "".join([str(error), repr(error), shown(text), str(pickle.loads(pickle.dumps(error)))])
        assert MASK in str(error)
        record = logging.LogRecord("x", logging.INFO, "f", 1, "said %s", (text,), (ValueError, ValueError(text), None))
        assert CANARY not in Scrubbed("%(message)s").format(record)
        print_trace(ValueError, ValueError(text), None)
    said = capsys.readouterr().err
    assert said.count("ValueError") == len(texts)
    assert CANARY not in said
    assert holds_secret(f"a {key} b")


def test_short_stand_ins_for_a_key_are_words() -> None:
    remember_secret("EMPTY")
    remember_secret("")
    remember_secret(None)
    assert scrub("the answer is EMPTY") == "the answer is EMPTY"


def test_secrets_of_settings_are_cut_out_and_names_of_classes_are_not() -> None:
    conf = {"spark.hadoop.fs.s3a.secret.key": f"{CANARY}-of-s3a",
            "spark.hadoop.fs.s3a.aws.credentials.provider": "org.apache.SomeProvider"}  # fmt: skip
    build_config({**plain(), "spark": {"conf": conf}})
    assert str(MigError(f"org.apache.SomeProvider: {CANARY}-of-s3a")) == f"org.apache.SomeProvider: {MASK}"


def test_a_key_of_the_environment_that_cannot_be_sent_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", f"sk-{CANARY}\nsk-other")
    tagger = make_tagger(EndpointTagger(base_url="http://h/v1", model="m", api_key_env="MY_KEY"), None)  # type: ignore[arg-type]
    assert tagger.step is not None
    with pytest.raises(PlatformError, match="the variable MY_KEY holds no key that a request can carry") as e:
        look_up_secrets([tagger.step], None)  # type: ignore[arg-type]
    assert CANARY not in str(e.value)
