"""Compare training recipes over several seeds: the tables of the README.

    python recipes.py --data DIR --image-size 96                     # defaults and plain description, seeds 0 1 2
    python recipes.py --data DIR --image-size 96 --arms all          # and every other arm
    python recipes.py --data DIR --image-size 96 --arms defaults --seeds 0 1 2 3 4 5 6 7 8 9
    python recipes.py --data DIR --options "--amp off --no-visdom"   # for all runs

Each arm is the two stage scripts with some options. Runs lie in OUT/<arm>/<seed>, with what the scripts say in a .log
beside them; what is finished is not run again, what was stopped goes on. Of a finished run `last.pt` is deleted, which
leaves some 250 MB of AlexNet for each stage. The numbers are of the test split, mean and half the spread over the
seeds; every call adds its tables to OUT/tables.md. Choose by the validation split (--split val), look at the test split
once.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

import classification_net
import train
from run_folder import CONFIG, FREE_OPTIONS, LAST, METRICS
from utils import UserError, read_json, run_script

HERE = Path(__file__).resolve().parent
# What the public description says, as far as it says anything, and what it leaves at the library's own choice.
PLAIN_STAGE1 = "--colours unit --init torchvision --rate-width 0 --dropout 0.5 --crop-area 1 --warm-up 0 --decay none"
PLAIN_STAGE2 = "--no-normalise --momentum 0 --average all --crop-area 1 --warm-up 0 --decay none"

# For each arm the options of stage 1 and of stage 2; an arm that differs in stage 2 alone starts from the defaults' stage 1.
ARMS: dict[str, tuple[str, str]] = {
    "defaults": ("", ""),
    "plain description": (PLAIN_STAGE1, PLAIN_STAGE2),
    "colours from 0 to 1": ("--colours unit", ""),
    "torchvision's initialisation": ("--init torchvision", ""),
    "He's initialisation": ("--init he", ""),
    "one rate for all layers": ("--rate-width 0", ""),
    "dropout 0.5": ("--dropout 0.5", ""),
    "no crops": ("--crop-area 1", "--crop-area 1"),
    "no warm-up": ("--warm-up 0", "--warm-up 0"),
    "constant rate": ("--decay none", "--decay none"),
    "embeddings as they are": ("", "--no-normalise"),
    "embeddings of length 1": ("", "--length 1"),
    "mean over all triplets": ("", "--average all"),
    "no momentum": ("", "--momentum 0"),
    "momentum 0.975": ("", "--momentum 0.975"),
    "mining in the batch": ("", "--mining batch"),
    "batch norm (alexnet_bn)": ("--arch alexnet_bn", ""),
}
COLUMNS = ("accuracy", "map", "map_cross_content", "content_precision_at_1")


def get_parser() -> argparse.ArgumentParser:
    """The options of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder")
    parser.add_argument("--image-size", default="224", metavar="PIXELS", help="as for stage 1; default %(default)s")
    parser.add_argument(
        "--arms", nargs="+", default=["defaults", "plain description"], metavar="ARM",
        help=f"all, or some of: {', '.join(ARMS)}; default: the first two",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default 0 1 2")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="default %(default)s")
    parser.add_argument("--stages", choices=("1", "2", "both"), default="both", help="default %(default)s")
    parser.add_argument("--epochs", nargs=2, default=("30", "50"), metavar=("E1", "E2"), help="default 30 50")
    parser.add_argument("--out", default="runs/recipes", type=Path, metavar="DIR", help="default %(default)s")
    parser.add_argument("--options", default="", metavar="'...'", help="further options for both stages, in quotes: "
                        "--options=--compile, --options '--amp off'")  # fmt: skip
    return parser


def main(args: argparse.Namespace) -> None:
    """Run every arm with every seed; print the tables and add them to OUT/tables.md."""
    names = list(ARMS) if args.arms == ["all"] else args.arms
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise UserError(f"--arms {unknown[0]}: there is no such arm; take some of {', '.join(ARMS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in ("1", "2") if args.stages == "both" else (args.stages,):
        rows = {}
        for name in names:
            if stage == "1" and name != "defaults" and not ARMS[name][0]:
                continue
            found = [measure(args, name, seed, stage) for seed in args.seeds]
            rows[name] = [summary([row[column] for row in found]) for column in COLUMNS]
        title = f"Stage {stage}, {args.split} split, {args.image_size} px, {'+'.join(args.epochs)} epochs, seeds {args.seeds}"
        table = markdown(title, rows)
        print(table)
        with (args.out / "tables.md").open("a") as file:
            file.write(table + "\n")


def measure(args: argparse.Namespace, name: str, seed: int, stage: str) -> dict[str, float | None]:
    """Train (if that is not done yet) and evaluate one arm with one seed; returns the run's numbers."""
    own = ARMS[name][0] != ""
    stage1 = args.out / (name if own else "defaults").replace(" ", "-") / str(seed) / "stage1"
    common = ["--data", args.data, "--seed", str(seed), *args.options.split()]
    finish(stage1, classification_net, [
        *common, "--image-size", args.image_size, "--epochs", args.epochs[0], *ARMS[name][0].split()
    ])  # fmt: skip
    run = stage1
    if stage == "2":
        run = args.out / name.replace(" ", "-") / str(seed) / "stage2"
        options = [*common, "--stage1", str(stage1), "--epochs", args.epochs[1], *ARMS[name][1].split()]
        finish(run, train, options)
    out = run / f"evaluation-{args.split}"
    call("evaluate.py", run, "--split", args.split, "--out", out, "--no-tsne", "--no-visdom", log=run)
    return read_json(out / "metrics.json")


def finish(run: Path, script: ModuleType, options: list[str]) -> None:
    """Train a stage to its end, if it is not there yet. Raises `UserError` for a run of other settings or data."""
    wanted = script.get_parser().parse_args(options)
    if (run / CONFIG).exists():
        config = read_json(run / CONFIG)
        has = {**config["settings"], "data": config["data"]["folder"]}
        wants = {name: value for name, value in vars(wanted).items() if name not in FREE_OPTIONS}
        for name, value in {**wants, "data": str(Path(wanted.data).resolve())}.items():
            if has.get(name) != value:
                raise UserError(f"{run}: has {name} {has.get(name)}, not {value}; choose another --out")
    if count_epochs(run) < wanted.epochs:
        call(f"{script.__name__}.py", *options, "--resume", "--run", run, log=run)
    (run / LAST).unlink(missing_ok=True)


def count_epochs(run: Path) -> int:
    """How many epochs a run has behind it."""
    if not (run / METRICS).exists():
        return 0
    with (run / METRICS).open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def call(script: str, *options: object, log: Path) -> None:
    """Run one of the project's scripts, its output in LOG.log. Raises `UserError` if it fails; it has said why."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".log").open("a") as file:
        process = subprocess.Popen([sys.executable, str(HERE / script), *map(str, options)], stdout=file)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too, and saves
            raise
    if status:
        raise UserError(f"{script} {' '.join(map(str, options))}: ended with status {status}")


def summary(values: list[float | None]) -> str:
    """Mean and spread of the seeds' numbers, as a cell of a table."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f} ± {np.ptp(known) / 2:.3f}" if known else "-"


def markdown(title: str, rows: dict[str, list[str]]) -> str:
    """A Markdown table."""
    lines = [
        f"{title} (mean ± half the spread)",
        "",
        "| arm | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())]) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
