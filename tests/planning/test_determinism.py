"""The same request gives the same bytes of JSON, whatever the hash seed, the locale, the thread and the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advisor import advise
from advisor.render.json import dumps

ROOT = Path(__file__).parents[2]
JOBS = [
    ["--gpu", "v100-16", "--train", "7b", "--batch", "8", "--keep", "seq,optimizer"],
    ["--gpu", "rtx-4090", "--infer", "llama-3.1-8b", "--seq", "64k", "--batch", "8", "--engine", "vllm"],
]


def printed(job: list[str], folder: Path, **environment: str) -> bytes:
    command = [sys.executable, "-m", "advisor", *job, "--format", "json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).stdout


@pytest.mark.parametrize("job", JOBS, ids=["train", "infer"])
def test_hash_seed_locale_and_folder_change_no_byte(job: list[str], tmp_path: Path) -> None:
    """Sets have another order with every seed; numbers have other separators in other places."""
    utf8 = {"PYTHONIOENCODING": "utf-8"}
    first = printed(job, ROOT, PYTHONHASHSEED="0", **utf8)
    assert first.startswith(b"{")
    assert printed(job, tmp_path, PYTHONHASHSEED="4242", LC_ALL="de_DE.UTF-8", TZ="Asia/Seoul", COLUMNS="200", **utf8) == first


def test_threads_get_the_same_plan() -> None:
    """Eight at once, each with its own search."""
    job = {"gpu": "v100-16", "train": "7b", "batch": 8}
    alone = dumps(advise(**job).to_dict())
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: dumps(advise(**job).to_dict()), range(16))) == {alone}
