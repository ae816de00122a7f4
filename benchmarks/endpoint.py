"""How near annotation by an endpoint comes to what the endpoint allows: requests at a time over its latency.

    python benchmarks/endpoint.py [--latency 0.05] [--rows 4000] [--concurrency 8 32 128]

A server on loopback, a process of its own, answers every request after `--latency` seconds, however many are under way.
Each line is `kind: endpoint` over rows of about 900 characters, by one task in this process and by two tasks through
Spark (`local[2]`), beside tasks x concurrency / latency, which no client can exceed. The server takes its share of the
cores.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import asyncio
import contextlib
import json
import subprocess
import time
from typing import Any


async def serve(latency: float) -> None:
    """Serve until the process is ended; the port is printed first."""
    content = json.dumps({"labels": ["one label", "another label"]})
    body = json.dumps({
        "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 20},
    }).encode()  # fmt: skip
    said = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, _, size = head.lower().partition(b"content-length:")
                await reader.readexactly(int(size.partition(b"\r\n")[0]))
                await asyncio.sleep(latency)
                writer.write(said)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def messages(row: int) -> list[dict[str, str]]:
    text = f"row {row} asks how to bake bread that keeps for a week " * 9
    return [{"role": "user", "content": text}, {"role": "assistant", "content": text}]


def one_task(config: Any, rows: int) -> float:
    """Seconds of one task for `rows` rows."""
    import pyarrow as pa

    from mig_spark.annotation.annotators import make_tagger
    from mig_spark.kernels.annotation.endpoint import Task, ask_rows

    step = make_tagger(config, None).step
    assert step is not None
    assert step.ask is not None
    batch = pa.RecordBatch.from_pylist([{"messages": messages(k)} for k in range(rows)])
    start = time.perf_counter()
    answers, _ = ask_rows(batch, step.ask, Task(tasks=1))
    seconds = time.perf_counter() - start
    failed = [answer for answer in answers if answer.error]
    assert not failed, failed[0]
    return seconds


def two_tasks(spark: Any, config: Any, rows: int) -> float:
    """Seconds of a job of two tasks for `rows` rows in all."""
    from mig_spark.annotation.annotators import tag_rows

    df = spark.createDataFrame(
        [(k, messages(k)) for k in range(rows)], "n int, messages array<struct<role:string,content:string>>"
    )
    df = df.repartition(2, "n").cache()
    df.count()
    # workers of Python start, and import what they need
    tag_rows(df.limit(64).repartition(2), config).write.format("noop").mode("overwrite").save()
    start = time.perf_counter()
    tag_rows(df, config).write.format("noop").mode("overwrite").save()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.latency))
        return
    from mig_spark.annotation.taggers.endpoint import EndpointTagger
    from mig_spark.config import SparkConfig
    from mig_spark.lakehouse.session import open_session

    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--latency", str(args.latency)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        print("| tasks | requests at a time in each | requests a second | the most there can be | share |")
        print("| --- | --- | --- | --- | --- |")
        with open_session(SparkConfig(master="local[2]")) as session:
            for concurrency in args.concurrency:
                config = EndpointTagger(base_url=url, model="m", concurrency=concurrency)
                alone = one_task(config, args.rows)
                for tasks, seconds in ((1, alone), (2, two_tasks(session.spark, config, args.rows))):
                    rate, most = args.rows / seconds, tasks * concurrency / args.latency
                    print(f"| {tasks} | {concurrency} | {rate:,.0f} | {most:,.0f} | {rate / most:.0%} |", flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
