"""The newest commits of a Delta table, read from its log where the operating system opens it.

`DESCRIBE HISTORY` says the same and is a Spark job, some tenths of a second each time; a run looks at commits some
forty times. The layout of the log is that of the Delta transaction log protocol: a JSON file for each version, whose
action `commitInfo` has the operation and the metadata, and whose modification time is the commit's time.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mig_spark.errors import InputError
from mig_spark.lakehouse.commits import Commit, said_in
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.storage import Files

_COMMIT_FILE = re.compile(r"[0-9]{20}\.json")
#: Bytes in which `commitInfo` is looked for first; it is the first action that Delta writes, and a commit may have
#: many megabytes.
_HEAD = 1 << 16


#: A version's actions, or a checkpoint of all up to it.
_OF_A_VERSION = re.compile(r"[0-9]{20}\.(json|checkpoint\..*)")


def has_commits(files: Files, table: str) -> bool:
    """Whether a folder is a Delta table: its log has a version."""
    log = f"{table}/_delta_log"
    return files.exists(log) and any(_OF_A_VERSION.fullmatch(f.name) for f in files.children(log))


def newest_commits(files: Files, table: str, last: int) -> list[Commit] | None:
    """The last commits of a table in a folder, newest first.

    Args:
        files: opens the folder.
        table: its path.
        last: how many.

    Returns:
        None where this cannot be told from here: the operating system does not open the folder, or the log is not as
        expected. Then `DESCRIBE HISTORY` has to be asked.
    """
    if files.os_path(table) is None:
        return None
    try:
        log = [f for f in files.children(f"{table}/_delta_log") if _COMMIT_FILE.fullmatch(f.name)]
        newest = sorted(log, key=lambda f: f.name, reverse=True)[:last]
        found = [_commit(files, file) for file in newest]
    except InputError:
        return None
    commits = [commit for commit in found if commit is not None]
    return commits if commits and len(commits) == len(found) else None


def _commit(files: Files, file: FileInfo) -> Commit | None:
    head = files.head(file, _HEAD)
    said = _commit_info(head)
    if said is None and file.size > len(head):
        said = _commit_info(files.read(file.path))
    # with in-commit timestamps the file's own time does not count
    if said is None or "inCommitTimestamp" in said:
        return None
    return Commit(int(file.name[:20]), said_in(said.get("userMetadata")), str(said.get("operation")), file.modified)


def _commit_info(content: bytes) -> dict[str, Any] | None:
    for line in content.splitlines():
        if line.startswith(b'{"commitInfo"'):
            try:
                said = json.loads(line).get("commitInfo")
            except ValueError:
                return None
            return said if isinstance(said, dict) else None
    return None
