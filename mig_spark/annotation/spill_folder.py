"""Where the answers under way are kept: a folder for an output, one in it for each run, one in that for each chunk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mig_spark.config import AnnotateConfig, OutputConfig
from mig_spark.kernels.annotation.folders import local_folder
from mig_spark.lakehouse.hadoop import HadoopFiles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_NAME = "annotate-spill"


@dataclass(frozen=True)
class SpillFolder:
    """The spill of one run.

    Attributes:
        root: a path that driver and executors can write to as a plain file; None: there is none.
        earlier: folders that runs which died have left.
    """

    spark: SparkSession
    root: str | None
    run_id: str
    earlier: tuple[str, ...] = ()

    @staticmethod
    def open(spark: SparkSession, output: OutputConfig, config: AnnotateConfig, run_id: str) -> SpillFolder:
        """Find the folder and what is in it; a warning where answers cannot be written through."""
        root = local_folder(config.spill_path or output.path)
        if root is None:
            logger.warning(
                "annotate: paid answers are kept in memory until their chunk is committed, since %s is no folder that "
                "executors can write files in: a task or run that dies pays for its %d-row chunk again. Set "
                "annotate.spill_path to a shared folder (a Volume, EFS, NFS) to keep them",
                config.spill_path or output.path or "the catalog",
                config.chunk_rows,
            )
            return SpillFolder(spark, None, run_id)
        root = root if config.spill_path else f"{root}/{_NAME}"
        files = HadoopFiles(spark)
        left = [local_folder(f.path) for f in files.children(root)] if files.exists(root) else []
        return SpillFolder(spark, root, run_id, tuple(f for f in left if f is not None))

    def chunk(self, number: int) -> str | None:
        """The folder of a chunk."""
        return None if self.root is None else f"{self.root}/{self.run_id}/{number:06d}"

    def remove_chunk(self, number: int) -> None:
        """Forget the answers of a chunk that has been committed."""
        folder = self.chunk(number)
        if folder is not None:
            HadoopFiles(self.spark).remove_folder(folder, empty_parents=2)

    def remove_earlier(self) -> None:
        """Forget what earlier runs have left, once every row has been through."""
        for folder in self.earlier:
            HadoopFiles(self.spark).remove_folder(folder, empty_parents=1)
