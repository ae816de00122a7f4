"""Counting tokens: against the tokenizers' own encodings, with chat templates and without, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_embedder, save_tokenizer
from tokenizers import Tokenizer as Plain

from mig_spark.annotation.tokens import find_tokenizer
from mig_spark.config import build_config
from mig_spark.contracts import MESSAGES_TYPE
from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.annotation import tokens
from mig_spark.kernels.annotation.tokens import Tokenizer, count_tokens

LEAST = {"pool": {"path": "pool.jsonl"}, "output": {"path": "out"}}
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
#: Refuses what most templates refuse: roles that do not take turns, and a system prompt after the start.
STRICT = (
    "{{ bos_token }}{% set rest = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must take turns') }}{% endif %}"
    "<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>{% endfor %}"
)
ROWS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool", "function_call"]), st.text(max_size=30)),
        max_size=5,
    ),
    max_size=6,
)


def named(path: Path | str) -> Tokenizer:
    found = find_tokenizer(None, build_config({**LEAST, "annotate": {"tokenizer": str(path)}}))
    assert found is not None
    return found


def column(rows: list[list[tuple[str, str | None]]]) -> pa.Array:
    assert MESSAGES_TYPE == "array<struct<role:string,content:string>>"
    return pa.array([[{"role": role, "content": text} for role, text in row] for row in rows], MESSAGES)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "plain"
    save_tokenizer(folder, bos=True)
    # as the files of embedding models come: texts are cut and padded
    cut = Plain.from_file(str(folder / "tokenizer.json"))
    cut.enable_truncation(4)
    cut.enable_padding(length=4, pad_id=2, pad_token="<pad>")
    cut.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "chat"
    save_tokenizer(folder, bos=True, template=True)
    return folder


@given(rows=ROWS)
def test_without_a_template_contents_are_counted_turn_by_turn(plain_folder, rows):
    own = Plain.from_file(str(plain_folder / "tokenizer.json"))
    own.no_truncation()
    own.no_padding()
    want = [sum(len(own.encode(text, add_special_tokens=False).ids) for _, text in row) for row in rows]
    assert count_tokens(column(rows), named(plain_folder)).to_pylist() == want
    # a file alone is the same tokenizer, and a slice of a batch has its own rows
    assert count_tokens(column(rows)[1:], named(plain_folder / "tokenizer.json")).to_pylist() == want[1:]


@given(rows=ROWS)
def test_with_a_template_the_rendered_dialogue_is_counted(chat_folder, rows):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(chat_folder)
    want = []
    for row in rows:
        chat: list[dict[str, str]] = []
        for k, (role, text) in enumerate(row):
            if role != "function_call":
                chat.append({"role": role, "content": text})
            elif k and row[k - 1][0] in ("assistant", "function_call"):
                chat[-1]["content"] += "\n" + text
            else:
                chat.append({"role": "assistant", "content": text})
        want.append(len(own.apply_chat_template(chat, tokenize=True, return_dict=False)) if chat else None)
    assert count_tokens(column(rows), named(chat_folder)).to_pylist() == want


def test_rows_that_a_template_refuses_have_no_count(chat_folder, tmp_path):
    text = (chat_folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text)
    told = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "chat_template": [{"name": "default", "template": STRICT}],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    strict = named(tmp_path)
    rows = [
        [("user", "How does bread rise?"), ("assistant", "Yeast.")],
        [("system", "Be brief."), ("user", "How does bread rise?"), ("assistant", "Yeast.")],
        [("user", "a"), ("user", "b")],
        [],
        [("user", None), ("assistant", "x")],
    ]
    first, second, third, none, empty = count_tokens(column(rows), strict).to_pylist()
    assert first == second > 4
    assert (third, none) == (None, None)
    assert 0 < empty < first
    # what a file of its own says of the template comes first
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %B') }}")
    dated = len(Plain.from_str(text).encode("26 Jul 2024", add_special_tokens=False).ids)
    assert count_tokens(column(rows), named(tmp_path)).to_pylist() == [dated, dated, dated, None, dated]


def test_long_batches_are_tokenized_in_parts(plain_folder, monkeypatch):
    rows = [[("user", "bread " * k), ("assistant", "rises")] for k in range(20)]
    whole = count_tokens(column(rows), named(plain_folder))
    monkeypatch.setattr(tokens, "_CHARS", 7)
    assert count_tokens(column(rows), named(plain_folder)) == whole


def test_a_version_goes_by_all_that_changes_a_count(plain_folder, chat_folder, tmp_path):
    plain, chat = named(plain_folder), named(chat_folder)
    assert plain.version == named(plain_folder).version
    assert plain.version.startswith("plain@")
    versions = {plain.version, chat.version, named(chat_folder / "tokenizer.json").version}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((chat_folder / name).read_text())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    versions.add(named(tmp_path).version)
    assert len(versions) == 4
    assert pickle.loads(pickle.dumps(chat)).version == chat.version


def test_the_default_is_the_embedding_models_and_only_where_it_is_needed(tmp_path):
    model = save_embedder(tmp_path)
    tagger = {"kind": "embedding", "model": model}
    cost = {"budget": None, "cost": {"column": "tokens", "budget": 100}}
    assert find_tokenizer(None, build_config({**LEAST, "annotate": {"tagger": tagger}})) is None
    own = {"tagger": tagger, "tokenizer": None}
    assert find_tokenizer(None, build_config({**LEAST, "annotate": own, "select": cost})) is None
    found = find_tokenizer(None, build_config({**LEAST, "annotate": {"tagger": tagger}, "select": cost}))
    assert found is not None
    assert (found.name, found.template) == ("model", None)
    assert count_tokens(column([[("user", "How does bread rise?")]]), found).to_pylist() == [4]
    # without an embedding tagger: the model that the label graph embeds labels with
    by_graph = {
        **LEAST,
        "annotate": {"tagger": {"kind": "column"}},
        "graph": {"embedding_model": model},
        "select": cost,
    }
    assert find_tokenizer(None, build_config(by_graph)) == found


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, r"annotate\.tokenizer = .*x: cannot read .*x/tokenizer\.json.*give a tokenizer\.json"),
        ({"tokenizer.json": "{}"}, r"x is not a tokenizer: tokenizers cannot read its tokenizer\.json"),
        ({"tokenizer.json": None, "tokenizer_config.json": "{"}, r"tokenizer_config\.json is not JSON"),
        ({"tokenizer.json": None, "chat_template.jinja": "{% for %}"}, r"template of x cannot render .*TemplateSyntax"),
        ({"tokenizer.json": None, "chat_template.jinja": "{{ a.b.c }}"}, r"template of x cannot render .*Undefined"),
    ],
)
def test_what_is_no_tokenizer_is_told_in_a_line(chat_folder, tmp_path, files, told):
    folder = tmp_path / "x"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text((chat_folder / name).read_text() if content is None else content)
    with pytest.raises(InputError, match=told) as e:
        named(folder)
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match=r"annotate\.tokenizer = .*nothing\.json: cannot read"):
        named(tmp_path / "nothing.json")


def test_without_the_library_a_named_tokenizer_is_an_error_and_the_default_says_what_to_do(chat_folder, monkeypatch):
    find = tokens.importlib.util.find_spec
    monkeypatch.setattr(tokens.importlib.util, "find_spec", lambda name: None if name == "tokenizers" else find(name))
    assert find_tokenizer(None, build_config(LEAST)) is None
    with pytest.raises(DependencyError, match=r"tokenizers cannot be imported.*mig-spark\[embed\]"):
        named(chat_folder)
    gone = {**LEAST, "annotate": {"tagger": {"kind": "embedding", "model": "/no/such/model"}}}
    with pytest.raises(DependencyError, match=r"'tokens' is asked for|`tokens` is asked for.*set it to null"):
        find_tokenizer(
            None, build_config({**gone, "select": {"budget": None, "cost": {"column": "tokens", "budget": 9}}})
        )
