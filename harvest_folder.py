"""The folder that harvest.py fills: what earlier runs left in it, what failed, and the index at the end.

A picture counts as there when it lies in a style's folder, whole, under its number: it was verified before it was moved
there. Failures are kept in a journal. So nothing is asked for twice, wherever a run was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np

from bam import Candidates, find_rows, read_details
from download import SUFFIXES, Failure, disk_error
from utils import UserError, read_json, write_json, write_whole

INDEX_HEADER = ("path", "style", "content", "group", "mid", "url", "license", "style_score")
PICTURE_NAME = re.compile(rf"(-?[0-9]{{1,18}})({'|'.join(map(re.escape, SUFFIXES.values()))})")
# So many failures one after the other that may pass: it is the network that is down, not the pictures.
OUTAGE = 200


class Job(NamedTuple):
    """A picture to be fetched: its row among the candidates, the style that it is for, and its address."""

    row: int
    style: int
    url: str


@dataclass
class Harvest:
    """A folder while it is being filled.

    `have` says where the picture of a row lies; `failed` which rows cannot be had, and why: the entries of
    `failed.jsonl`. `doubtful` are failures that may be the network's and are not yet written down.
    """

    candidates: Candidates
    out: Path
    have: dict[int, Path] = field(default_factory=dict)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    doubtful: list[int] = field(default_factory=list)

    @property
    def hidden(self) -> Path:
        """The folder for what a restart needs."""
        return self.out / ".harvest"

    @property
    def journal(self) -> Path:
        """One line of JSON for each picture that failed."""
        return self.hidden / "failed.jsonl"

    @property
    def parts(self) -> Path:
        """The folder for downloads that are not yet verified."""
        return self.hidden / "parts"


@contextlib.contextmanager
def own_folder(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Keep other harvests out of the folder, and out of an older harvest with other options."""
    hidden = out / ".harvest"
    try:
        if not hidden.exists() and out.exists():
            # Somebody else's picture that is called like one of ours would be taken for it, or deleted.
            foreign = [path.name for path in out.glob("[!.]*") if path.is_dir() or path.name == "index.csv"]
            if foreign:
                raise UserError(f"{out}: holds what harvest.py did not make ({min(foreign)}); give another --out")
        hidden.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(hidden / "lock")
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(
            f"{out}: another harvest.py is filling this folder; wait for it or give another --out"
        ) from error
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give another folder") from error
    try:
        file = hidden / "settings.json"
        if file.exists():
            check_settings(out, read_json(file), settings)
        else:
            write_json(file, settings)
        yield
    except OSError as error:
        raise disk_error(Path(error.filename or out), error) from error
    finally:
        lock.release()


def check_settings(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to go on with options, or a database, that would choose or store other pictures."""
    changed = [name for name in new if name != "selection" and old.get(name) != new[name]]
    if changed:
        was = ", ".join(f"--{name.replace('_', '-')} {old.get(name)} (now {new[name]})" for name in changed)
        raise UserError(f"{out}: holds a harvest made with {was}; give the same options again or another --out")
    if old.get("selection") != new["selection"]:
        raise UserError(f"{out}: holds a harvest from another database; give that one with --db, or another --out")


def read_state(harvest: Harvest, retry_failed: bool) -> None:
    """Find out what earlier runs left: pictures in the style folders, failures in the journal. Clears the rest."""
    shutil.rmtree(harvest.parts, ignore_errors=True)
    harvest.parts.mkdir()
    for folder in (harvest.out, harvest.hidden):
        for part in folder.glob(".*.part"):  # of `write_whole`
            part.unlink()
    rows = {}
    for style in harvest.candidates.styles:
        (harvest.out / style).mkdir(exist_ok=True)
        with os.scandir(harvest.out / style) as entries:
            for entry in entries:
                if match := PICTURE_NAME.fullmatch(entry.name):
                    rows[Path(entry.path)] = int(match[1])
    place, known = find_rows(harvest.candidates.mid, np.fromiter(rows.values(), np.int64, len(rows)))
    found = [path for path, here in zip(rows, known.tolist(), strict=True) if here]
    harvest.have = dict(zip(place.tolist(), found, strict=True))
    entries = []
    if harvest.journal.exists():
        # A line without its end is what a power cut left of the last one.
        lines = harvest.journal.read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            entries = [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError as error:
            raise UserError(
                f"{harvest.journal}: is damaged ({error}); delete it to ask for its pictures again"
            ) from error
        if retry_failed:
            entries = [entry for entry in entries if not entry["temporary"]]
        if len(entries) < len(lines):
            write_whole(harvest.journal, "".join(json.dumps(entry) + "\n" for entry in entries))
    place, _ = find_rows(harvest.candidates.mid, np.array([entry["mid"] for entry in entries], np.int64))
    harvest.failed = dict(zip(place.tolist(), entries, strict=True))


def note_outcome(harvest: Harvest, job: Job, task: asyncio.Task[Path]) -> bool:
    """Note how a download ended; return whether the picture is there.

    Failures that may pass are written down only once some server has given a clear answer after them. Raises
    `UserError` after `OUTAGE` of them in a row: it would use up the spares for nothing.
    """
    try:
        harvest.have[job.row] = task.result()
    except Failure as failure:
        mid = int(harvest.candidates.mid[job.row])
        reason = {"reason": failure.reason, "temporary": failure.temporary}
        harvest.failed[job.row] = {"mid": mid, **reason, "url": job.url}
        harvest.doubtful.append(job.row)
        if failure.temporary:
            if len(harvest.doubtful) >= OUTAGE:
                raise UserError(
                    f"{harvest.out}: the last {OUTAGE} pictures all failed for want of an answer ({failure.reason}); "
                    "check the network or lower --workers, then run the same command again: nothing is lost"
                ) from failure
            return False
    note_failures(harvest)
    return job.row in harvest.have


def note_failures(harvest: Harvest) -> None:
    """Append the failures not yet written down to the journal: no later run asks for these pictures again."""
    if not harvest.doubtful:
        return
    try:
        with harvest.journal.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(harvest.failed[row]) + "\n" for row in harvest.doubtful))
    except OSError as error:
        raise disk_error(harvest.journal, error) from error
    harvest.doubtful.clear()


# The result.


def finish(harvest: Harvest, connection: sqlite3.Connection, chosen: dict[int, tuple[int, int]]) -> None:
    """Bring every picture into its style's folder, write the index, and remove pictures that it does not list."""
    candidates = harvest.candidates
    details = read_details(connection, candidates.mid[list(chosen)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(INDEX_HEADER)
    # By style, then content with unknown ones last; within a cell the order of the draft, which is surest first.
    for row, (style, content) in sorted(chosen.items(), key=lambda item: (item[1][0], item[1][1] % 1000)):
        mid = int(candidates.mid[row])
        url, project, license_text = details[mid]
        target = harvest.out / candidates.styles[style] / harvest.have[row].name
        if harvest.have[row] != target:
            harvest.have[row] = harvest.have[row].replace(target)
        path = target.relative_to(harvest.out).as_posix()
        content_name = candidates.contents[content] if content >= 0 else ""
        score = candidates.score[row, style]
        writer.writerow((path, candidates.styles[style], content_name, project or f"mid-{mid}", mid, url, license_text,
                         "" if np.isinf(score) else repr(float(score))))  # fmt: skip
    write_whole(harvest.out / "index.csv", text.getvalue())
    for row in harvest.have.keys() - chosen.keys():
        harvest.have.pop(row).unlink(missing_ok=True)
    shutil.rmtree(harvest.parts, ignore_errors=True)
