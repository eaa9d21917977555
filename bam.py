"""From BAM's SQLite database to a ranked, balanced choice of pictures. Nothing here touches the network.

What counts as positive, for each picture and attribute: a crowd label decides where there is one; else an automatic
label; else the score, which must reach `min_score`. "unsure" is a label too, and is not positive. BAM does not say on
what scale its scores are; 0.5 means "rather yes" for probabilities and for log-odds alike. Sureness follows the same
order: crowd positives first, then automatic ones, then scores, and within each the higher score first.

The choice (`draft`) is a pure function of the candidates and of the set of pictures that cannot be had. Marking a
picture that was *not* chosen as not to be had changes nothing: the order in which dead links are found has no effect.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dataset import BAM_CONTENTS, BAM_STYLES
from utils import UserError

# BAM's own names, in the order of BAM_STYLES and BAM_CONTENTS.
STYLE_ATTRIBUTES = (
    "media_3d_graphics", "media_comic", "media_graphite", "media_oilpaint", "media_pen_ink", "media_vectorart",
    "media_watercolor", "emotion_scary", "emotion_gloomy", "emotion_happy", "emotion_peaceful",
)  # fmt: skip
CONTENT_ATTRIBUTES = tuple(f"content_{content}" for content in BAM_CONTENTS)
ATTRIBUTES = STYLE_ATTRIBUTES + CONTENT_ATTRIBUTES
TABLES = {
    "modules": ("mid", "project_id", "src", "mature_content", "license"),
    "scores": ("mid", *ATTRIBUTES),
    "crowd_labels": ("mid", "attribute", "label"),
}
CHUNK = 4096  # rows of a queue that are looked at together
POSITIVE = len(ATTRIBUTES)  # bits of a label set: first one for each attribute labelled, then for each positive
TAKEN, FAILED = 1, 2  # why a row is gone


@dataclass(frozen=True)
class Candidates:
    """Every picture that is positive for at least one of the wanted styles, one row each, in ascending `mid`.

    `mid` is int64 [n]; `score` float64 [n, styles], -inf where the database has none. Bit s of `style_bits` (int64
    [n]) says that the picture is positive for `styles[s]`, bit c of `content_bits` the same of `contents[c]`.
    `queues[s][c]` holds the rows of one style x content cell, surest first (int32); `queues[s][-1]` the rows of style
    s that are positive for no content. A picture stands in the queue of every cell that it fits.
    """

    styles: tuple[str, ...]
    contents: tuple[str, ...]
    mid: np.ndarray
    score: np.ndarray
    style_bits: np.ndarray
    content_bits: np.ndarray
    queues: list[list[np.ndarray]]

    def digest(self) -> str:
        """Tell two selections apart: a hash of every queue. The same for the same database content and options."""
        digest = hashlib.sha256(repr((self.styles, self.contents)).encode())
        for queue in chain.from_iterable(self.queues):
            digest.update(len(queue).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(self.mid[queue], dtype="<i8"))
        return digest.hexdigest()


# Reading.


def open_database(path: Path) -> sqlite3.Connection:
    """Open BAM's database for reading only. Raises `UserError` for what is not one, naming what is missing."""
    if not path.is_file():
        raise UserError(f"--db {path}: no such file; give the SQLite file that BAM's owners sent you")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        connection.execute("PRAGMA temp_store = MEMORY")
        lacking = [
            lack for table, columns in TABLES.items() if (lack := find_lacking(connection, table, columns)) is not None
        ]
        if has_automatic_labels(connection):
            lack = find_lacking(connection, "automatic_labels", ("mid", *ATTRIBUTES))
            lacking += [lack] if lack else []
    except sqlite3.Error as error:
        raise UserError(f"--db {path}: is not a readable SQLite database ({error}); give BAM's .sqlite file") from error
    if lacking:
        connection.close()
        raise UserError(f"--db {path}: is not a BAM database: {'; '.join(lacking)}; give BAM's .sqlite file")
    return connection


def find_lacking(connection: sqlite3.Connection, table: str, columns: Iterable[str]) -> str | None:
    """Say what of a table is missing, or None where all is there."""
    present = {row[1].lower() for row in connection.execute(f"PRAGMA table_info({table})")}
    if not present:
        return f"there is no table {table}"
    absent = [column for column in columns if column not in present]
    return f"the table {table} has no column {', '.join(absent)}" if absent else None


def has_automatic_labels(connection: sqlite3.Connection) -> bool:
    """Whether this variant of BAM has the table `automatic_labels`."""
    return bool(connection.execute("PRAGMA table_info(automatic_labels)").fetchone())


def read_candidates(
    connection: sqlite3.Connection,
    styles: tuple[str, ...] = BAM_STYLES,
    contents: tuple[str, ...] | None = None,
    min_score: float = 0.5,
    include_mature: bool = False,
    seed: int = 0,
) -> Candidates:
    """Read the labels of all pictures and rank them. About a minute and 2 GB for 2.3 million pictures.

    `contents` None means all nine, and pictures of no sure content as the last resort; given contents mean only these.
    `seed` orders pictures that are equally sure. Raises `UserError` where SQLite cannot read the file.
    """
    try:
        mid = read_usable(connection, include_mature)
        score, by_score = read_scores(connection, mid, styles, min_score)
        automatic, by_automatic = read_automatic_labels(connection, mid)
        crowd, by_crowd = read_crowd_labels(connection, mid)
    except sqlite3.Error as error:
        raise UserError(f"--db: the database cannot be read ({error}); copy it anew") from error
    by_automatic &= ~crowd
    by_score &= ~(crowd | automatic)
    positive = by_crowd | by_automatic | by_score
    wanted = BAM_CONTENTS if contents is None else contents
    places = [BAM_STYLES.index(style) for style in styles]
    style_bits = gather_bits(positive, places)
    content_bits = gather_bits(positive, [len(BAM_STYLES) + BAM_CONTENTS.index(content) for content in wanted])
    keep = np.flatnonzero((style_bits > 0) & ((content_bits > 0) | (contents is None)))
    by_crowd, by_automatic = gather_bits(by_crowd[keep], places), gather_bits(by_automatic[keep], places)
    mid, score, style_bits, content_bits = mid[keep], score[keep], style_bits[keep], content_bits[keep]
    queues = []
    for place in range(len(styles)):
        rows = np.flatnonzero(style_bits >> place & 1)
        # 2 for a crowd label, 1 for an automatic one, 0 for a score.
        sureness = 2 * (by_crowd[rows] >> place & 1) + (by_automatic[rows] >> place & 1)
        # lexsort is stable and `rows` ascend by mid: what is left equal is ordered by mid.
        rows = rows[np.lexsort((scramble(mid[rows], seed), -score[rows, place], -sureness))].astype(np.int32)
        bits = content_bits[rows]
        queues.append([rows[bits >> content & 1 == 1] for content in range(len(wanted))] + [rows[bits == 0]])
    return Candidates(styles, wanted, mid, score, style_bits, content_bits, queues)


def read_usable(connection: sqlite3.Connection, include_mature: bool) -> np.ndarray:
    """Numbers of the pictures that have an address and, unless wanted, no mark for mature content: int64, ascending."""
    mature = "COALESCE(LOWER(TRIM(mature_content)), '0') IN ('0', '0.0', 'false', 'f', 'no', 'n', '')"
    query = f"""SELECT CAST(mid AS INTEGER) FROM modules
                WHERE mid IS NOT NULL AND TRIM(src) != '' AND {"1" if include_mature else mature}"""
    return np.unique(read_rows(connection, query, [("mid", np.int64)])["mid"])


def read_scores(
    connection: sqlite3.Connection, mid: np.ndarray, styles: tuple[str, ...], min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores for the wanted styles, float64 [n, styles], and a bit for every attribute that reaches `min_score`."""
    columns = [STYLE_ATTRIBUTES[BAM_STYLES.index(style)] for style in styles]
    # -9e999 is SQLite's way to write minus infinity.
    values = ", ".join(f"COALESCE(CAST({column} AS REAL), -9e999)" for column in columns)
    reached = pack_bits(f"COALESCE(CAST({attribute} AS REAL) >= {min_score!r}, 0)" for attribute in ATTRIBUTES)
    query = f"SELECT CAST(mid AS INTEGER), {reached}, {values} FROM scores WHERE mid IS NOT NULL"
    fields = [("mid", np.int64), ("reached", np.int64), *((column, np.float64) for column in columns)]
    table = read_rows(connection, query, fields)
    place, known = find_rows(mid, table["mid"])
    score = np.full((len(mid), len(styles)), -np.inf)
    for number, column in enumerate(columns):
        np.maximum.at(score[:, number], place, table[column][known])
    bits = np.zeros(len(mid), np.int64)
    np.bitwise_or.at(bits, place, table["reached"][known])
    return score, bits


def read_automatic_labels(connection: sqlite3.Connection, mid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two bit sets per picture, int64 [n]: which attributes are labelled automatically, and which as positive."""
    if not has_automatic_labels(connection):
        return np.zeros(len(mid), np.int64), np.zeros(len(mid), np.int64)
    bits = " | ".join(f"({weigh(column)} << {place})" for place, column in enumerate(ATTRIBUTES))
    query = f"SELECT CAST(mid AS INTEGER), {bits} FROM automatic_labels WHERE mid IS NOT NULL"
    return merge_labels(connection, query, mid)


def read_crowd_labels(connection: sqlite3.Connection, mid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two bit sets per picture, int64 [n]: which attributes people labelled, and which as positive."""
    places = " ".join(f"WHEN '{attribute}' THEN {place}" for place, attribute in enumerate(ATTRIBUTES))
    query = f"""SELECT CAST(mid AS INTEGER), CASE WHEN attribute IN {ATTRIBUTES} THEN {weigh("label")} ELSE 0 END
                       << CASE attribute {places} ELSE 0 END FROM crowd_labels WHERE mid IS NOT NULL"""
    return merge_labels(connection, query, mid)


def weigh(label: str) -> str:
    """SQL for one label: 0 where it is none, 1 where it is one, and a second bit, `POSITIVE` higher, for "positive"."""
    return (
        f"CASE {label} WHEN 'positive' THEN {1 << POSITIVE | 1} WHEN 'negative' THEN 1 WHEN 'unsure' THEN 1 ELSE 0 END"
    )


def merge_labels(connection: sqlite3.Connection, query: str, mid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run a query for (mid, bits as of `weigh`) and merge its rows by picture, in any order: (labelled, positive)."""
    table = read_rows(connection, query, [("mid", np.int64), ("bits", np.int64)])
    place, known = find_rows(mid, table["mid"])
    bits = np.zeros(len(mid), np.int64)
    np.bitwise_or.at(bits, place, table["bits"][known])
    return bits & ((1 << POSITIVE) - 1), bits >> POSITIVE


def read_rows(connection: sqlite3.Connection, query: str, fields: list[tuple[str, type]]) -> np.ndarray:
    """Run a query straight into a structured array, without ever holding the rows as Python objects."""
    return np.fromiter(connection.execute(query), dtype=fields)


def find_rows(mid: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `mid` (ascending) that `numbers` stand for, and which of the numbers are there at all (bool)."""
    place = np.searchsorted(mid, numbers)
    known = place < len(mid)
    known[known] = mid[place[known]] == numbers[known]
    return place[known], known


def read_details(connection: sqlite3.Connection, mids: np.ndarray) -> dict[int, tuple[str, str, str]]:
    """Look up address, project (empty where unknown) and licence of some pictures, by their numbers."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (mid INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM chosen")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((mid,) for mid in mids.tolist()))
    query = """SELECT chosen.mid, TRIM(src), COALESCE(project_id, ''), COALESCE(license, '')
               FROM chosen JOIN modules ON modules.mid = chosen.mid"""
    return {mid: (str(src), str(project), str(text)) for mid, src, project, text in connection.execute(query)}


def pack_bits(terms: Iterable[str]) -> str:
    """SQL that packs terms of value 0 or 1 into one integer, the first into its lowest bit."""
    return " | ".join(f"(({term}) << {place})" for place, term in enumerate(terms))


def gather_bits(bits: np.ndarray, places: list[int]) -> np.ndarray:
    """Take the given places out of bit sets (int64 [n]), the first into the lowest bit."""
    gathered = np.zeros_like(bits)
    for target, place in enumerate(places):
        gathered |= (bits >> place & 1) << target
    return gathered


def scramble(mid: np.ndarray, seed: int) -> np.ndarray:
    """A seeded number for each picture, uint64 [n], the same on every machine (the finaliser of splitmix64)."""
    start = int.from_bytes(hashlib.sha256(f"harvest {seed}".encode()).digest()[:8], "little")
    value = mid.astype(np.uint64) + np.uint64(start)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


# Choosing.


def draft(
    candidates: Candidates, per_style: int, failed: Iterable[int] = (), missed: dict[int, int] | None = None
) -> dict[int, tuple[int, int]]:
    """Choose up to `per_style` pictures for each style: {row: (style, content)}, content -1 where none is sure.

    The styles take turns, one picture at a time: first the style that has least to spare, because a picture that fits
    several styles serves where it is scarcest. In a style, first the content that has least to spare until every
    content has its even share; after that the content that has fewest. A content gives its surest picture that
    is neither taken nor in `failed` (rows). What "to spare" means is counted over the database, failed or not: so the
    result does not depend on how much is already known about pictures that are not chosen.

    `missed`, where given, is filled with the failed rows whose turn came, {row: style}: no less a pure function.
    """
    missed = {} if missed is None else missed
    gone = bytearray(len(candidates.mid))
    for row in failed:
        gone[row] = FAILED
    styles_of = bit_lists(len(candidates.styles))
    contents_of = bit_lists(len(candidates.contents))
    queues = [[untaken(q, gone, missed, s) for q in cells] for s, cells in enumerate(candidates.queues)]
    # The supply of the pictures without a sure content is never asked for: they come last whatever their number.
    supply = [[len(queue) for queue in cells] for cells in candidates.queues]
    share = [even_share([len(queue) for queue in cells[:-1]], per_style) for cells in candidates.queues]
    spare = [int(np.count_nonzero(candidates.style_bits >> s & 1)) - per_style for s in range(len(queues))]
    taken = [[0] * len(cells) for cells in candidates.queues]
    open_cells = [list(range(len(cells) - 1)) for cells in candidates.queues]
    open_styles = [s for s in range(len(queues)) if per_style > 0]
    chosen: dict[int, tuple[int, int]] = {}

    while open_styles:
        style = min(open_styles, key=spare.__getitem__)
        have, left, goal = taken[style], supply[style], share[style]
        if open_cells[style]:
            content = min(
                open_cells[style],
                key=lambda c: (0, left[c] - (goal - have[c]), c) if have[c] < goal else (1, have[c], left[c], c),  # noqa: B023
            )
        else:
            content = len(candidates.contents)
        row = next(queues[style][content], None)
        if row is None:
            if open_cells[style]:
                open_cells[style].remove(content)
            else:
                open_styles.remove(style)
            continue
        gone[row] = TAKEN
        known = content < len(candidates.contents)
        chosen[row] = (style, content if known else -1)
        have[content] += 1
        if sum(have) == per_style:
            open_styles.remove(style)
        spare[style] += 1  # one less to find, which makes up for the one less to choose from, just below
        for other in styles_of[candidates.style_bits[row]]:
            spare[other] -= 1
            for cell in contents_of[candidates.content_bits[row]]:
                supply[other][cell] -= 1
    return chosen


def untaken(queue: np.ndarray, gone: bytearray, missed: dict[int, int], style: int) -> Iterator[int]:
    """Walk through a queue, leaving out the rows that are gone by the time they are reached."""
    for start in range(0, len(queue), CHUNK):
        for row in queue[start : start + CHUNK].tolist():
            if not gone[row]:
                yield row
            elif gone[row] == FAILED:
                missed.setdefault(row, style)


def even_share(supplies: list[int], wanted: int) -> int:
    """The highest level such that all cells, each filled up to it as far as it goes, hold at most `wanted` together.

    >>> even_share([2, 10, 10], 12)
    5
    """
    low, high = 0, max([0, *supplies])
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(middle, supply) for supply in supplies) <= wanted:
            low = middle
        else:
            high = middle - 1
    return low


def bit_lists(width: int) -> list[tuple[int, ...]]:
    """For every bit set of a width, the places of its bits."""
    return [tuple(place for place in range(width) if bits >> place & 1) for bits in range(1 << width)]


def count_spares(candidates: Candidates, chosen: Iterable[int], failed: Iterable[int] = ()) -> np.ndarray:
    """How many pictures of each cell are neither chosen nor failed, int64 [styles, contents + 1 for none]."""
    free = np.ones(len(candidates.mid), bool)
    free[np.fromiter(chain(chosen, failed), np.int64)] = False
    return np.array([[np.count_nonzero(free[queue]) for queue in cells] for cells in candidates.queues])
