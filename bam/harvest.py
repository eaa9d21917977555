"""Get BAM: choose a balanced set of pictures out of its database, download and verify them, and write the index.

    python -m bam.harvest --db bam.sqlite --dry-run          what would be taken
    python -m bam.harvest --db bam.sqlite --out data/bam     121,000 pictures, 11,000 for each style

Stop it at any time: the same command goes on, by the pictures and failures.csv, and the same pictures result.
"""

from __future__ import annotations

import argparse
import logging
import random
import threading
from collections import Counter, defaultdict, deque
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from sqlite3 import Connection

import numpy as np
from tqdm import tqdm

from bam.choice import Candidates, choose, open_database, read_addresses, read_candidates
from bam.download import GIVEN_UP, NO_ANSWER, TEMPORARY, Client, Failure, host_of, spell, verify_and_shrink
from dataset import BAM_CONTENTS, BAM_STYLES
from utils import UserError, read_table, run_script, write_table, write_whole

PATIENCE = 100  # pictures in a row without an answer, before a server is given up


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bam.harvest", description=__doc__, formatter_class=how)
    add = parser.add_argument
    add("--db", type=Path, required=True, help="BAM's SQLite file; its owners give it on request")
    add("--out", type=Path, default=Path("data/bam"), metavar="DIR", help="folder to fill (default: data/bam)")
    add("--dry-run", action="store_true", help="only print what would be taken, and how many spares there are")
    add("--per-style", type=int, default=11000, metavar="N", help="pictures for each style (default: 11000)")
    add("--styles", nargs="+", choices=BAM_STYLES, default=BAM_STYLES, metavar="STYLE", help="only these styles")
    add("--contents", nargs="+", choices=BAM_CONTENTS, metavar="CONTENT", help="only these contents")
    add("--min-score", type=float, metavar="S", help="scores count from here on (default: a probability of a half)")
    add("--include-mature", action="store_true", help="also take pictures that are marked as mature content")
    add("--per-host", type=int, default=16, metavar="N", help="downloads at a time from one server (default: 16)")
    add("--timeout", type=float, default=20, metavar="SECONDS", help="longest silence of a server (default: 20)")
    add("--retries", type=int, default=4, metavar="N", help="further tries after what may pass (default: 4)")
    add("--user-agent", default="SketchingWithStyle/1", metavar="NAME", help="whom servers see (default: %(default)s)")
    add("--allow-private-hosts", action="store_true", help="also ask addresses of this machine and its network")
    return parser


class Harvest:
    """A folder while it is filled. `have` and `failed` (bool [n]) say what is known of each candidate."""

    def __init__(self, out: Path, candidates: Candidates) -> None:
        """Find out what earlier runs left. What failed for want of an answer is forgotten, and so asked for again."""
        self.out, self.candidates, self.table = out, candidates, out / "failures.csv"
        if not self.table.exists() and {path.name for path in out.glob("[!.]*")} - {"lost+found"}:
            raise UserError(f"--out {out}: holds files that are not this command's; give a new folder")
        self.have = np.zeros(len(candidates.mid), bool)
        for style, (start, *_, end) in zip(candidates.styles, candidates.bounds.tolist(), strict=True):
            (out / style).mkdir(parents=True, exist_ok=True)
            mids = [int(file.stem) for file in (out / style).glob("[0-9]*.jpg")]
            self.have[start:end] = np.isin(candidates.mid[start:end], mids)
        self.by_size: dict[int, list[int]] = defaultdict(list)  # rows of the pictures in hand, by bytes of their files
        for row in np.flatnonzero(self.have).tolist():
            self.by_size[self.path(row).stat().st_size].append(row)
        lines = read_table(self.table) if self.table.exists() else []
        final = [(line["mid"], line["reason"], line["content"]) for line in lines if line["reason"] not in TEMPORARY]
        self.failed = np.isin(candidates.mid, [int(mid) for mid, *_ in final])
        self.placeholders = {content for *_, content in final} - {""}  # their hashes
        write_table(self.table, ("mid", "reason", "content"), final)

    def path(self, row: int) -> Path:
        """Where a candidate's picture lies, or would lie."""
        style = self.candidates.styles[self.candidates.style[row]]
        return self.out / style / f"{self.candidates.mid[row]}.jpg"

    def fail(self, row: int, reason: str, content: str = "") -> None:
        """Note that a picture cannot be had, on disk before anything else happens."""
        self.failed[row] = True
        with self.table.open("a", encoding="utf-8") as file:
            file.write(f"{self.candidates.mid[row]},{reason},{content}\n")

    def keep(self, row: int, data: bytes) -> None:
        """Store a picture. Where it equals another one it is a server's placeholder, and both have failed."""
        twins = [twin for twin in self.by_size[len(data)] if self.path(twin).read_bytes() == data]
        content = sha256(data).hexdigest()
        if twins or content in self.placeholders:
            self.placeholders.add(content)
            for twin in twins:
                self.fail(twin, "same as another", content)
                self.by_size[len(data)].remove(twin)
                self.path(twin).unlink()
            self.fail(row, "same as another", content)
        else:
            write_whole(self.path(row), data)
            self.have[row] = True
            self.by_size[len(data)].append(row)


def run_waves(harvest: Harvest, connection: Connection, client: Client, args: argparse.Namespace) -> np.ndarray:
    """Ask for what is missing until nothing is, wave after wave; return the chosen rows, int64 ascending.

    Raises `UserError` where a server gives no answers any more, and neither do those of pictures that came before.
    """
    mid = harvest.candidates.mid
    decoding = threading.BoundedSemaphore(4)  # of up to some hundred megabytes each
    silent: Counter[str] = Counter()  # pictures in a row without an answer, by server
    some = np.random.RandomState(0).permutation(np.flatnonzero(harvest.have))[:5]
    good = deque((url for url, *_ in read_addresses(connection, mid[some])), maxlen=5)

    def get(job: tuple[int, str]) -> tuple[int, str, bytes | str]:
        """Download and verify one picture, in a thread: its row, its address, and its file or why there is none."""
        if silent[host_of(job[1])] > PATIENCE:
            return *job, GIVEN_UP
        try:
            data = client.fetch(job[1])
            with decoding:
                return *job, verify_and_shrink(data)
        except Failure as failure:
            return *job, str(failure)

    while True:
        chosen = choose(harvest.candidates, args.per_style, harvest.failed)
        missing = chosen[~harvest.have[chosen]]
        if not len(missing):
            return chosen
        addresses = read_addresses(connection, mid[missing])
        jobs = [(row, url) for row, (url, *_) in zip(missing.tolist(), addresses, strict=True)]
        random.Random(0).shuffle(jobs)  # pictures of one server often stand together
        with ThreadPool(2 * args.per_host) as pool:
            for row, url, outcome in tqdm(pool.imap_unordered(get, jobs), "pictures", len(jobs), disable=None):
                if isinstance(outcome, bytes):
                    harvest.keep(row, outcome)
                    good.append(url)
                else:
                    harvest.fail(row, outcome)
                silent[host_of(url)] = silent[host_of(url)] + 1 if outcome in NO_ANSWER else 0
                if silent[host_of(url)] == PATIENCE and good and all(get((row, url))[2] in NO_ANSWER for url in good):
                    raise UserError(f"the network seems to be down ({outcome}); run the same command when it is back")


def write_index(harvest: Harvest, connection: Connection, chosen: np.ndarray) -> None:
    """Write index.csv: by style, then content, then the surest first."""
    candidates, rows = harvest.candidates, []
    mids = candidates.mid[chosen]
    for row, mid, details in zip(chosen.tolist(), mids.tolist(), read_addresses(connection, mids), strict=True):
        url, project, terms = details
        names = candidates.styles[candidates.style[row]], (*candidates.contents, "")[candidates.content[row]]
        path = harvest.path(row).relative_to(harvest.out).as_posix()
        rows.append((path, *names, project or f"mid-{mid}", mid, spell(url), terms))
    write_table(harvest.out / "index.csv", ("path", "style", "content", "group", "mid", "url", "license"), rows)


def print_cells(candidates: Candidates, chosen: np.ndarray) -> None:
    """Print for each style and content how many pictures would be taken and how many spares are left."""
    print("".join(f"{name:14}" for name in ("taken+spares", "all", *candidates.contents, "unknown")))
    for style, bounds in zip(candidates.styles, candidates.bounds, strict=True):
        taken, supply = np.diff(np.searchsorted(chosen, bounds)), np.diff(bounds)
        cells = zip((taken.sum(), *taken), (supply.sum(), *supply), strict=True)
        print("".join(f"{text:14}" for text in (style, *(f"{some}+{every - some}" for some, every in cells))))


def main(args: argparse.Namespace) -> None:
    """Choose, download, verify, index."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of every further try
    with open_database(args.db) as connection:
        print(f"Reading {args.db} ...", flush=True)
        candidates = read_candidates(connection, args.styles, args.contents, args.min_score, args.include_mature)
        chosen = choose(candidates, args.per_style, np.zeros(len(candidates.mid), bool))
        print(*candidates.notes, sep="\n")
        print(f"{len(chosen):,} of {args.per_style * len(args.styles):,} pictures can be chosen.")
        if not len(chosen):
            raise UserError(f"--db {args.db}: no picture counts for the wanted styles; lower --min-score")
        if args.dry_run:
            print_cells(candidates, chosen)
            return
        harvest = Harvest(args.out, candidates)
        client = Client(args.user_agent, args.per_host, args.timeout, args.retries, args.allow_private_hosts)
        chosen = run_waves(harvest, connection, client, args)
        if not len(chosen):
            raise UserError(f"{args.out}: not one picture could be had; {harvest.table} says why")
        write_index(harvest, connection, chosen)
    why = Counter(line["reason"] for line in read_table(harvest.table))
    print(f"Failed: {why.total()}", *(f"{reason}: {count}" for reason, count in why.most_common()), sep=", ")
    print(f"{len(chosen):,} pictures in {args.out}. Next: python classification_net.py --data {args.out}")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
