"""A Spark Connect server in a process of its own, that can be killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyspark

from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, local_conf

_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"


class ConnectServer:
    """Spark Connect with Delta on a free port of this machine, from `start` to `stop`.

    Args:
        folder: for its log and its settings.
        delta: with Delta's jars and settings.
        before: commands of a shell that the server is started after, in namespaces of its own.
    """

    def __init__(self, folder: Path, *, delta: bool = True, before: str = "") -> None:
        self._folder, self._before = folder, before
        self._log = folder / "server.log"
        conf = {**local_conf(SparkConfig(master="local[2]", jvm_options=SHORT_RUN_JVM)), **SHORT_RUN_CONF}
        conf |= {"spark.sql.shuffle.partitions": "2", "spark.local.dir": str(folder / "local")}
        if not delta:
            conf = {key: said for key, said in conf.items() if "delta" not in f"{key} {said}".lower()}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        conf |= {"spark.connect.grpc.binding.port": str(self._port), "spark.connect.grpc.binding.address": "127.0.0.1"}
        self._settings = folder / "server.conf"
        self._settings.write_text("".join(f"{key} {said}\n" for key, said in conf.items()))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"sc://127.0.0.1:{self._port}"

    def start(self) -> ConnectServer:
        home = Path(pyspark.__file__).parent
        submit = [str(home / "bin" / "spark-submit"), "--properties-file", str(self._settings), "--class", _CLASS]
        command = [*submit, "spark-internal"]
        if self._before:
            quoted = " ".join(f"'{part}'" for part in command)
            command = ["unshare", "--mount", "sh", "-c", f"{self._before} && exec {quoted}"]
        paths = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parent)))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log,
                env={**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": paths},
            )  # fmt: skip
        end = time.monotonic() + 120
        while True:
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < end, f"it does not listen: {self._log.read_text()[-3000:]}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return self
            time.sleep(0.2)

    def kill(self) -> None:
        """kill -9, with its Python workers."""
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self._process.wait(60)
        psutil.wait_procs(children, timeout=60)


@contextlib.contextmanager
def connect_server(folder: Path, **options: object) -> Iterator[ConnectServer]:
    """A server for a `with` block."""
    server = ConnectServer(folder, **options).start()  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.kill()
