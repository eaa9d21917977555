"""How well this project trains, and how fast: everything that README.md beside this file has a table of."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import classification_net
import train

SCRIPTS = {1: classification_net, 2: train}


def call(script: ModuleType, *options: object, log: Path) -> None:
    """Run a script's `main` in this process; what it prints is added to `log`. Raises what it raises."""
    gc.collect()  # an earlier run may still hold its folder's lock, and memory
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file):
        script.main(script.get_parser().parse_args([str(option) for option in options]))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in [columns, ["---"] * len(columns), *rows])
