"""From BAM's SQLite database to ranked queues of pictures, one for each style and content. Nothing here asks a server.

A picture is positive for an attribute by what people say of it; where nobody did, by its automatic label; without
either by its score. "unsure" is a label too, and not positive. In a queue those that people labelled come first, then
automatic labels, then scores, and among equals the higher score.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np

from dataset import BAM_CONTENTS, BAM_STYLES
from utils import UserError

# BAM's own names, in the order of BAM_STYLES and then of BAM_CONTENTS.
ATTRIBUTES = (
    *("media_3d_graphics", "media_comic", "media_graphite", "media_oilpaint", "media_pen_ink", "media_vectorart"),
    *("media_watercolor", "emotion_scary", "emotion_gloomy", "emotion_happy", "emotion_peaceful"),
    *(f"content_{content}" for content in BAM_CONTENTS),
)
BY_SCORE, BY_AUTOMATIC_LABEL, BY_CROWD_LABEL = 1, 2, 3  # why a picture counts as positive, the surest last
LABEL = "CASE {} WHEN 'positive' THEN 1 WHEN 'negative' THEN -1 WHEN 'unsure' THEN -1 ELSE 0 END"


@dataclass(frozen=True)
class Candidates:
    """Pictures that are positive for a wanted style, one row each, sorted by style, content and sureness.

    `mid` (int64 [n]) is BAM's number of a picture, `style` and `content` (int64 [n]) index the names; a content that is
    not known is `len(contents)`. Rows `bounds[s, c]` up to `bounds[s, c + 1]` are the queue of style s and content c.
    """

    styles: Sequence[str]
    contents: Sequence[str]
    mid: np.ndarray
    style: np.ndarray
    content: np.ndarray
    bounds: np.ndarray
    notes: list[str]  # what counted as positive, in words


def read_candidates(
    connection: sqlite3.Connection,
    styles: Sequence[str] = BAM_STYLES,
    contents: Sequence[str] | None = None,
    min_score: float | None = None,
    include_mature: bool = False,
) -> Candidates:
    """Rank every picture that is positive for one of `styles` in the queue of one style and one content.

    A picture that fits several styles goes to the one that has fewest pictures, and likewise with its contents. Given
    `contents` are the only ones; None means all nine, and pictures of no known content as the last resort. Scores
    count from `min_score` on; None means a probability of a half.
    """
    mid, score = read_scores(connection, include_mature)
    high, low = score.max(initial=-np.inf), score.min(initial=np.inf, where=score > -np.inf)
    if min_score is None:
        min_score = 0.5 if high > 0 else log(0.5)  # no logarithm of a probability is above 0
    sureness = read_sureness(connection, mid, score >= min_score)

    own_contents = BAM_CONTENTS if contents is None else contents
    places = np.array([BAM_STYLES.index(style) for style in styles])
    content_places = len(BAM_STYLES) + np.array([BAM_CONTENTS.index(content) for content in own_contents])
    depicts = (sureness[:, content_places] > 0).any(1)
    fits = (sureness[:, places] > 0).any(1) & (depicts | (contents is None))
    # Shuffled: what the steady sorting below finds equal stays in this order, which RandomState never changes.
    rows = np.random.RandomState(0).permutation(np.flatnonzero(fits))
    style = share_out(sureness[np.ix_(rows, places)] > 0)
    content = np.full(len(rows), len(own_contents))
    for number in range(len(styles)):
        some = np.flatnonzero((style == number) & depicts[rows])
        content[some] = share_out(sureness[np.ix_(rows[some], content_places)] > 0)
    own = rows, places[style]
    queue = style * (len(own_contents) + 1) + content
    order = np.lexsort((-score[own], -sureness[own], queue))
    first_queues = np.arange(len(styles))[:, None] * (len(own_contents) + 1)
    bounds = np.searchsorted(queue[order], first_queues + np.arange(len(own_contents) + 2))

    some = np.flatnonzero(depicts[rows])
    logarithms = "" if high > 0 else " (logarithms of probabilities)"
    notes = [f"Scores run from {low:.4g} to {high:.4g}{logarithms} and count from {min_score:.4g} on."]
    content_sureness = sureness[rows[some], content_places[content[some]]]
    for what, known in (("Style", sureness[own]), ("Content", content_sureness)):
        score, automatic, crowd = np.bincount(known, minlength=4)[1:]
        notes.append(f"{what} known by crowd label: {crowd:,}, by automatic label: {automatic:,}, by score: {score:,}.")
    return Candidates(styles, own_contents, mid[rows[order]], style[order], content[order], bounds, notes)


def share_out(fits: np.ndarray) -> np.ndarray:
    """Give every row to one of the columns that it fits (bool [n, k]), int64 [n]: to the one that has least by then."""
    within_reach = fits.sum(0).tolist()
    chosen = fits.argmax(1)
    for row in np.flatnonzero(fits.sum(1) > 1).tolist():
        columns = np.flatnonzero(fits[row]).tolist()
        chosen[row] = scarcest = min(columns, key=within_reach.__getitem__)
        for column in columns:
            within_reach[column] -= column != scarcest
    return chosen


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open BAM's database for reading only. `UserError` tells what SQLite has to say, also later inside the `with`."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            yield connection
    except sqlite3.Error as error:
        hint = "give the SQLite file that BAM's owners sent, while no other program writes to it"
        raise UserError(f"--db {path}: cannot be read as BAM's database ({error}); {hint}") from error


def read_scores(connection: sqlite3.Connection, include_mature: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read numbers, int64 [n] ascending, and scores, float64 [n, 20] (-inf: none), of the pictures with an address."""
    mature = "COALESCE(LOWER(TRIM(mature_content)), '0') IN ('0', '0.0', 'false', 'f', 'no', 'n', '')"
    usable = f"typeof(mid) = 'integer' AND TRIM(src) != '' AND ({int(include_mature)} OR {mature})"
    cursor = connection.execute(f"SELECT mid FROM modules WHERE {usable}")
    mid = np.unique(np.fromiter((number for (number,) in cursor), np.int64))
    columns = (f"CASE WHEN typeof({name}) IN ('real', 'integer') THEN {name} ELSE -9e999 END" for name in ATTRIBUTES)
    row, values = read_table(connection, "scores", columns, np.float64, mid)
    score = np.full((len(mid), len(ATTRIBUTES)), -np.inf)
    score[row] = values
    return mid, score


def read_sureness(connection: sqlite3.Connection, mid: np.ndarray, by_score: np.ndarray) -> np.ndarray:
    """Weigh scores and labels, int8 [n, 20]: positive for an attribute where above 0, and the higher the surer."""
    sureness = by_score.astype(np.int8) * BY_SCORE
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'automatic_labels'").fetchone():
        row, label = read_table(connection, "automatic_labels", map(LABEL.format, ATTRIBUTES), np.int8, mid)
        sureness[row] = np.where(label == 0, sureness[row], label * BY_AUTOMATIC_LABEL)
    places = " ".join(f"WHEN '{name}' THEN {place}" for place, name in enumerate(ATTRIBUTES))
    columns = f"CASE attribute {places} ELSE -1 END", LABEL.format("label")
    row, values = read_table(connection, "crowd_labels", columns, np.int8, mid)
    told = np.flatnonzero((values[:, 0] >= 0) & (values[:, 1] != 0))
    sureness[row[told], values[told, 0]] = values[told, 1] * BY_CROWD_LABEL
    return sureness


def read_table(
    connection: sqlite3.Connection, table: str, columns: Iterable[str], dtype: type, mid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read numbers out of a table: the place in `mid` (ascending) of each row, int64 [k], and its values [k, columns]."""
    columns = list(columns)
    cursor = connection.execute(f"SELECT mid, {', '.join(columns)} FROM {table} WHERE typeof(mid) = 'integer'")
    # Straight into an array: as Python's objects the rows would take several times the memory.
    read = np.fromiter(((row[0], row[1:]) for row in cursor), [("mid", np.int64), ("values", dtype, len(columns))])
    known = np.flatnonzero(np.isin(read["mid"], mid))
    return np.searchsorted(mid, read["mid"][known]), read["values"][known]


def read_addresses(connection: sqlite3.Connection, mids: np.ndarray) -> list[tuple[str, str, str]]:
    """Look up address, project ("" where unknown) and licence of some pictures by their numbers, in their order.

    A database may hold any bytes: what is no UTF-8 becomes surrogates in an address, and is replaced elsewhere.
    """
    columns = (f"CAST(COALESCE({name}, '') AS BLOB)" for name in ("src", "project_id", "license"))
    query = f"SELECT mid, {', '.join(columns)} FROM modules WHERE mid IN (SELECT value FROM json_each(?))"
    found = {}
    for mid, url, *texts in connection.execute(query, [json.dumps(mids.tolist())]):
        project, terms = (" ".join(text.decode("utf-8", "replace").replace("\0", " ").split()) for text in texts)
        found[mid] = url.decode("utf-8", "surrogateescape").strip(), project, terms
    return [found[mid] for mid in mids.tolist()]


def choose(candidates: Candidates, per_style: int, failed: np.ndarray) -> np.ndarray:
    """Choose up to `per_style` rows for each style, int64 ascending, passing over those that `failed` (bool [n]).

    The contents of a style take turns, each with its first that has not failed; pictures of no known content come when
    all others are used up. One more failure never makes it come to fewer of them elsewhere: so the final choice depends
    on which pictures can be had, and not on the order in which that was found out.
    """
    chosen = []
    for bounds in candidates.bounds.tolist():
        queues = [start + np.flatnonzero(~failed[start:end]) for start, end in pairwise(bounds)]
        turns = [np.arange(len(queue)) for queue in queues]
        turns[-1] += len(failed)  # after all others
        in_turn = np.concatenate(queues)[np.concatenate(turns).argsort(kind="stable")]
        chosen.append(np.sort(in_turn[:per_style]))
    return np.concatenate(chosen)
