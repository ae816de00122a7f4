"""One typed config: the command line, the jobs, the notebooks and the tests all build the same object.

Unknown keys, ill-typed values and impossible combinations are refused when the config is built, with the key's full
name and the nearest known key.
"""

from __future__ import annotations

from mig_spark.config.annotate import (
    AnnotateConfig,
    ScoreColumn,
    ScoreConfig,
)
from mig_spark.config.base import AUTO, DEFAULT_MODEL
from mig_spark.config.labels import (
    MODEL_THRESHOLDS,
    PAPER_THRESHOLD,
    AssociationConfig,
    GraphConfig,
    InduceConfig,
    VocabularyConfig,
    edge_threshold,
)
from mig_spark.config.load import (
    build_config,
    build_part,
    check_overrides,
    load_config,
    other_settings,
    parse_config,
    unlike_defaults,
)
from mig_spark.config.run import (
    Config,
    GatesConfig,
    IncrementalConfig,
    LockConfig,
    OutputConfig,
    PoolConfig,
    SparkConfig,
    TrackingConfig,
)
from mig_spark.config.screen import ContaminationSet, NearDuplicatesConfig, ScreenConfig
from mig_spark.config.select import (
    INVARIANT_NEEDS_RECEIVER,
    KEYS_OF_LIMITS,
    KEYS_OF_WORK,
    LABEL_PARAMETERS,
    NO_VALUE,
    PHI_KEYS,
    PUBLISHED_B,
    CostConfig,
    PhiConfig,
    QuotaConfig,
    QuotaLimit,
    SelectConfig,
    check_label_parameters,
)
from mig_spark.config.target import FREQUENCY, TargetConfig

__all__ = [
    "AUTO",
    "DEFAULT_MODEL",
    "FREQUENCY",
    "INVARIANT_NEEDS_RECEIVER",
    "KEYS_OF_LIMITS",
    "KEYS_OF_WORK",
    "LABEL_PARAMETERS",
    "MODEL_THRESHOLDS",
    "NO_VALUE",
    "PAPER_THRESHOLD",
    "PHI_KEYS",
    "PUBLISHED_B",
    "AnnotateConfig",
    "AssociationConfig",
    "Config",
    "ContaminationSet",
    "CostConfig",
    "GatesConfig",
    "GraphConfig",
    "IncrementalConfig",
    "InduceConfig",
    "LockConfig",
    "NearDuplicatesConfig",
    "OutputConfig",
    "PhiConfig",
    "PoolConfig",
    "QuotaConfig",
    "QuotaLimit",
    "ScoreColumn",
    "ScoreConfig",
    "ScreenConfig",
    "SelectConfig",
    "SparkConfig",
    "TargetConfig",
    "TrackingConfig",
    "VocabularyConfig",
    "build_config",
    "build_part",
    "check_label_parameters",
    "check_overrides",
    "edge_threshold",
    "load_config",
    "other_settings",
    "parse_config",
    "unlike_defaults",
]
