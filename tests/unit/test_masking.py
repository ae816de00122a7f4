"""What is masked, and what only looks like a secret."""

from __future__ import annotations

from typing import Any

import pytest

from mig_spark.masking import MASK, mask_secrets


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("spark.conf.spark.hadoop.fs.s3a.secret.key", "c4n4ry", MASK),
        ("fs.azure.account.key.store.dfs.core.windows.net", "c4n4ry", MASK),
        ("annotate.tagger.apiKey", "c4n4ry", MASK),
        ("AWS_SECRET_ACCESS_KEY", "c4n4ry", MASK),
        ("db.password", "c4n4ry", MASK),
        ("pool.path", "https://me:c4n4ry@host/x.jsonl", f"https://{MASK}@host/x.jsonl"),
        ("pool.path", ["https://host/x?sig=c4n4ry&a=1"], [f"https://host/x?sig={MASK}&a=1"]),
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
