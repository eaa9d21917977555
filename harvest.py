"""Get BAM: choose a balanced set of pictures out of its database, download and verify them, write the index.

    python harvest.py --db bam.sqlite --dry-run                          what would be taken
    python harvest.py --db bam.sqlite --out data/bam --per-style 11000   the method's 121,000 pictures

Stop it at any time; the same command goes on where it stopped, and the same pictures result. `bam.py` says how
pictures are chosen, `download.py` what is fetched and what is refused. The folder then holds

    DIR/index.csv         path,style,content,group,mid,url,license,style_score
    DIR/<style>/...       the pictures, named by BAM's numbers
    DIR/harvest.json      options and counts
    DIR/.harvest/         what a restart needs: the options, and which pictures failed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import sqlite3
import threading
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from PIL import Image
from tqdm import tqdm

from bam import ATTRIBUTES, Candidates, count_spares, draft, open_database, read_candidates, read_details
from dataset import BAM_CONTENTS, BAM_STYLES
from decoding import MAX_PIXELS
from download import Limits, fetch, open_session, store
from harvest_folder import Harvest, Job, finish, note_failures, note_outcome, own_folder, read_state
from utils import Interrupted, UserError, run_script, write_json

# The options that decide which pictures result, and how they are stored.
SETTINGS = ("per_style", "min_score", "include_mature", "seed", "shrink", "max_megabytes", "max_megapixels")


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(
        description="Choose a balanced set of BAM's pictures, download and verify them, and write a data folder for "
        "classification_net.py and train.py. Run the same command again to go on after an interruption."
    )
    parser.add_argument("--db", type=Path, required=True, help="BAM's SQLite file; ask BAM's owners for it")
    parser.add_argument(
        "--out", type=Path, default=Path("data/bam"), metavar="DIR", help="data folder to fill (default: data/bam)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only print what would be taken, and how many spares there are"
    )

    choice = parser.add_argument_group("which pictures")
    choice.add_argument(
        "--per-style",
        type=int,
        default=11000,
        metavar="N",
        help="pictures for each style (default: 11000, 121,000 in all; the paper took 10000)",
    )
    choice.add_argument(
        "--styles", nargs="+", metavar="STYLE", help=f"only these styles (default: all 11: {', '.join(BAM_STYLES)})"
    )
    choice.add_argument(
        "--contents",
        nargs="+",
        metavar="CONTENT",
        help="only pictures that surely show one of these (default: all 9, and pictures of no sure "
        f"content where a style runs out of them: {', '.join(BAM_CONTENTS)})",
    )
    choice.add_argument(
        "--min-score",
        type=float,
        default=0.5,
        metavar="S",
        help="a picture without a label counts as positive from this score on (default: 0.5; raise it for "
        "fewer but surer pictures, lower it where styles run short)",
    )
    choice.add_argument("--include-mature", action="store_true", help="also take pictures marked as mature content")
    choice.add_argument("--seed", type=int, default=0, help="orders pictures that are equally sure (default: 0)")

    files = parser.add_argument_group("files")
    files.add_argument(
        "--shrink",
        type=int,
        default=256,
        metavar="PIXELS",
        help="shrink the short side to this and save as JPEG, quality 95; never enlarges "
        "(default: 256, what training at 224 reads); 0 keeps every file as it came",
    )
    files.add_argument(
        "--max-megabytes",
        type=float,
        default=limits.max_bytes / 1e6,
        metavar="MB",
        help="refuse longer downloads (default: %(default)g)",
    )
    files.add_argument(
        "--max-megapixels",
        type=float,
        default=limits.max_pixels / 1e6,
        metavar="MP",
        help=f"refuse larger pictures (default: %(default)g; at most {MAX_PIXELS // 1_000_000})",
    )

    network = parser.add_argument_group("network")
    network.add_argument("--workers", type=int, default=32, help="downloads at a time (default: 32)")
    network.add_argument(
        "--per-host",
        type=int,
        default=16,
        metavar="N",
        help="downloads at a time from one server (default: 16; lower it where a server answers 429)",
    )
    network.add_argument(
        "--timeout",
        type=float,
        default=limits.timeout,
        metavar="SECONDS",
        help="longest silence of a server (default: %(default)g)",
    )
    network.add_argument(
        "--deadline",
        type=float,
        default=limits.deadline,
        metavar="SECONDS",
        help="longest time for one picture, all tries together (default: %(default)g)",
    )
    network.add_argument(
        "--retries",
        type=int,
        default=limits.retries,
        metavar="N",
        help="further tries after what may pass: 429, 5xx, lost connections, time-outs (default: %(default)s)",
    )
    network.add_argument(
        "--retry-failed",
        action="store_true",
        help="try pictures again that failed for want of an answer in an earlier run",
    )
    return parser  # fmt: skip


def check_options(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Check the numbers and resolve the names of styles and contents. Raises `UserError` naming the option."""
    least = {"per_style": 1, "workers": 1, "per_host": 1, "retries": 0, "shrink": 0}
    for name, low in least.items():
        if getattr(args, name) < low:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {low} or more")
    for name in ("timeout", "deadline", "max_megabytes", "max_megapixels"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name.replace('_', '-')} {value}: must be a number above 0")
    if args.max_megapixels * 1e6 > MAX_PIXELS:
        raise UserError(f"--max-megapixels {args.max_megapixels:g}: training reads at most {MAX_PIXELS // 1_000_000}")
    if not math.isfinite(args.min_score):
        raise UserError(f"--min-score {args.min_score}: must be a number")
    styles = find_names("--styles", args.styles, BAM_STYLES)
    contents = find_names("--contents", args.contents, BAM_CONTENTS)
    return styles or BAM_STYLES, contents


def find_names(option: str, given: list[str] | None, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Turn what the user wrote ("Pencil Sketch", pencil_sketch, media_graphite, or a list with commas) into names."""
    if given is None:
        return None
    place = 0 if names is BAM_STYLES else len(BAM_STYLES)
    known = {}
    for name, attribute in zip(names, ATTRIBUTES[place : place + len(names)], strict=True):
        known |= dict.fromkeys((simplify(name), simplify(attribute), simplify(attribute.partition("_")[2])), name)
    wanted = set()
    for word in ",".join(given).split(","):
        if simplify(word) not in known:
            raise UserError(f"{option} {word.strip()}: unknown; choose from {', '.join(names)}")
        wanted.add(known[simplify(word)])
    return tuple(name for name in names if name in wanted)


def simplify(name: str) -> str:
    """Leave only what tells two names apart."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


# Downloading.


def download(harvest: Harvest, connection: sqlite3.Connection, args: argparse.Namespace) -> dict[int, tuple[int, int]]:
    """Run `download_all`; Ctrl-C and SIGTERM end it with `Interrupted`, everything so far being kept."""
    stopped = []

    async def run() -> dict[int, tuple[int, int]]:
        """The download, as a task that both signals cancel."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            stopped.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no such handlers, and neither have threads other than the main one.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stop, number)
        return await download_all(harvest, connection, args)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        have = f"stopped with {len(harvest.have):,} pictures in {harvest.out}"
        raise Interrupted(f"{have}; the same command goes on from there", stopped[0]) from None


async def download_all(
    harvest: Harvest, connection: sqlite3.Connection, args: argparse.Namespace
) -> dict[int, tuple[int, int]]:
    """Download until every picture of the draft is there; return that draft, {row: (style, content)}.

    When pictures fail, the draft is made again without them, and what is new in it is fetched. The result depends only
    on which pictures can be had, not on the order in which that is found out (see `bam.py`).
    """
    limits = Limits(args.timeout, args.deadline, args.retries, max_bytes=int(args.max_megabytes * 1e6),
                    max_pixels=int(args.max_megapixels * 1e6))  # fmt: skip
    hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(args.per_host))
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    async def get(session: aiohttp.ClientSession, job: Job) -> Path:
        """Fetch one picture, no more than `--per-host` at once from its host, and store it; returns its file."""
        part = harvest.parts / str(harvest.candidates.mid[job.row])
        target = harvest.out / harvest.candidates.styles[job.style] / part.name
        try:
            async with hosts[host_of(job.url)]:
                await fetch(session, job.url, part, limits)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, store, part, target, args.shrink, limits.max_pixels)
        finally:
            part.unlink(missing_ok=True)

    active: dict[asyncio.Task, Job] = {}
    waiting: deque[Job] = deque()
    chosen: dict[int, tuple[int, int]] = {}
    stale = True  # whether pictures failed since the draft was made
    try:
        async with open_session() as session:
            with tqdm(desc="harvest", unit=" pictures", disable=None, smoothing=0.05, dynamic_ncols=True) as bar:
                while stale or waiting or active:
                    if stale and len(waiting) < args.workers:
                        chosen = await asyncio.to_thread(draft, harvest.candidates, args.per_style, harvest.failed)
                        waiting = list_jobs(harvest, connection, chosen, {job.row for job in active.values()})
                        show_total(bar, len(chosen), sum(row in harvest.have for row in chosen))
                        stale = False
                    while waiting and len(active) < args.workers:
                        job = waiting.popleft()
                        active[asyncio.create_task(get(session, job))] = job
                    if active:
                        done, _ = await asyncio.wait(active, return_when=asyncio.FIRST_COMPLETED)
                        for task in done:
                            succeeded = note_outcome(harvest, active.pop(task), task)
                            stale |= not succeeded
                            bar.set_postfix(failed=len(harvest.failed), refresh=False)
                            bar.update(succeeded)
    finally:
        for task in active:
            task.cancel()
        await asyncio.gather(*active, return_exceptions=True)
        pool.shutdown()
    note_failures(harvest)
    return chosen


def list_jobs(
    harvest: Harvest, connection: sqlite3.Connection, chosen: dict[int, tuple[int, int]], busy: set[int]
) -> deque[Job]:
    """List what is still to be fetched of a draft, in its order."""
    rows = [row for row in chosen if row not in harvest.have and row not in busy]
    details = read_details(connection, harvest.candidates.mid[rows])
    return deque(Job(row, chosen[row][0], details[int(harvest.candidates.mid[row])][0]) for row in rows)


def host_of(url: str) -> str:
    """Name the server that an address belongs to; what has none is refused later, by `fetch`."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def show_total(bar: tqdm, total: int, have: int) -> None:
    """Tell the progress bar how many pictures there will be and how many are there."""
    if bar.total is None:
        bar.initial = have  # pictures of earlier runs do not count into pictures/s
    bar.total, bar.n = total, have
    bar.refresh()


# The result.


def count(
    harvest: Harvest, chosen: dict[int, tuple[int, int]], first: dict[int, tuple[int, int]], per_style: int
) -> dict[str, dict[str, Any]]:
    """For each style: how many pictures were wanted, taken and replaced, how many failed and why, and the contents.

    A failure counts where its turn came in the final draft, so that an interruption changes no count.
    """
    missed: dict[int, int] = {}
    draft(harvest.candidates, per_style, harvest.failed, missed)
    counts = {}
    for number, style in enumerate(harvest.candidates.styles):
        contents = Counter(content % (len(harvest.candidates.contents) + 1)
                           for place, content in chosen.values() if place == number)  # fmt: skip
        failed = [harvest.failed[row] for row, place in missed.items() if place == number]
        reasons = Counter(entry["reason"] for entry in failed)
        names = (*harvest.candidates.contents, "unknown")  # content -1 is the last of them
        counts[style] = {
            "wanted": per_style,
            "taken": contents.total(),
            "replaced": sum(place == number for row, (place, _) in chosen.items() if row not in first),
            "failed": len(failed),
            "temporary": sum(entry["temporary"] for entry in failed),
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            "contents": {name: contents[place] for place, name in enumerate(names)},
        }
    return counts


def print_result(counts: dict[str, dict[str, Any]]) -> None:
    """Print what `count` returns as a table."""
    print(f"{'style':14} {'wanted':>8} {'taken':>8} {'replaced':>8} {'failed':>8}  why")
    for style, line in counts.items():
        why = ", ".join(f"{reason}: {number}" for reason, number in line["reasons"].items())
        print(
            f"{style:14} {line['wanted']:8} {line['taken']:8} {line['replaced']:8} {line['failed']:8}  {why}".rstrip()
        )
    total = [sum(line[name] for line in counts.values()) for name in ("wanted", "taken", "replaced", "failed")]
    print(f"{'all':14} " + " ".join(f"{number:8}" for number in total))


def print_plan(candidates: Candidates, chosen: dict[int, tuple[int, int]]) -> None:
    """Print the style x content table of what would be taken, and of the spares of each cell."""
    taken = np.zeros((len(candidates.styles), len(candidates.contents) + 1), np.int64)
    for style, content in chosen.values():
        taken[style, content] += 1  # content -1 is the last column
    spares = count_spares(candidates, chosen)
    print("Pictures that would be taken + spares. A picture that fits several cells is a spare in each of them.")
    header = (*candidates.contents, "unknown", "all")
    cells = [
        [f"{t}+{s}" for t, s in zip(*line, strict=True)] for line in zip(taken.tolist(), spares.tolist(), strict=True)
    ]
    cells = [[*line, str(total)] for line, total in zip(cells, taken.sum(1).tolist(), strict=True)]
    cells.append([str(total) for total in [*taken.sum(0).tolist(), taken.sum()]])
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for name, line in zip(("style", *candidates.styles, "all"), (header, *cells), strict=True):
        print(f"{name:14} " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


@contextlib.contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted` while no download runs."""

    def stop(number: int, _frame: Any) -> None:
        raise Interrupted(f"stopped; the same command goes on with {out}", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(args: argparse.Namespace) -> None:
    """Choose, download, verify, index."""
    styles, contents = check_options(args)
    # Pillow warns of large pictures by itself; here the limit is an option.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with stoppable(args.out), contextlib.closing(open_database(args.db)) as connection:
        print(f"Reading {args.db} ...", flush=True)
        candidates = read_candidates(connection, styles, contents, args.min_score, args.include_mature, args.seed)
        first = draft(candidates, args.per_style)
        if not first:
            raise UserError(f"--db {args.db}: no picture is positive for the wanted styles; lower --min-score")
        fit, wanted = len(candidates.mid), args.per_style * len(styles)
        print(f"{fit:,} pictures fit; {len(first):,} of the {wanted:,} wanted can be chosen.", flush=True)
        if args.dry_run:
            print_plan(candidates, first)
            return
        settings = {name: getattr(args, name) for name in SETTINGS}
        settings |= {"styles": list(styles), "contents": contents and list(contents), "selection": candidates.digest()}
        with own_folder(args.out, settings):
            harvest = Harvest(candidates, args.out)
            read_state(harvest, args.retry_failed)
            chosen = download(harvest, connection, args)
            if not chosen:
                raise UserError(f"{args.out}: not one picture could be had; {harvest.journal} says why of each")
            with stoppable(args.out):
                finish(harvest, connection, chosen)
                counts = count(harvest, chosen, first, args.per_style)
                summary = {"database": args.db.name, "options": settings, "pictures": len(chosen), "styles": counts}
                write_json(args.out / "harvest.json", summary)
    print_result(counts)
    late = sum(line["temporary"] for line in counts.values())
    if late:
        print(f"{late:,} failed for want of an answer: --retry-failed tries them again.")
    print(f"{len(chosen):,} pictures in {args.out}. Next: python classification_net.py --data {args.out}")


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
