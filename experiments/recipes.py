"""How well training recipes do over several seeds: the defaults, the plain description, single departures taken back.

    python -m experiments.recipes --data DIR --image-size 96                    # defaults and plain, seeds 0 1 2
    python -m experiments.recipes --data DIR --image-size 96 --split val --arms all
    python -m experiments.recipes --data DIR --image-size 96 --split val --arms crop_area first_weights=he momentum=0.975

An arm is `defaults`, `plain` (the option --plain), or an entry of DEPARTURES, the table at the head of each stage's
script: that entry's second column, or the value after `=`, in whichever stage has it; `all` are the first two and every
entry. An arm that differs in stage 2 alone starts from the defaults' stage 1.

Runs lie in OUT/<arm>/<seed>/, with what they say in a .log beside them. What is finished is not run again, what was
stopped goes on. A finished run keeps no resume.pt. Choose by --split val, and look at the test split once.
"""

from __future__ import annotations

import argparse
import ast
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from dataset import read_collection
from experiments import SCRIPTS, call, markdown
from retrieval import evaluate
from utils import METRICS, RESUME, UserError, read_table, run_script, write_whole

COLUMNS = ["accuracy", "map", "map_cross_content", "content_precision_at_1"]


def get_parser() -> argparse.ArgumentParser:
    """The options of the comparison."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.recipes", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder of pictures")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="of stage 1; default 224")
    add("--arms", nargs="+", default=["defaults", "plain"], metavar="ARM", help="default: defaults plain")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default 0 1 2")
    add("--split", choices=("val", "test"), default="test", help="what the table is measured on; default test")
    add("--stages", choices=("1", "2", "both"), default="both", help="of which the table is; default both")
    add("--epochs", nargs=2, type=int, default=[30, 50], metavar=("E1", "E2"), help="of the stages; default 30 50")
    add("--out", type=Path, default=Path("runs/recipes"), metavar="DIR", help="default runs/recipes")
    add("--options", default="", metavar="'...'", help="further options of both: --options='--amp off --no-visdom'")
    add("--stage1-options", default="", metavar="'...'", help="those of stage 1: --stage1-options='--arch resnet18'")
    return parser


def main(args: argparse.Namespace) -> None:
    """Train what is not there yet and print a table for each stage. Raises `UserError`."""
    args.arms = ["defaults", *changes("plain", 1) | changes("plain", 2), "plain"] if args.arms == ["all"] else args.arms
    for arm in args.arms:
        if arm != "defaults" and not changes(arm, 1) | changes(arm, 2):
            names = ", ".join(SCRIPTS[1].DEPARTURES | SCRIPTS[2].DEPARTURES)
            raise UserError(f"--arms {arm}: changes nothing; take defaults, plain, NAME or NAME=VALUE of {names}")
    claim(args)
    for stage in SCRIPTS if args.stages == "both" else (int(args.stages),):
        # After stage 1, arms that differ in stage 2 alone are the defaults.
        arms = [arm for arm in args.arms if stage == 2 or arm == "defaults" or changes(arm, 1)]
        found = {arm: [measure(args, arm, seed, stage) for seed in args.seeds] for arm in arms}
        rows = [[arm, *(summary([one.get(name) for one in runs]) for name in COLUMNS)] for arm, runs in found.items()]
        title = f"Stage {stage}, {args.split} split, epochs {args.epochs[:stage]}, seeds {args.seeds}"
        print(f"\n{title}, mean ± half the spread:\n\n{markdown(['', *COLUMNS], rows)}")


def changes(arm: str, stage: int) -> dict[str, Any]:
    """What an arm changes in a stage's table of departures: entries and their values."""
    name, _, value = arm.partition("=")
    with suppress(ValueError, SyntaxError):  # a number, True, False or None; anything else is text
        value = ast.literal_eval(value)
    table = {entry: columns for entry, columns in SCRIPTS[stage].DEPARTURES.items() if arm == "plain" or entry == name}
    new = {entry: value if "=" in arm else plain for entry, (_, plain) in table.items()}
    return {entry: value for entry, value in new.items() if value != table[entry][0]}


def claim(args: argparse.Namespace) -> None:
    """Write down what all runs in OUT have in common. Raises `UserError` where it holds others."""
    common = {name: getattr(args, name) for name in ("image_size", "epochs", "options", "stage1_options")}
    common |= {script.__name__: script.DEPARTURES for script in SCRIPTS.values()}
    common["data"] = read_collection(args.data).facts["fingerprint"]
    text, note = json.dumps(common, indent=2), args.out / "recipes.json"
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise UserError(f"--out {args.out}: holds runs of other data, options or departures; choose another folder")
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(note, text.encode())


def measure(args: argparse.Namespace, arm: str, seed: int, stage: int) -> dict[str, float | None]:
    """Train and evaluate one arm with one seed, as far as that is not done yet: what metrics.json says."""
    stage1 = args.out / (arm if changes(arm, 1) else "defaults") / str(seed) / "stage1"
    run = stage1 if stage == 1 else args.out / arm / str(seed) / "stage2"
    finish(args, arm, 1, stage1, "--seed", seed, "--image-size", args.image_size, *args.stage1_options.split())
    if stage == 2:
        finish(args, arm, 2, run, "--seed", seed, "--stage1", stage1)
    out = run.parent / f"evaluation-{args.split}"
    metrics = out / run.name / "metrics.json"
    if not metrics.exists():
        call(evaluate, run, "--split", args.split, "--out", out, log=run.with_suffix(".log"))
    return json.loads(metrics.read_text(encoding="utf-8"))


def finish(args: argparse.Namespace, arm: str, stage: int, run: Path, *options: object) -> None:
    """Train a stage to its end, if that is not done yet."""
    epochs, log = args.epochs[stage - 1], run.with_suffix(".log")
    done = len(read_table(run / METRICS)) if (run / METRICS).exists() else 0
    if done == epochs and not (run / RESUME).exists():
        return
    print(f"training {run}; see {log}")
    options = ("--data", args.data, "--run", run, "--resume", "--epochs", epochs, *options, *args.options.split())
    new = {name: (value, value) for name, value in changes(arm, stage).items()}
    with patch.dict(SCRIPTS[stage].DEPARTURES, new):
        call(SCRIPTS[stage], *options, *["--plain"] * (arm == "plain"), log=log)
    (run / RESUME).unlink()


def summary(values: list[float | None]) -> str:
    """Mean and half the spread of the seeds' numbers, as a cell of a table; empty where there are none."""
    return "" if None in values else f"{np.mean(values):.3f} ± {np.ptp(values) / 2:.3f}"


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
