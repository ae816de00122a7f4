"""What a selection by rounds takes: how the time, the disks, what travels and the driver's memory grow with the rows,
the labels, the budget and the cores. docs/scale.md says where the numbers come from and how near they come."""

from __future__ import annotations

from dataclasses import dataclass

from mig_spark.kernels.selection.rounds import LEAST_CANDIDATES

#: Shares of the pool's rows up to which a budget counts, rounds (questions put to all blocks; beside them one pass is
#: for a sample), and how many times the budget is sent in a round, on average: as seen on generated pools
#: (docs/scale.md). Where rounds certify little, twice as many rows are asked for.
BY_SHARE = ((0.005, 7, 2.0), (0.03, 6, 1.0), (1.0, 4, 1.0))
#: Bytes of a packed row on the executors' disks, beside its labels and its id: a score whose digits do not repeat, its
#: place in the order of ids, and what is counted. Of a label, by how many there are. Of an id, a share of its bytes.
DISK_ROW, DISK_LABEL, DISK_RARE_LABEL, DISK_ID = 11.8, 1.2, 2.8, 0.6
#: Labels in use where it is not known how many: a vocabulary of its size costs little beside rows.
USUAL_LABELS = 10_000
#: Vocabularies above this need four bytes a label.
SHORT_LABELS = 1 << 16
#: Bytes of a row that is sent, beside its labels, and of a label.
SENT_ROW, SENT_LABEL = 28, 2
#: Bytes of an answer, beside its rows; a block gives one in every round.
ANSWER = 1_000
#: Bytes of the driver's memory for a row that it holds, copies included, beside its labels and its id; of a label.
HELD_ROW, HELD_LABEL = 330, 20
#: Core-seconds of a row: to be packed from a DataFrame, from Parquet by Arrow, and to be looked at in one pass. Seconds
#: of the driver for a row that is sent, one after another whatever the cores. Seconds that do not go by rows.
PACK, PACK_FILES, PASS, DRIVER, FIXED = 4.0e-6, 0.73e-6, 0.21e-6, 5.0e-6, 9.0


@dataclass(frozen=True)
class RoundsCost:
    """What a selection by rounds takes, about.

    Attributes:
        rounds: questions put to all blocks.
        disk: bytes that the packed pool has on the executors' disks.
        broadcast: bytes sent to every executor in the last round, the largest.
        collected: bytes that come to the driver in a round.
        driver: bytes of memory of the driver's Python process.
        seconds: to pack the pool and to select, wall time; without Spark's start and without what is written.
    """

    rounds: int
    disk: int
    broadcast: int
    collected: int
    driver: int
    seconds: float


def rounds_cost(
    rows: int,
    budget: int,
    *,
    labels_a_row: float,
    labels: int,
    id_bytes: float,
    cores: int,
    block_rows: int = 100_000,
    of_files: bool = False,
) -> RoundsCost:
    """The cost of `engine: rounds` with the gradient gain.

    Args:
        rows: of the pool.
        budget: rows to select.
        labels_a_row: labels of a row, the mean.
        labels: in the vocabulary.
        id_bytes: bytes of an id, the mean; 0 where `sample` numbers rows by their place.
        cores: tasks at a time.
        block_rows: rows of a block.
        of_files: executors read Parquet by Arrow, as for `sample`; else rows come from a DataFrame.

    >>> cost = rounds_cost(10**9, 10**6, labels_a_row=4, labels=5_000, id_bytes=0, cores=2, of_files=True)
    >>> cost.rounds, round(cost.disk / 1e9), round(cost.driver / 1e9)
    (7, 17, 6)
    """
    share = budget / max(rows, 1)
    rounds, times = next(((n, times) for most, n, times in BY_SHARE if share < most), BY_SHARE[-1][1:])
    asked = min(rows, max(budget, LEAST_CANDIDATES) * times)
    held = min(rows, rounds * asked)
    of_label = DISK_LABEL if labels < SHORT_LABELS else DISK_RARE_LABEL
    disk = rows * (DISK_ROW + of_label * labels_a_row + DISK_ID * id_bytes)
    # h of every label, and the places of the rows that came
    broadcast = 8 * labels + min(4 * held, rows / 8)
    collected = asked * (SENT_ROW + SENT_LABEL * labels_a_row + id_bytes) + ANSWER * -(-rows // block_rows)
    driver = held * (HELD_ROW + HELD_LABEL * labels_a_row + 3 * id_bytes)
    pack = PACK_FILES if of_files else PACK
    seconds = FIXED + rows * (pack + (rounds + 1) * PASS) / cores + held * DRIVER
    return RoundsCost(rounds, round(disk), round(broadcast), round(collected), round(driver), seconds)
