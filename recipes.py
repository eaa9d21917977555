"""Compare training recipes over several seeds: the tables of the README.

    python recipes.py --data DIR --image-size 96                     # defaults and plain description, seeds 0 1 2
    python recipes.py --data DIR --image-size 96 --arms all          # and each choice taken back alone
    python recipes.py --data DIR --image-size 96 --arms defaults --seeds 0 1 2 3 4 5 6 7 8 9

Each arm is the two stage scripts with some options; what is finished is not run again. Runs lie in OUT/<arm>/<seed>.
The numbers are of the test split, mean and spread (largest minus smallest) over the seeds; choose by the validation
split (--split val), look at the test split once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from utils import UserError, read_json, run_script, write_whole

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
    """The options of the comparison; what it does not know goes to both stage scripts."""
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
    parser.add_argument("--options", default="", metavar="'...'", help="further options for both stages, in quotes")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run every arm with every seed; print the tables and write them to OUT/tables.md."""
    names = list(ARMS) if args.arms == ["all"] else args.arms
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise UserError(f"--arms {unknown[0]}: there is no such arm; take some of {', '.join(ARMS)}")
    tables = []
    for stage in ("1", "2") if args.stages == "both" else (args.stages,):
        rows = {}
        for name in names:
            if stage == "1" and name != "defaults" and not ARMS[name][0]:
                continue
            found = [measure(args, name, seed, stage) for seed in args.seeds]
            rows[name] = [summary([row[column] for row in found]) for column in COLUMNS]
        tables.append(markdown(f"Stage {stage}, {args.split} split, seeds {args.seeds}", rows))
        print(tables[-1])
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "tables.md", "\n".join(tables))


def measure(args: argparse.Namespace, name: str, seed: int, stage: str) -> dict[str, float | None]:
    """Train (if that is not done yet) and evaluate one arm with one seed; returns the run's numbers."""
    own = ARMS[name][0] != ""
    stage1 = args.out / (name if own else "defaults").replace(" ", "-") / str(seed) / "stage1"
    common = ["--data", args.data, "--resume", "--seed", str(seed), *args.options.split()]
    call("classification_net.py", *common, "--run", stage1, "--image-size", args.image_size, "--epochs", args.epochs[0],
         *ARMS[name][0].split())  # fmt: skip
    run = stage1
    if stage == "2":
        run = args.out / name.replace(" ", "-") / str(seed) / "stage2"
        call("train.py", *common, "--stage1", stage1, "--run", run, "--epochs", args.epochs[1], *ARMS[name][1].split())
    out = run / f"evaluation-{args.split}"
    call("evaluate.py", run, "--split", args.split, "--out", out, "--no-tsne", "--no-visdom")
    return read_json(out / "metrics.json")


def call(script: str, *options: object) -> None:
    """Run one of the project's scripts. Raises `UserError` if it fails; it has said why."""
    done = subprocess.run([sys.executable, str(HERE / script), *map(str, options)], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"{script} {' '.join(map(str, options))}: ended with status {done.returncode}")


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
