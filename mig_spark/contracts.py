"""The tables: names, columns, types, comments and constraints, declared once and imported by everything else.

Types are Spark DDL strings, so this module needs no Spark. A name in `UPPER_CASE` is a table, `T.columns` its columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Column:
    """One column: `type` is a Spark DDL type, `comment` what a reader of the catalog sees.

    `before`: SQL for its value in rows that were written before there was such a column; None: null.
    """

    name: str
    type: str
    comment: str
    nullable: bool = True
    before: str | None = None


@dataclass(frozen=True)
class Table:
    """One table: its columns in order, and CHECK constraints by name (SQL that holds for every row).

    `scratch`: it holds what one run has under way, so every run has one of its own; removed when the step ends.
    `changed_checks`: names of constraints that had another rule in an earlier version: in a table of that version the
    rule is replaced.
    `seldom_twice`: columns, by their path in the Parquet schema, whose values seldom recur. Parquet writers are told
    not to build a dictionary for them, which costs time and saves no space.
    `indexed`: columns, from the first, whose smallest and largest value Delta keeps for each file; None: Delta's 32.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    checks: dict[str, str] = field(default_factory=dict)
    partitioned_by: tuple[str, ...] = ()
    scratch: bool = False
    changed_checks: tuple[str, ...] = ()
    indexed: int | None = None
    seldom_twice: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [c.name for c in self.columns]

    def ddl(self) -> str:
        """The schema as a DDL string, for `spark.createDataFrame`."""
        return ", ".join(f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns)


MESSAGES_TYPE = "array<struct<role:string,content:string>>"
GIVEN_TYPE = "struct<labels:array<string>,quality:double,complexity:double,score:double,ifd:double>"

ROLES = ("system", "user", "assistant", "tool", "function_call")
#: Kinds of rows: one answer to learn, a better and a worse one, an answer with a verdict, none, steps with verdicts.
KINDS = ("sft", "preference", "kto", "prompt", "stepwise")

POOL = Table(
    "pool",
    "Normalised rows of the source, one per id",
    (
        Column("id", "string", "the row's own id, else the hash of its content", nullable=False),
        Column("content_hash", "string", "sha256 of all that a trainer sees of the row", nullable=False),
        Column(
            "messages",
            MESSAGES_TYPE,
            "what annotators read: turns in order; roles: " + ", ".join(ROLES),
            nullable=False,
        ),
        Column("source", "string", "where the row comes from: its own source column, else the file or table"),
        Column("schema", "string", "the input schema that was recognised"),
        Column("given", GIVEN_TYPE, "labels and scores that the record came with; null where it had none"),
        Column("raw", "string", "the original record as JSON text, unchanged"),
        Column("text_hash", "string", "sha256 of the messages: the key of annotations", before="content_hash"),
        Column("kind", "string", "what the row is for: " + ", ".join(KINDS)),
    ),
    {"id_not_empty": "length(id) > 0"},
    indexed=1,
    seldom_twice=("id", "content_hash", "messages.list.element.content", "raw", "text_hash"),
)

STAGED = Table(
    "staged_pool",
    "Parsed records of the ingest in progress, usable or not; removed when the ingest ends",
    (
        *(replace(c, nullable=True) for c in POOL.columns),
        Column("reason", "string", "why the record cannot be used; null where it can"),
        Column("detail", "string", "details of what is wrong with it"),
        Column("signature", "string", "hash of its content, labels and scores; the id of a record that has none"),
        Column("file", "string", "the file or table it came from"),
        Column("block", "bigint", "byte offset of its part of the file; for a table, a hash of the record"),
        Column("seq", "bigint", "its number within the block; (file, block, seq) is unique"),
    ),
    scratch=True,
    indexed=0,
    seldom_twice=(*POOL.seldom_twice, "signature", "seq"),
)

RECORDS = Table(
    "records",
    "Every record of the source as last parsed; kept by incremental runs, which parse only what changed",
    STAGED.columns,
    seldom_twice=STAGED.seldom_twice,
)

CHANGES = Table(
    "changed_records",
    "Records that changed in the source since the last run; removed when the ingest ends",
    (
        *STAGED.columns,
        Column(
            "op",
            "string",
            "insert, update or delete of the record at (file, block, seq); astray: it is gone from the source, and was "
            "never found as it is written now, so everything is read",
        ),
        Column("old_id", "string", "the id that this record had before"),
    ),
    scratch=True,
)

SOURCE_FILES = Table(
    "source_files",
    "The files that the last incremental ingest read",
    (
        Column("file", "string", "path", nullable=False),
        Column("bytes", "bigint", "size; -1: to be looked at again, since a run did not end", nullable=False),
        Column(
            "modified_ms", "bigint", "modification time, milliseconds since 1970 UTC; -1: as in bytes", nullable=False
        ),
    ),
)

REJECTED = Table(
    "rejected",
    "Rows that could not be used, each with the stage that rejected it and the reason",
    (
        Column("stage", "string", "ingest, screen, annotate or select", nullable=False),
        Column("reason", "string", "one of a fixed set of phrases, counted in the summary", nullable=False),
        Column("detail", "string", "details of what is wrong with this row"),
        Column("id", "string", "the row's id where one could be read"),
        Column("source", "string", "the file or table it came from"),
        Column("raw", "string", "the original record as JSON text, unchanged"),
        Column("run_id", "string", "the run that rejected it", nullable=False),
    ),
    {"stage_known": "stage in ('ingest', 'screen', 'annotate', 'select')", "reason_not_empty": "length(reason) > 0"},
    changed_checks=("stage_known",),
    seldom_twice=("id", "raw"),
)

SCREENED = Table(
    "screened",
    "What screening says of each row of the pool; rows with copy_of or contamination are left out of `annotated`",
    (
        Column("id", "string", "pool row", nullable=False),
        Column("content_hash", "string", "as in pool", nullable=False),
        Column("copy_of", "string", "the row of equal content that is kept in place of this one; null: it is no copy"),
        Column("copies", "bigint", "rows that are a copy_of this one", nullable=False),
        Column("near_group", "string", "its group of near duplicates: the smallest id in it; null: it is in none"),
        Column(
            "contamination",
            "array<struct<name:string,item:string,tokens:int,span:string>>",
            "for each evaluation set that it has text in common with: the first such item, the number of tokens in "
            "common and their text; null: it has none",
        ),
    ),
    {"copies_not_negative": "copies >= 0"},
    seldom_twice=("id", "content_hash"),
)

NEAR_BUCKETS = Table(
    "near_buckets",
    "Bands of MinHash signatures that several rows agree in; removed when the near duplicates are found",
    (
        Column("row", "bigint", "hash of the row's id"),
        Column("bucket", "bigint", "hash of the band, and of which one it is"),
        Column("part", "bigint", "hash of the band and of the next one"),
        Column("size", "bigint", "rows of the bucket"),
        Column("first", "bigint", "the smallest `row` of the bucket"),
    ),
    scratch=True,
)

NEAR_EDGES = Table(
    "near_edges",
    "Pairs of rows whose texts are similar enough; removed when the near duplicates are found",
    (
        Column("src", "string", "pool row"),
        Column("dst", "string", "pool row"),
    ),
    scratch=True,
)

ANNOTATIONS = Table(
    "annotations",
    "Results of taggers and scorers, cached: one row for each text that was annotated and pair of versions",
    (
        Column("content_hash", "string", "key: hash of what was read of a row, see Plan.key", nullable=False),
        Column("labels", "array<string>", "labels in the tagger's order, without repeats", nullable=False),
        Column("quality", "double", "quality, where the scorer gives one"),
        Column("complexity", "double", "complexity, where the scorer gives one"),
        Column("score", "double", "the scorer's score, >= 0", nullable=False),
        Column("flags", "array<string>", "notes on this row: truncated, refusal, ..."),
        Column("tagger", "string", "tagger kind and model", nullable=False),
        Column("tagger_version", "string", "changes with the model, prompt or vocabulary", nullable=False),
        Column("scorer", "string", "scorer kind and model", nullable=False),
        Column("scorer_version", "string", "changes with the model, prompt or parameters", nullable=False),
        Column("run_id", "string", "the run that paid for it", nullable=False),
        Column("annotated_at", "timestamp", "when it was written"),
    ),
    {"score_not_negative": "score >= 0"},
    seldom_twice=("content_hash",),
)

ANNOTATION_FAILURES = Table(
    "annotation_failures",
    "Failed tries: rows that a tagger or scorer could not annotate, one row for each try, with any partial answer",
    (
        Column("content_hash", "string", "key: hash of the content to be annotated", nullable=False),
        Column("attempt", "int", "1 for a try that counts, 0 where the run stopped before trying", nullable=False),
        Column("error", "string", "why there is no annotation", nullable=False),
        Column("labels", "array<string>", "labels, where the tagger answered"),
        Column("quality", "double", "quality score, where the scorer answered"),
        Column("complexity", "double", "complexity score, where the scorer answered"),
        Column("score", "double", "the row's score, where the scorer answered"),
        Column("flags", "array<string>", "as in annotations"),
        Column("tagger", "string", "tagger kind and model", nullable=False),
        Column("tagger_version", "string", "as in annotations", nullable=False),
        Column("scorer", "string", "scorer kind and model", nullable=False),
        Column("scorer_version", "string", "as in annotations", nullable=False),
        Column("run_id", "string", "the run that tried", nullable=False),
        Column("annotated_at", "timestamp", "when it was written"),
    ),
)

ANNOTATED_CHUNK = Table(
    "annotated_chunk",
    "Results of the annotators for the chunk in progress; removed when the stage ends",
    (
        Column("content_hash", "string", "key of the annotation"),
        Column("labels", "array<string>", "null where the tagger gave no answer"),
        Column("tag_flags", "array<string>", "flags of the tagger"),
        Column("quality", "double", "null where the scorer gave no answer"),
        Column("complexity", "double", "null where the scorer gave no answer"),
        Column("score", "double", "null where the scorer gave no answer"),
        Column("score_flags", "array<string>", "flags of the scorer"),
        Column("tag_error", "string", "why there are no labels"),
        Column("score_error", "string", "why there is no score"),
    ),
    scratch=True,
)

ANNOTATE_TODO = Table(
    "annotate_todo",
    "Rows that the annotate stage in progress has still to do, in chunks; removed when it ends",
    (
        Column("content_hash", "string", "key of the annotation"),
        Column("messages", MESSAGES_TYPE, "as in pool"),
        Column("given", GIVEN_TYPE, "as in pool"),
        Column("chunk", "int", "by a hash of the key"),
        # what is known already, null where it is to be made
        *(c for c in ANNOTATED_CHUNK.columns if c.name != "content_hash" and not c.name.endswith("_error")),
    ),
    partitioned_by=("chunk",),
    scratch=True,
    seldom_twice=("content_hash", "messages.list.element.content"),
)

ANNOTATED = Table(
    "annotated",
    "The annotated pool, one row an id: what everything after annotation reads, and nothing else of annotation",
    (
        Column("id", "string", "pool row", nullable=False),
        Column("content_hash", "string", "as in pool", nullable=False),
        Column("source", "string", "as in pool"),
        Column("labels", "array<string>", "its labels; where there is a vocabulary, after its map", nullable=False),
        Column("score", "double", "what the selection uses, as annotate.score combines it", nullable=False),
        Column("quality", "double", "quality score where the scorer gives one"),
        Column("complexity", "double", "complexity score where the scorer gives one"),
        Column("flags", "array<string>", "truncated, refusal, ...: notes on this row"),
        Column("characters", "bigint", "length of all turns in characters"),
        Column("turns", "int", "number of turns"),
        Column("columns", "map<string,string>", "columns of the record that select.quotas and select.cost name"),
        Column("text_hash", "string", "as in pool"),
        Column(
            "tokens", "bigint", "tokens of all turns; null: not counted, or the tokenizer's chat template refuses it"
        ),
        Column("tokenizer", "string", "name and version of the tokenizer that counted `tokens`; null: none did"),
        Column("answer_characters", "bigint", "length of the assistant's turns in characters"),
        Column("near_group", "string", "as in screened; null: it is in no group, or none were looked for"),
    ),
    {"score_not_negative": "score >= 0"},
    seldom_twice=("id", "content_hash", "text_hash"),
)

#: Columns of ANNOTATED that `select.quotas` and `select.cost` may name; any other name is one of the user's records.
OWN_COLUMNS = (
    "id", "content_hash", "source", "labels", "score", "quality", "complexity", "flags", "characters", "tokens",
    "answer_characters", "near_group",
)  # fmt: skip

VOCABULARY = Table(
    "vocabulary",
    "How raw tags become labels: one row for each label, kept, merged or dropped; may be edited, and edits are kept",
    (
        Column("label", "string", "the label: its most frequent raw tag, or a name given by hand", nullable=False),
        Column("status", "string", "kept, merged or dropped", nullable=False),
        Column("merged_into", "string", "the label that it is merged into"),
        Column("frequency", "bigint", "pool rows with this label; for a kept label, labels merged into it included"),
        Column("raw_tags", "array<struct<tag:string,count:bigint>>", "its spellings, with the pool rows of each"),
        Column("reason", "string", "why it was merged or dropped"),
        Column("edited", "boolean", "true keeps this row as it is; other edits are recognised by as_written"),
        Column("as_written", "string", "JSON: this row as the stage wrote it; where it differs, it was edited"),
    ),
    {"status_known": "status in ('kept', 'merged', 'dropped')"},
)

ROW_VECTORS = Table(
    "row_vectors",
    "Embeddings of the rows that `induce` reads; removed when it ends",
    (
        Column("content_hash", "string", "the pool's text_hash"),
        Column("text", "string", "what was embedded"),
        Column("vector", "array<float>", "of length 1"),
    ),
    scratch=True,
    seldom_twice=("content_hash", "text", "vector.list.element"),
)

VECTORS = Table(
    "vectors",
    "Vectors of texts, for strategies that compare rows: each text is embedded once by a model",
    (
        Column("text_hash", "string", "the pool's text_hash", nullable=False),
        Column("vector", "array<float>", "of length 1; null: there is no text to embed"),
        Column("model", "string", "what made it: kind, model, and a version that changes with either", nullable=False),
    ),
    seldom_twice=("text_hash", "vector.list.element"),
)

STUDENTS = Table(
    "students",
    "Small models that learned from a tagger or scorer what it says, with their weights: each is fitted once",
    (
        Column("recipe", "string", "key: teacher, embedding, sample and rules, as the config has them", nullable=False),
        Column("version", "string", "as in annotations: recipe, sample and fit", nullable=False),
        Column("role", "string", "tagger or scorer", nullable=False),
        Column("teacher", "string", "the teacher's name, as in annotations", nullable=False),
        Column("teacher_version", "string", "as in annotations", nullable=False),
        Column("settings", "string", "JSON: the section of the config, without the teacher", nullable=False),
        Column("targets", "array<string>", "labels that were learned, or columns of scores", nullable=False),
        Column("width", "int", "numbers of a vector", nullable=False),
        Column("weights", "array<float>", "`width` numbers for each target, one after the other", nullable=False),
        Column("bias", "array<float>", "one number for each target", nullable=False),
        Column("rule", "string", "JSON: what becomes of the values", nullable=False),
        Column("sample", "string", "sha256 of the rows that were fitted on and the teacher's answers", nullable=False),
        Column("drawn", "bigint", "rows of the sample", nullable=False),
        Column("answered", "bigint", "those that the teacher answered", nullable=False),
        Column("held_out", "bigint", "those of them that the fit did not see", nullable=False),
        Column("pool", "bigint", "rows that the sample was drawn from", nullable=False),
        Column("agreement", "double", "rank correlation, or micro F1, on the rows held out; null: there is none"),
        Column("measures", "string", "JSON: further measures of agreement; of labels, F1 of each", nullable=False),
        Column("run_id", "string", "the run that fitted it", nullable=False),
        Column("fitted_at", "timestamp", "when it was written", nullable=False),
    ),
    {"role_known": "role in ('tagger', 'scorer')"},
)

REQUEST_GROUPS = Table(
    "request_groups",
    "Groups of requests that are worded alike, which rows are sorted into: of each recipe the last ones count",
    (
        Column("recipe", "string", "what they follow from, the pool's rows aside: settings and rules", nullable=False),
        Column("hashes", "binary", "uint64, ascending: the pairs and triples of words that count", nullable=False),
        Column("centers", "array<binary>", "float32, by level, coarse first: the groups' centers", nullable=False),
        Column("names", "array<array<string>>", "by level: the groups' labels, in the same order", nullable=False),
        Column("sample", "bigint", "rows that they were found in", nullable=False),
        Column("share", "double", "share of these that are in a group", nullable=False),
        Column("pool", "bigint", "rows that the sample was drawn from", nullable=False),
        Column("run_id", "string", "the run that found them", nullable=False),
        Column("found_at", "timestamp", "when that was", nullable=False),
    ),
)

CLUSTERS = Table(
    "clusters",
    "Clusters of rows found by `induce`, and the phrases that distinguish each from the others",
    (
        Column("cluster", "int", "its number", nullable=False),
        Column("label", "string", "its best phrase that no larger cluster has", nullable=False),
        Column("rows", "bigint", "distinct rows in it", nullable=False),
        Column("phrases", "array<struct<phrase:string,score:double,rows:bigint>>", "best first", nullable=False),
    ),
)

CLUSTER_ROWS = Table(
    "cluster_rows",
    "The cluster of every row that `induce` read",
    (
        Column("content_hash", "string", "the pool's text_hash", nullable=False),
        Column("cluster", "int", "its cluster", nullable=False),
        Column("label", "string", "the cluster's label", nullable=False),
    ),
)

LABELS = Table(
    "labels",
    "The vertices of the label graph: the vocabulary in use",
    (
        Column("label_id", "int", "position in the sorted vocabulary", nullable=False),
        Column("label", "string", "the label", nullable=False),
        Column("frequency", "bigint", "pool rows that carry it", nullable=False),
        Column("degree", "int", "edges used in the propagation, without the self-loop", nullable=False),
        Column("weight_sum", "double", "the sum by which its propagation weights were divided", nullable=False),
        Column("component", "int", "smallest label_id of its connected component"),
        Column("community", "int", "smallest label_id of its community, by label propagation over the same edges"),
        Column(
            "weight",
            "double",
            "set by hand: weight of its phi (label_parameters: labels); kept by rebuilds",
        ),
        Column("a", "double", "set by hand: its phi's a, likewise"),
        Column("b", "double", "set by hand: its phi's b, likewise"),
        Column("alpha", "double", "set by hand: its phi's alpha, likewise"),
    ),
    {"frequency_not_negative": "frequency >= 0"},
)

LABEL_EDGES = Table(
    "label_edges",
    "The edges of the label graph. similarity and cooccurrence: once a pair, src < dst. propagation: the matrix P, "
    "directed, self-loops included: one unit on src sends `weight` to dst",
    (
        Column("src", "string", "label", nullable=False),
        Column("dst", "string", "label", nullable=False),
        Column("kind", "string", "similarity, cooccurrence or propagation", nullable=False),
        Column("weight", "double", "cosine, normalised PMI, or P[src, dst]", nullable=False),
        Column("count", "bigint", "rows that carry both labels (cooccurrence)"),
    ),
    {"kind_known": "kind in ('similarity', 'cooccurrence', 'propagation')"},
)

SELECTION = Table(
    "selection",
    "The chosen rows in order. The first k are the selection for budget k, but with quotas, a cost, a target or `auto`",
    (
        Column("rank", "int", "1 for the first row taken", nullable=False),
        Column("id", "string", "pool row", nullable=False),
        Column("gain", "double", "what this row added when it was taken, in the config's gain; null: no gains"),
        Column("objective", "double", "E of the first `rank` rows; null: the strategy has no objective"),
        Column("labels", "array<string>", "its labels", nullable=False),
        Column("score", "double", "its score", nullable=False),
        Column("source", "string", "its source"),
        Column("run_id", "string", "the run that selected it", nullable=False),
        Column("content_hash", "string", "as in pool when it was selected"),
        Column("text_hash", "string", "as in pool when it was selected; null: content_hash is over the messages alone"),
    ),
    {"rank_positive": "rank >= 1"},
)

SELECTION_CHANGES = Table(
    "selection_changes",
    "What each incremental run changed in the selection: rows that entered or left it",
    (
        Column("run_id", "string", "the run", nullable=False),
        Column("id", "string", "pool row", nullable=False),
        Column("change", "string", "entered or left", nullable=False),
        Column(
            "reason",
            "string",
            "why: new (not in the selection before), deleted, rejected, changed (a row that is chosen again leaves as "
            "what it was, and enters as what it is), no longer annotated, excluded or given by now, without a label, "
            "outdone by others",
            nullable=False,
        ),
        Column("rank_before", "int", "its rank in the selection before"),
        Column("rank_after", "int", "its rank now"),
    ),
    {"change_known": "change in ('entered', 'left')"},
)

EVIDENCE = Table(
    "evidence",
    "What `mig-spark evaluate` measured last, a row a budget, strategy and measure; nothing that MIG optimises",
    (
        Column("share", "double", "the budget as a share of the sample's rows", nullable=False),
        Column("rows", "bigint", "the budget in rows", nullable=False),
        Column("strategy", "string", "how the rows were selected", nullable=False),
        Column("measure", "string", "strata, own, distance, novelty, loss or length", nullable=False),
        Column("value", "double", "the mean over runs", nullable=False),
        Column("runs", "int", "selections that the mean is of", nullable=False),
        Column("beside_random", "double", "this value less that of random selections; null for these"),
        Column("beside_random_low", "double", "lower end of its 95% interval"),
        Column("beside_random_high", "double", "upper end of its 95% interval"),
        Column("own_beside", "double", "the value of the config's own strategy less this one; null for that one"),
        Column("own_beside_low", "double", "lower end of its 95% interval"),
        Column("own_beside_high", "double", "upper end of its 95% interval"),
        Column("setting", "string", "JSON: the sample, what was compared and left out, the model", nullable=False),
        Column("evaluated_at", "timestamp", "UTC", nullable=False),
        Column("config_hash", "string", "sha256 of the config", nullable=False),
        Column("annotated_version", "bigint", "Delta version of `annotated` that was read", nullable=False),
    ),
)

RUNS = Table(
    "runs",
    "One row an execution: what went in, what came out, how long it took, and the certificate",
    (
        Column("run_id", "string", "unique id", nullable=False),
        Column("started_at", "timestamp", "UTC", nullable=False),
        Column("ended_at", "timestamp", "UTC"),
        Column("status", "string", "ok or failed", nullable=False),
        Column("command", "string", "the stages that were asked for", nullable=False),
        Column("config", "string", "resolved config as JSON, secrets masked", nullable=False),
        Column("config_hash", "string", "sha256 of the config", nullable=False),
        Column("code_version", "string", "version of this package", nullable=False),
        Column("inputs", "string", "JSON: table versions and file listings that were read", nullable=False),
        Column("versions", "string", "JSON: packages and models", nullable=False),
        Column("counts", "string", "JSON: rows in and out of every stage, rejected by reason", nullable=False),
        Column("seconds", "string", "JSON: wall seconds a stage", nullable=False),
        Column("certificate", "string", "JSON: rounds, evaluations, bounds, hashes, objective and its upper bound"),
        Column("error", "string", "what went wrong, where something did"),
    ),
    {"status_known": "status in ('ok', 'failed')", "run_id_not_empty": "length(run_id) > 0"},
)

FINISHED = Table(
    "stages",
    "One row a finished stage: from what, by what and to what. A later run passes over a stage whose key is here",
    (
        Column("run_id", "string", "the run that finished it", nullable=False),
        Column(
            "stage", "string", "ingest, screen, annotate, vocabulary, graph, select, export or report", nullable=False
        ),
        Column("key", "string", "sha256 of config, code version and the versions of what was read", nullable=False),
        Column("reads", "string", "JSON: what it read, tables with their Delta versions", nullable=False),
        Column("writes", "string", "JSON: tables that it wrote, with their Delta versions after it", nullable=False),
        Column("counts", "string", "JSON: its part of the run's counts", nullable=False),
        Column("inputs", "string", "JSON: its part of the run's inputs", nullable=False),
        Column("certificate", "string", "JSON: the certificate, of a selection"),
        Column("seconds", "double", "wall seconds", nullable=False),
        Column("code_version", "string", "version of this package and a hash of its code", nullable=False),
        Column("ended_at", "timestamp", "UTC", nullable=False),
        Column("marks", "string", "JSON: what tells the versions in `writes` from those of a table made anew"),
    ),
    {"key_is_a_hash": "length(key) = 64"},
)

LEASES = Table(
    "leases",
    "Who may write into these tables: claims, renewals and ends; the commits, in their order, decide",
    (
        Column("run_id", "string", "the run", nullable=False),
        Column("event", "string", "claim, renew or end", nullable=False),
        Column("until", "timestamp", "UTC; when the lease lapses unless it is renewed", nullable=False),
        Column("host", "string", "where the run's driver is", nullable=False),
        Column("pid", "bigint", "the driver's process there", nullable=False),
    ),
    {"event_known": "event in ('claim', 'renew', 'end')"},
)

TABLES = {
    t.name: t
    for t in (
        POOL,
        REJECTED,
        SCREENED,
        ANNOTATIONS,
        ANNOTATION_FAILURES,
        ANNOTATED,
        VOCABULARY,
        VECTORS,
        STUDENTS,
        REQUEST_GROUPS,
        CLUSTERS,
        CLUSTER_ROWS,
        LABELS,
        LABEL_EDGES,
        SELECTION,
        SELECTION_CHANGES,
        EVIDENCE,
        RECORDS,
        SOURCE_FILES,
        RUNS,
        FINISHED,
        LEASES,
    )
}

#: Tables that every run has one of its own of.
KEPT = Table(
    "kept",
    "Rows that are read more than once, where Spark keeps nothing (serverless compute); each has columns of its own",
    (),
    scratch=True,
    indexed=0,
)

SCRATCH = (KEPT, NEAR_BUCKETS, NEAR_EDGES, STAGED, CHANGES, ANNOTATED_CHUNK, ANNOTATE_TODO, ROW_VECTORS)
