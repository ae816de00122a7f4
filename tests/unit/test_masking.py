"""What is masked, and what only looks like a secret."""

from __future__ import annotations

from typing import Any

import pytest

from mig_spark.ingest.incremental import shown_name
from mig_spark.ingest.sources import Part
from mig_spark.masking import MASK, mask_secrets, masked_keys, with_secrets


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("spark.conf.spark.hadoop.fs.s3a.secret.key", "c4n4ry", MASK),
        ("fs.azure.account.key.store.dfs.core.windows.net", "c4n4ry", MASK),
        ("annotate.tagger.apiKey", "c4n4ry", MASK),
        ("AWS_SECRET_ACCESS_KEY", "c4n4ry", MASK),
        ("db.password", "c4n4ry", MASK),
        ("pool.path", "https://me:c4n4ry@host/x.jsonl", f"https://{MASK}@host/x.jsonl"),
        ("pool.path", "https://me:c4n@4ry@host/x.jsonl", f"https://{MASK}@host/x.jsonl"),
        ("pool.path", "https://c4n4ry@host/x.jsonl", f"https://{MASK}@host/x.jsonl"),
        ("pool.path", "hdfs://me:c4n4ry@host/x", f"hdfs://{MASK}@host/x"),
        ("pool.path", "abfss://raw@account.dfs.core.windows.net/x", "abfss://raw@account.dfs.core.windows.net/x"),
        (
            "select.given",
            "wasbs://raw@account.blob.core.windows.net/a:b@c",
            "wasbs://raw@account.blob.core.windows.net/a:b@c",
        ),
        ("output.path", "viewfs://team@cluster/x", "viewfs://team@cluster/x"),
        ("spark.remote", "sc://host:443/;user_id=me;token=c4n4ry", f"sc://host:443/;user_id=me;token={MASK}"),
        ("spark.remote", "sc://host/;token=c4n4ry;use_ssl=true", f"sc://host/;token={MASK};use_ssl=true"),
        ("pool.path", ["https://host/x?sig=c4n4ry&a=1"], [f"https://host/x?sig={MASK}&a=1"]),
        ("pool.path", "https://h/x?access_token=c4n4ry&a=1", f"https://h/x?access_token={MASK}&a=1"),
        ("pool.path", "https://h/x?a=1&client_secret=c4n4ry", f"https://h/x?a=1&client_secret={MASK}"),
        ("pool.path", "https://h/x?AccessKey=c4n4ry", f"https://h/x?AccessKey={MASK}"),
        ("pool.path", "https://h/x?monkey=1&keyword=2", "https://h/x?monkey=1&keyword=2"),
        (
            "spark.jvm_options",
            "-Xss8m -Djavax.net.ssl.trustStorePassword=c4n4ry -Duser.timezone=UTC",
            f"-Xss8m -Djavax.net.ssl.trustStorePassword={MASK} -Duser.timezone=UTC",
        ),
        (
            "spark.conf.spark.driver.extraJavaOptions",
            """-Ddb.password="c4n 4ry" '-Dapi.token=c4n 4ry' -Da=b""",
            f"""-Ddb.password={MASK} '-Dapi.token={MASK}' -Da=b""",
        ),
        ("spark.jvm_options", "'-Da=b -Ddb.password=c4n4ry'", f"'-Da=b -Ddb.password={MASK}'"),
        ("spark.jvm_options", "'-Da=b -Ddb.password=c4n4ry", f"'-Da=b -Ddb.password={MASK}"),
        ("annotate.tagger.api_key_env", "OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("annotate.tagger.api_key_secret.scope", "mig", "mig"),
        ("annotate.tagger.api_key_secret.key", "openai", "openai"),
        ("annotate.tagger.max_tokens", 256, 256),
        ("annotate.tagger.batch_tokens", "8192", "8192"),
        ("pool.path", "s3://bucket/user@example/x", "s3://bucket/user@example/x"),
    ],
)
def test_mask_secrets(key: str, value: Any, shown: Any) -> None:
    assert mask_secrets(value, key=key) == shown
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    masked = mask_secrets(nested)
    for part in key.split("."):
        masked = masked[part]
    assert masked == shown


def test_what_is_masked_is_told_and_taken_from_a_config_at_hand() -> None:
    own = {
        "pool": {"path": ["https://me:c4n4ry@host/x", "/data/y"]},
        "select": {"given": "hdfs://a:c4n4ry@h/z"},
        "n": 1,
    }
    stored = mask_secrets(own)
    assert masked_keys(stored) == ["pool.path", "select.given"]
    assert with_secrets(stored, own) == own
    other = {**own, "select": {"given": "hdfs://a:c4n4ry@elsewhere/z"}}
    assert masked_keys(with_secrets(stored, other)) == ["select.given"]
    assert masked_keys(with_secrets(stored, {})) == ["pool.path", "select.given"]
    assert masked_keys(own) == []


def test_a_source_table_goes_by_a_name_without_its_password():
    """The name is in the commit metadata of `records`, which anyone who can read the output reads."""
    assert shown_name(Part("delta", "hdfs://me:c4n4ry@host/t")) == f"hdfs://{MASK}@host/t"
    assert shown_name(Part("delta", "abfss://raw@account.dfs.core.windows.net/t")).startswith("abfss://raw@")
