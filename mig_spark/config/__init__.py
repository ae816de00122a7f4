"""One typed config: the command line, the jobs, the notebooks and the tests all build the same object.

Unknown keys, ill-typed values and impossible combinations are refused when the config is built, with the key's full
name and the nearest known key.
"""

from __future__ import annotations

from mig_spark.config.annotate import (
    AnnotateConfig,
    ColumnScorer,
    ColumnTagger,
    CombineScorer,
    DeitaScorer,
    DistilledTagger,
    EmbeddingTagger,
    EndpointConfig,
    EndpointScorer,
    EndpointTagger,
    HeuristicScorer,
    IfdScorer,
    InstagTagger,
    LanguageModelConfig,
    Part,
    RewardScorer,
    ScoreColumn,
    ScoreConfig,
    Scorer,
    SecretConfig,
    Tagger,
    check_prompt,
)
from mig_spark.config.base import DEFAULT_MODEL
from mig_spark.config.labels import (
    MODEL_THRESHOLDS,
    PAPER_THRESHOLD,
    AssociationConfig,
    GraphConfig,
    InduceConfig,
    VocabularyConfig,
)
from mig_spark.config.load import build_config, build_part, load_config
from mig_spark.config.run import Config, GatesConfig, LockConfig, OutputConfig, PoolConfig, SparkConfig
from mig_spark.config.select import (
    LABEL_PARAMETERS,
    CostConfig,
    PhiConfig,
    QuotaConfig,
    QuotaLimit,
    SelectConfig,
    check_label_parameters,
    read_label_parameters,
)

__all__ = [
    "DEFAULT_MODEL",
    "LABEL_PARAMETERS",
    "MODEL_THRESHOLDS",
    "PAPER_THRESHOLD",
    "AnnotateConfig",
    "AssociationConfig",
    "ColumnScorer",
    "ColumnTagger",
    "CombineScorer",
    "Config",
    "CostConfig",
    "DeitaScorer",
    "DistilledTagger",
    "EmbeddingTagger",
    "EndpointConfig",
    "EndpointScorer",
    "EndpointTagger",
    "GatesConfig",
    "GraphConfig",
    "HeuristicScorer",
    "IfdScorer",
    "InduceConfig",
    "InstagTagger",
    "LanguageModelConfig",
    "LockConfig",
    "OutputConfig",
    "Part",
    "PhiConfig",
    "PoolConfig",
    "QuotaConfig",
    "QuotaLimit",
    "RewardScorer",
    "ScoreColumn",
    "ScoreConfig",
    "Scorer",
    "SecretConfig",
    "SelectConfig",
    "SparkConfig",
    "Tagger",
    "VocabularyConfig",
    "build_config",
    "build_part",
    "check_label_parameters",
    "check_prompt",
    "load_config",
    "read_label_parameters",
]
