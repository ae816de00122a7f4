"""An exported folder on the Hub, by the Hub's own client against a server on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oracles.hub_server import hub_server

ROOT = Path(__file__).parents[2]
PUSH = """
import sys
from mig_spark.errors import MigError
from mig_spark.export.hub import push_folder, see_that_it_can_be_pushed
from mig_spark.export.write import format_named
folder, name, form, public = sys.argv[1:]
try:
    see_that_it_can_be_pushed(name, format_named(form), folder)
    print(push_folder(folder, name, public=public == "public"))
except MigError as e:
    print(type(e).__name__, e)
    sys.exit(e.exit_code)
"""


def push(address: str, folder: Path, name: str = "us/chosen", form: str = "huggingface", public: str = "no",
         **more: str) -> tuple[int, str]:  # fmt: skip
    """Exit code and what was printed, of a process of its own: the client reads its address at import."""
    ours = {
        "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_canary4711", "HOME": str(folder.parent),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    env = {**os.environ, **ours, **more}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PUSH, str(folder), name, form, public],
        capture_output=True, text=True, env=env, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here = tmp_path / "chosen"
    here.mkdir()
    (here / "README.md").write_text("---\nconfigs: []\n---\n\n# Selected\n")
    (here / "sft.jsonl").write_text('{"messages": "ü"}\n')
    return here


def test_the_folder_arrives_as_it_is_and_private(folder: Path) -> None:
    with hub_server() as hub:
        code, said = push(hub.address, folder)
        assert (code, said) == (0, f"{hub.address}/datasets/us/chosen")
        assert hub.made == {"us/chosen": True}
        assert hub.files["us/chosen"] == {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
        assert hub.tokens == {"Bearer hf_canary4711"}
        assert push(hub.address, folder, name="us/open", public="public")[0] == 0
        assert hub.made["us/open"] is False


@pytest.mark.parametrize(("status", "error"), [(403, "InputError"), (401, "InputError"), (400, "PlatformError")])
def test_a_hub_that_refuses_is_one_line(folder: Path, status: int, error: str) -> None:
    with hub_server(refuse=status) as hub:
        code, said = push(hub.address, folder)
    assert code == 2
    assert said.startswith(f"{error} --push-to-hub us/chosen: the Hub answered {status}")
    assert f"the files are in {folder}" in said
    assert "canary" not in said
    assert "\n" not in said


def test_a_hub_that_is_not_there_is_one_line(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, said = push(f"http://127.0.0.1:{port}", folder)
    assert code == 2
    assert said.startswith("PlatformError --push-to-hub us/chosen: the Hub cannot be reached")
    assert "HF_HUB_OFFLINE is set" in push(f"http://127.0.0.1:{port}", folder, HF_HUB_OFFLINE="1")[1]


@pytest.mark.parametrize(
    ("name", "form", "more", "words"),
    [
        ("us/a b", "huggingface", {}, "--push-to-hub us/a b: "),
        ("us/chosen", "alpaca", {}, "the Hub reads the format huggingface, not alpaca"),
        ("us/chosen", "huggingface", {"HF_TOKEN": ""}, "there is no token"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_asked(
    folder: Path, name: str, form: str, more: dict[str, str], words: str
) -> None:
    with hub_server() as hub:
        code, said = push(hub.address, folder, name, form, **more)
        assert code == 2
        assert said.startswith("InputError ")
        assert words in said
        assert hub.made == {}
