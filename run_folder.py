"""The run folder: everything that a training run leaves behind, readable without the project.

config.json   every setting, the class order, versions, the data's fingerprint, the device
split.csv     which picture was in which split
metrics.csv   one row an epoch
curves.png    the same as curves
best.pt       the weights of the best validation epoch and what is needed to rebuild the net
last.pt       all that is needed to go on
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from filelock import FileLock, Timeout

from dataset import Collection
from networks import load_safely
from utils import UserError, read_json, write_json, write_whole

CONFIG, SPLIT, METRICS, CURVES, BEST, LAST = (
    "config.json", "split.csv", "metrics.csv", "curves.png", "best.pt", "last.pt"
)  # fmt: skip
BEST_FORMAT, LAST_FORMAT = "sketching-with-style weights 1", "sketching-with-style state 1"

# Options that may differ when a run goes on: they change where and how fast, not what is computed. Paths may have
# moved; the data's fingerprint tells whether it is still the same data.
FREE_OPTIONS = frozenset((
    "run", "resume", "data", "filenames", "labels", "triplets", "stage1", "device", "workers", "cache", "cache_dir",
    "compile", "visdom", "visdom_server", "visdom_port", "env", "checkpoint_minutes",
))  # fmt: skip
# Files that are read again later, from wherever that is started; a run that goes on takes its own unless told others.
INPUTS = ("filenames", "labels", "triplets", "stage1")


def settle_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Decide what a start in `args.run` means; return the options that hold.

    A new folder, or one in which nothing was trained: the options as given. With `--resume` on a run: the run's own
    options for all that changes what is computed, and its own data and files where no others are given.
    Raises `UserError` for a folder that holds another run, and for options that contradict the run's.
    """
    folder = Path(args.run)
    if not (folder / CONFIG).exists():
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        foreign = {name for name in there if not name.startswith(".")} - {SPLIT}  # written just before the config
        if foreign or (folder.exists() and not folder.is_dir()):
            raise UserError(f"--run {folder}: exists but holds no run; choose another folder")
        return args
    if not args.resume and has_begun(folder):
        raise UserError(f"--run {folder}: holds a run already; go on with it by --resume, or choose another --run")
    stored, data = (read_json(folder / CONFIG).get(name) for name in ("settings", "data"))
    if not isinstance(stored, dict) or not isinstance(data, dict):
        raise UserError(f"{folder / CONFIG}: holds no settings; it is not from this project, choose another --run")
    if not has_begun(folder):
        return args
    checked = check_settings(stored, parser, folder / CONFIG)
    settled = argparse.Namespace(**vars(args))
    own = {name: stored.get(name) for name in INPUTS} | {"data": data.get("folder")}
    for name, value in vars(args).items():
        if name in own and isinstance(own[name], str) and value == parser.get_default(name):
            setattr(settled, name, own[name])
        if name in FREE_OPTIONS or name not in stored:
            continue
        if value != checked[name] and value != parser.get_default(name):
            raise UserError(
                f"--{name.replace('_', '-')} {value}: the run in {folder} was started with {checked[name]}; leave the "
                f"option out, or choose a new --run"
            )
        setattr(settled, name, checked[name])
    kept = [
        f"--{name.replace('_', '-')} {value}" for name, value in checked.items() if value != parser.get_default(name)
    ]
    if kept and os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(f"the run goes on with the options that it was started with: {' '.join(kept)}")
    return settled


def has_begun(folder: Path) -> bool:
    """Whether a run folder holds more than the description of a run, which is all that a refused start leaves."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return any(not name.startswith(".") and name not in (CONFIG, SPLIT) for name in there)


def check_settings(stored: dict[str, Any], parser: argparse.ArgumentParser, where: Path) -> dict[str, Any]:
    """The settings of a `config.json`, each as the parser would have it. Raises `UserError` for an impossible value."""
    checked = {}
    for action in parser._actions:
        if action.dest not in stored or action.dest in FREE_OPTIONS:
            continue
        value = stored[action.dest]
        try:
            if isinstance(action.default, bool) or value is None:
                fits = type(value) is type(action.default)
            else:
                converted = (action.type or str)(str(value))
                fits = converted == value and not isinstance(value, bool)
                fits = fits and type(value) in (str, int, float) and (action.choices is None or value in action.choices)
        except (ValueError, TypeError, OverflowError, argparse.ArgumentTypeError):
            fits = False
        if not fits:
            raise UserError(f"{where}: setting {action.dest} is {str(value)[:40]!r}, which is no value for it")
        checked[action.dest] = value
    return checked


def lock_run(folder: Path) -> FileLock:
    """Make the run folder and keep every other process out of it for as long as this one lives."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"--run {folder}: another process is training in it; wait for it, or choose another") from error
    except OSError as error:
        raise UserError(f"--run {folder}: cannot be written: {error.strerror or error}") from error
    for left_over in folder.glob(".*.part"):  # from a process that was killed while it wrote
        left_over.unlink(missing_ok=True)
    return lock


def describe_run(
    args: argparse.Namespace, stage: int, label: str, collection: Collection, device: torch.device, precision: str
) -> dict[str, Any]:
    """What `config.json` says of a run, as plain data."""
    return {
        "stage": stage,
        "label": label,
        "classes": list(collection.styles if label == "style" else collection.contents),
        "styles": list(collection.styles),
        "contents": list(collection.contents),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        | {name: str(Path(vars(args)[name]).resolve()) for name in INPUTS if vars(args).get(name)},
        "data": {
            "folder": str(collection.folder.resolve()),
            "fingerprint": collection.fingerprint(),
            "pictures": {split: len(collection.rows(split)) for split in ("train", "val", "test")},
        },
        "device": describe_device(device),
        "precision": precision,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def describe_device(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def begin_or_continue(folder: Path, config: dict[str, Any], collection: Collection) -> None:
    """Write `config.json` and `split.csv` of a new run; of a run that goes on, check that the data are the same."""
    if not has_begun(folder):
        write_split(folder / SPLIT, collection)
        write_json(folder / CONFIG, config)  # last: a folder with a config is a run
        return
    if not config["settings"]["resume"]:  # two were started at once, and the other has ended already
        raise UserError(f"--run {folder}: holds a run by now; go on with it by --resume, or choose another --run")
    data = read_json(folder / CONFIG).get("data")
    before = data.get("fingerprint") if isinstance(data, dict) else None
    if before != config["data"]["fingerprint"]:
        raise UserError(
            f"{collection.source}: is not the data that the run in {folder} was started with (pictures, labels or "
            f"splits differ); restore it, or choose a new --run"
        )


# Tables.


def write_split(path: Path, collection: Collection) -> None:
    """Write every picture's path, style, content, group and split, and the index's further columns, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["path", "style", "content", "group", "split", *collection.extra])
    for row, name in enumerate(collection.paths):
        group = "" if collection.group[row] == f"path:{name}" else collection.group[row]
        cells = [name, collection.style_name(row), collection.content_name(row), group, collection.split[row]]
        cells += [column[row] for column in collection.extra.values()]
        # Python's writer leaves a carriage return unquoted, at which its reader would then begin a new line.
        (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    write_whole(path, text.getvalue())


def read_split(folder: Path) -> dict[str, str]:
    """The split of every picture of a run, by its path."""
    path = folder / SPLIT
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["path"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path}: is missing or unreadable; is {folder} a run of this project?") from error


def write_metrics(path: Path, columns: tuple[str, ...], history: list[dict[str, float]]) -> None:
    """Write one row an epoch as CSV; a value that is not known stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in history:
        writer.writerow("" if row[name] != row[name] else f"{row[name]:.6g}" for name in columns)
    write_whole(path, text.getvalue())


# Checkpoints.


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of plain data and tensors, whole or not at all."""

    def save(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch's writer reports a full disk so; what it wrapped, if anything, says more.
            raise OSError(getattr(error.__cause__, "errno", None) or 28, "no space left, or not writable") from error

    write_whole(path, save)


def read_checkpoint(path: Path, form: str) -> dict[str, Any]:
    """Read a checkpoint of a run safely. Raises `UserError` for one that is missing, damaged, or not of `form`."""
    content = load_safely(path)
    if content.get("format") != form:
        raise UserError(f"{path}: is not what is expected here ('{form}'); is it a checkpoint of something else?")
    return content
