"""Turn the text lists of the earlier public implementation into one index.csv.

    python -m bam.lists --filenames train_filename test_filename --labels train_labels test_labels \\
        --splits train test --order bam_filename --out DIR

A list of pictures has a path a line, below DIR; its list of labels a number a line, counted from 0. The rows come in the
order of the list that triplets count in (--order), or else in that of the lists.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset import BAM_STYLES
from utils import UserError, run_script, write_table


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bam.lists", description=__doc__, formatter_class=how)
    add = parser.add_argument
    add("--filenames", type=Path, nargs="+", required=True, metavar="FILE", help="lists of pictures")
    add("--labels", type=Path, nargs="+", required=True, metavar="FILE", help="their labels, list by list")
    splits = "their splits, list by list (default: none; training draws its own)"
    add("--splits", nargs="+", choices=("train", "val", "test"), metavar="SPLIT", help=splits)
    add("--order", type=Path, metavar="FILE", help="the list of pictures that triplets count in")
    names = "a name a line for the labels, or `bam` for BAM's styles in their order (default: they stay numbers)"
    add("--class-names", metavar="FILE", help=names)
    add("--out", type=Path, required=True, metavar="DIR", help="the pictures' folder, which index.csv is written into")
    return parser


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text of any bytes, without spaces around them and without blank lines at the end."""
    return [line.strip() for line in path.read_text("utf-8-sig", "surrogateescape").rstrip().split("\n")]


def main(args: argparse.Namespace) -> None:
    """Read the lists, check that they belong together, and write the index."""
    splits = args.splits or [""] * len(args.filenames)
    if not len(args.filenames) == len(args.labels) == len(splits):
        raise UserError("--filenames, --labels and --splits: give as many of each")
    found: dict[str, tuple[int, str]] = {}  # label and split by path
    for filenames, labels, split in zip(args.filenames, args.labels, splits, strict=True):
        paths, numbers = read_lines(filenames), read_lines(labels)
        if len(paths) != len(numbers):
            raise UserError(f"{labels}: holds {len(numbers)} labels for the {len(paths)} pictures of {filenames}")
        for line, (path, number) in enumerate(zip(paths, numbers, strict=True), 1):
            if not number.isdecimal():
                raise UserError(f"{labels}, line {line}: '{number[:60]}' is no label; labels are numbers from 0 on")
            if not path or path in found or Path(path).is_absolute():
                raise UserError(f"{filenames}, line {line}: '{path}' is no path below --out, or is listed twice")
            found[path] = int(number), split
    order = read_lines(args.order) if args.order else list(found)
    if lost := found.keys() - set(order):
        raise UserError(f"{args.order}: lacks {len(lost)} of the pictures, for example {min(lost)}")
    numbers, index = {number for number, _ in found.values()}, args.out / "index.csv"
    if index.exists():
        raise UserError(f"{index}: exists already; move it away or give another --out")
    # Zeros in front: sorted as names they are sorted as numbers.
    names = {number: f"{number:0{len(str(max(numbers)))}d}" for number in numbers}
    if args.class_names:
        names = dict(enumerate(BAM_STYLES if args.class_names == "bam" else read_lines(Path(args.class_names))))
    if numbers - names.keys():
        raise UserError(f"--class-names {args.class_names}: names no class {max(numbers)}")
    # A picture of no list keeps its place, because triplets count it.
    rows = [(path, names[found[path][0]], found[path][1]) if path in found else (path, "", "") for path in order]
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(index, ("path", "style", "split"), rows)
    print(f"{len(rows):,} pictures in {index}, {len(rows) - len(found):,} of them without a label")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
