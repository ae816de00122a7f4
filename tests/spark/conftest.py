"""One lazy session for all Spark tests: starting a JVM costs more than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    scratch = tmp_path_factory.mktemp("spark")
    config = SparkConfig(
        # 4 = task failures allowed, so that a killed Python worker is retried as on a cluster
        master="local[2,4]",
        driver_memory="2g",
        jvm_options=SHORT_RUN_JVM,
        conf={
            **SHORT_RUN_CONF,
            "spark.local.dir": str(scratch / "local"),
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            "spark.sql.shuffle.partitions": "2",
        },
    )
    session = get_session(config, app_name="mig-spark-tests")
    yield session.spark
    session.close()
