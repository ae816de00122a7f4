"""How much memory the driver may take: the machine's, the container's, what Spark gave it."""

from __future__ import annotations

import psutil
import pytest

from mig_spark.errors import ConfigError
from mig_spark.lakehouse.memory import available_cores, available_memory, parse_bytes

GB = 1 << 30


def tree(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.fixture(autouse=True)
def large_machine(monkeypatch):
    kind = type(psutil.virtual_memory())
    facts = psutil.virtual_memory()._asdict()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: kind(**{**facts, "available": 64 * GB}))


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 64),
        # version 2; files that were read once count as used, and go when memory is needed
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 4 * GB, "sys/fs/cgroup/memory.current": 3 * GB,
          "sys/fs/cgroup/memory.stat": f"anon {GB}\ninactive_file {2 * GB}"}, 3),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": 3 * GB}, 64),
        # the limit may be that of a group above
        ({"proc/self/cgroup": "0::/jobs/one", "sys/fs/cgroup/jobs/one/memory.max": "max",
          "sys/fs/cgroup/jobs/one/memory.current": GB, "sys/fs/cgroup/jobs/memory.max": 5 * GB,
          "sys/fs/cgroup/jobs/memory.current": 2 * GB}, 3),
        # version 1, beside an empty version 2; without a limit it has a number near 2^63
        ({"proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/jobs/one\n0::/",
          "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": 8 * GB,
          "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": 7 * GB,
          "sys/fs/cgroup/memory/jobs/one/memory.stat": f"total_inactive_file {GB}",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
          "sys/fs/cgroup/memory/memory.usage_in_bytes": 30 * GB}, 2),
        # in a container of version 1 the path is the host's, and the own group is the mount
        ({"proc/self/cgroup": "4:memory:/docker/0123abc", "sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GB,
          "sys/fs/cgroup/memory/memory.usage_in_bytes": GB}, 1),
        # above its limit for a moment
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": GB, "sys/fs/cgroup/memory.current": 2 * GB}, 0),
    ],
)  # fmt: skip
def test_the_least_of_machine_and_control_groups(tmp_path, files, left):
    assert available_memory(root=tree(tmp_path, files)) == left * GB


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/pods/one", "sys/fs/cgroup/pods/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/docker/0a", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 300_000,
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100_000}, 3),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100_000}, 8),
    ],
)  # fmt: skip
def test_the_least_of_cores_and_what_control_groups_allow(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores(root=tree(tmp_path, files)) == cores


def test_a_driver_in_cluster_mode_has_its_overhead(tmp_path):
    def setting(**conf):
        return lambda name, default: conf.get(name.rpartition(".")[2], default)

    taken = psutil.Process().memory_info().rss
    for conf, overhead in (
        ({"memory": "4g", "memoryOverhead": "3g"}, 3 * GB),
        ({"memory": "4096", "memoryOverhead": "3072"}, 3 * GB),
        ({"memory": "40g"}, 4 * GB),
        ({"memory": "40g", "memoryOverheadFactor": "0.4"}, 16 * GB),
    ):
        left = available_memory(setting(deployMode="cluster", **conf), root=tmp_path)
        assert left == pytest.approx(overhead - taken, abs=64 << 20)
    # in client mode the driver's Python is no part of what Spark asked for
    assert available_memory(setting(deployMode="client", memory="1g"), root=tmp_path) == 64 * GB
    assert available_memory(setting(memory="1g"), root=tmp_path) == 64 * GB


def test_sizes_as_spark_writes_them():
    sizes = {"0": 0, "1g": GB, "512m": 512 << 20, "1024K": 1 << 20, "2 GB": 2 * GB, "1073741824": GB, "1GiB": GB}
    assert {text: parse_bytes(text) for text in sizes} == sizes
    assert parse_bytes("2048", "m") == 2 * GB
    with pytest.raises(ConfigError, match="'much' is not a size"):
        parse_bytes("much")
