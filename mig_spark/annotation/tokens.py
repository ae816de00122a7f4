"""Tokens of the pool's rows, for the columns `tokens` and `tokenizer` of ANNOTATED: which tokenizer counts, and only
rows whose text it has not counted yet."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.plan import Plan, usable_rows
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL
from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.annotation.model_files import BUNDLED_NAMES, model_folder
from mig_spark.kernels.annotation.tokens import HINT, Tokenizer
from mig_spark.lakehouse.files import read_bytes
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import count_row_tokens

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

_FILE = "tokenizer.json"
#: Rows of the pool in which a column `tokens` of the records' own is looked for.
_LOOKED_AT = 1000
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def find_tokenizer(spark: SparkSession | None, config: Config) -> Tokenizer | None:
    """The tokenizer that counts the rows of a run, read and tried; None where none does (`Config.counts_tokens`).

    Args:
        spark: the session whose file systems and credentials count.
        config: `annotate.tokenizer` names it; by default it is that of the embedding model: the tagger's, else the
            label graph's.

    Raises:
        InputError: there is no tokenizer at that place, or it cannot be read.
        DependencyError: a library is not installed, or the embedding model's tokenizer is not here.
    """
    if not config.counts_tokens():
        return None
    named = str(config.annotate.tokenizer)
    found = _of_embedding_model(spark, config) if named == "auto" else read_tokenizer(spark, named)
    found.check()
    return found


def warn_of_own_tokens(store: Store, config: Config) -> None:
    """Say so where `tokens` is asked for by a config that names no tokenizer, and the pool's records bring one."""
    if not config.counts_tokens() or config.annotate.tokenizer != "auto":
        return
    first = store.read(POOL).limit(_LOOKED_AT)
    if not first.where("get_json_object(raw, '$.tokens') is not null").isEmpty():
        logger.warning(
            "the records bring `tokens` of their own, and tokens are counted by the embedding model's tokenizer: set "
            "annotate.tokenizer to null to take the records', or to a tokenizer to count by that one"
        )


def count_pool(store: Store, plan: Plan, tokenizer: Tokenizer) -> DataFrame:
    """Tokens of the text of every row that can be annotated: those that ANNOTATED has by the same version of the
    tokenizer, and the others counted now.

    Returns:
        text_hash, and tokens: null where the tokenizer's chat template refuses the row. One row a text.
    """
    from pyspark.sql import functions as sf

    pool = usable_rows(store, plan, "id", "text_hash", "messages").select("text_hash", "messages")
    known = None
    if store.exists(ANNOTATED):
        mine = store.read(ANNOTATED, version=store.version(ANNOTATED)).where(sf.col("tokenizer") == tokenizer.version)
        known = mine.groupBy("text_hash").agg(sf.max("tokens").alias("tokens"))
        pool = pool.join(known.select("text_hash"), "text_hash", "left_anti")
    counted = pool.mapInArrow(count_row_tokens(tokenizer), "text_hash string, tokens bigint")
    # after counting: two rows with one text are rare, and a shuffle of texts costs more than to count one twice
    counted = counted.groupBy("text_hash").agg(sf.max("tokens").alias("tokens"))
    return counted if known is None else known.unionByName(counted)


def with_tokens(rows: DataFrame, counted: DataFrame | None, tokenizer: Tokenizer | None) -> DataFrame:
    """Rows by `text_hash` with the columns `tokens` and `tokenizer`, null where nothing is counted."""
    from pyspark.sql import functions as sf

    if counted is None or tokenizer is None:
        return rows.withColumns({"tokens": sf.lit(None).cast("bigint"), "tokenizer": sf.lit(None).cast("string")})
    return rows.join(counted, "text_hash", "left").withColumn("tokenizer", sf.lit(tokenizer.version))


def token_counts(store: Store, tokenizer: Tokenizer) -> dict[str, Any]:
    """What was counted, for the run's record: `tokenizer`, `chat_template` (whether it has one), `tokens` in all rows,
    and `uncounted` rows, which the template refuses."""
    [row] = store.read(ANNOTATED).selectExpr("sum(tokens) as n", "count_if(tokens is null) as none").collect()
    uncounted = int(row["none"])
    if uncounted:
        logger.warning(
            "the chat template of %s refuses %d rows: their `tokens` is null, and a cost in tokens rejects them",
            tokenizer.name, uncounted,
        )  # fmt: skip
    return {
        "tokenizer": tokenizer.version, "chat_template": tokenizer.template is not None,
        "tokens": int(row["n"] or 0), "uncounted": uncounted,
    }  # fmt: skip


def _of_embedding_model(spark: SparkSession | None, config: Config) -> Tokenizer:
    from mig_spark.annotation.taggers.embedding import NearestTagger

    tagger = config.annotate.tagger
    model = tagger.model if isinstance(tagger, NearestTagger) else config.graph.embedding_model
    advice = (
        "name a tokenizer.json, or a folder with one, as annotate.tokenizer; or set it to null, and `tokens` is the "
        "column of your own records"
    )
    try:
        folder = model_folder(model)
        if folder is None and model in BUNDLED_NAMES:
            raise DependencyError(HINT)
        path = _from_hub(model) if folder is None else _in_folder(folder)
        name = BUNDLED_NAMES[0] if model in BUNDLED_NAMES else model.rpartition("/")[2]
        return read_tokenizer(spark, str(path), name=name)
    except (DependencyError, InputError) as e:
        raise DependencyError(
            f"a column `tokens` is asked for, and the tokenizer of the embedding model {model} is not here ({e}): "
            f"{advice}"
        ) from None


def _in_folder(folder: Path) -> Path:
    """Models of older versions of sentence-transformers have the tokenizer in the folder of their first module."""
    first = folder / "0_Transformer"
    return first if not (folder / _FILE).exists() and first.is_dir() else folder


def _from_hub(model: str) -> Path:
    import importlib.util

    if importlib.util.find_spec("huggingface_hub") is None:
        raise DependencyError(HINT)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, _FILE))
    except (OSError, ValueError) as e:
        raise DependencyError(str(e).strip().splitlines()[0]) from None


def read_tokenizer(
    spark: SparkSession | None, path: str, *, name: str | None = None, told: str | None = None
) -> Tokenizer:
    """The tokenizer at a path; its own `check` tries it.

    Args:
        spark: the session whose file systems and credentials count; None: those that Python and pyarrow know.
        path: a file `*.json`, or a folder with `tokenizer.json` and what says its chat template.
        name: what people call it; None: the folder's name, or the file's.
        told: what errors call the place; None: as `annotate.tokenizer` names it.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    told = told or f"annotate.tokenizer = {path}"
    alone = path.rstrip("/").endswith(".json")
    folder = path.rstrip("/").rpartition("/")[0] if alone else path.rstrip("/")
    file = path if alone else f"{folder}/{_FILE}"
    try:
        content = read_bytes(file, spark).decode()
    except InputError as e:
        raise InputError(
            f"{told}: {e}; give a tokenizer.json of the library tokenizers, or a folder with one "
            "(save_pretrained of a tokenizer writes it)"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{told}: {file} is not text, so it is no tokenizer.json") from None
    shown = name or (file.rpartition("/")[2] if alone and not file.endswith(_FILE) else folder.rpartition("/")[2])
    if alone:
        return Tokenizer(shown or _FILE, content)
    settings = _json(spark, f"{folder}/tokenizer_config.json", told)
    template = _optional(spark, f"{folder}/chat_template.jinja") or _template(settings.get("chat_template"))
    special = {**_json(spark, f"{folder}/special_tokens_map.json", told), **settings}
    texts = {key: _text(special[key]) for key in _SPECIAL if special.get(key)}
    return Tokenizer(shown, content, template, texts if template is not None else {})


def _template(said: Any) -> str | None:
    """A template as tokenizer_config.json has it: a text, or a list of named ones, of which `default` counts."""
    if isinstance(said, list):
        said = next((t.get("template") for t in said if isinstance(t, dict) and t.get("name") == "default"), None)
    return said if isinstance(said, str) and said else None


def _text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _optional(spark: SparkSession | None, file: str) -> str | None:
    """The text of a file that a folder with a tokenizer need not have."""
    try:
        return read_bytes(file, spark).decode()
    except InputError:
        return None


def _json(spark: SparkSession | None, file: str, told: str) -> dict[str, Any]:
    text = _optional(spark, file)
    try:
        found = {} if text is None else json.loads(text)
    except ValueError as e:
        raise InputError(f"{told}: {file} is not JSON ({e})") from None
    return found if isinstance(found, dict) else {}
