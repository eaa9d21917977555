"""From rows to batches: pictures are decoded once, kept as uint8 squares, and only gathered after that.

The squares are kept in the device's memory, in a memory map on disk that later runs use too, or nowhere; the numbers
are the same. They are a little larger than what the net sees; `augmentation.py` crops them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from dataset import Collection
from decoding import UnreadablePicture, decode, to_square
from utils import UserError

# The usual proportion for ImageNet's nets: 224 of 256 pixels are seen.
STORED_PER_SEEN = 8 / 7

# A picture's state in the cache.
MISSING, KEPT, UNREADABLE = 0, 1, 2
CHUNK = 256  # pictures decoded between two looks at the progress
CACHE_FORMAT = 1  # to be raised when `decoding.py` comes to give other pixels for the same file


class CannotKeep(Exception):
    """The memory map cannot be written. Its message says where and why."""


def stored_size(image_size: int) -> int:
    """Side of the kept squares, in pixels, for a net that sees `image_size` pixels: 256 for 224."""
    return round(image_size * STORED_PER_SEEN)


def count_processors() -> int:
    """Processors that this process may use, shared with the other processes of a `torchrun` on this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def read_square(collection: Collection, row: int, side: int) -> np.ndarray:
    """Decode one picture of a collection into its square, uint8 [side, side, 3]. Raises `UnreadablePicture`."""
    return to_square(decode(f"{collection.folder}/{collection.paths[row]}"), side)


class Pictures:
    """The pictures of a collection as uint8 squares [side, side, 3], wherever they are kept.

    `squares` is uint8 [n, side, side, 3] in the device's memory or memory-mapped from disk, or None: decode each time.
    """

    def __init__(
        self, collection: Collection, side: int, device: torch.device, workers: int, squares: torch.Tensor | None
    ) -> None:
        self.collection, self.side, self.device, self.squares = collection, side, device, squares
        self.on_device = squares is not None and device.type == "cuda" and squares.device == device
        # Copying out of a memory map keeps up with any CPU's training in one thread; a second would take time from it.
        threads = workers if squares is None else min(workers, 4) if device.type == "cuda" else 1
        # Threads start out on the first GPU, where pinned memory would take up a corner for nothing.
        prepare_thread = (torch.cuda.set_device, (device,)) if device.type == "cuda" else (None, ())
        self._pool = ThreadPoolExecutor(threads, "pictures", *prepare_thread)
        self._ahead = threads + 2

    def batches(self, rows: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield a batch, uint8 [m, side, side, 3] on the device, for each array of rows, int64 [m], in order.

        Batches are fetched ahead in the background. Raises `UserError` for a picture that cannot be decoded.
        """
        if self.on_device:
            yield from self._index(list(rows))
            return
        queue: deque[Future[torch.Tensor]] = deque()
        try:
            for wanted in rows:
                queue.append(self._pool.submit(self._fetch, wanted))
                if len(queue) > self._ahead:
                    yield queue.popleft().result().to(self.device, non_blocking=True)
            while queue:
                yield queue.popleft().result().to(self.device, non_blocking=True)
        finally:
            for future in queue:
                future.cancel()

    def _index(self, rows: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """Index squares that lie on the device; all rows go there in one transfer."""
        if rows:
            everything = torch.from_numpy(np.concatenate(rows)).to(self.device)
            for wanted in everything.split([len(part) for part in rows]):
                yield self.squares.index_select(0, wanted)

    def _fetch(self, rows: np.ndarray) -> torch.Tensor:
        """Copy or decode rows, int64 [m], into uint8 [m, side, side, 3]; pinned where the device is a GPU."""
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(rows), self.side, self.side, 3), dtype=torch.uint8, pin_memory=pinned)
        # Picture by picture is faster than indexing with all rows: each is a single copy, outside the interpreter's lock.
        kept, into = self.squares.numpy() if self.squares is not None else None, batch.numpy()
        for position, row in enumerate(rows.tolist()):
            try:
                into[position] = read_square(self.collection, row, self.side) if kept is None else kept[row]
            except UnreadablePicture as error:
                raise refusal(self.collection, row, error) from error
        return batch

    def close(self) -> None:
        """Stop the background threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def refusal(collection: Collection, row: int, error: UnreadablePicture) -> UserError:
    """The user's line about a picture that cannot be decoded."""
    return UserError(f"{collection.name(row)} {error}; replace it, or leave such pictures out with --skip-unreadable")


def open_pictures(
    collection: Collection,
    image_size: int,
    device: torch.device,
    *,
    cache: str = "auto",
    cache_dir: Path | str | None = None,
    workers: int | None = None,
    skip_unreadable: bool = False,
) -> tuple[Pictures, np.ndarray]:
    """Get a collection's pictures ready for batches, and say where they are kept and why.

    `cache` is auto, none, disk or device; `workers` the number of decoding threads, None for one a processor.
    Returns the pictures and the rows that cannot be decoded, int64 [k] (`Collection.without` leaves them out).
    Raises `UserError` for the first of those unless `skip_unreadable`, and for a cache that cannot be kept.
    """
    side, workers = stored_size(image_size), workers or count_processors()
    cv2.setNumThreads(1)  # the decoding threads each have a picture of their own
    squares, unreadable = None, None
    if cache != "none":
        folder = Path(cache_dir) if cache_dir is not None else collection.folder / ".pictures"
        try:
            squares, state = read_squares(collection, side, folder, workers)
            unreadable = np.flatnonzero(state == UNREADABLE)
            if device.type == "cpu" or cache == "disk":
                print(f"pictures: decoded once, into a memory map of {squares.numel() / 1e9:.1f} GB in {folder}")
        except CannotKeep as error:
            if cache != "auto":
                raise UserError(f"{error}; choose another folder with --cache-dir, or --cache none") from error
            print(f"pictures: decoded anew in each epoch, as {error}; --cache-dir chooses another folder")
    if unreadable is None:
        unreadable = find_unreadable(collection, side, workers) if skip_unreadable else np.empty(0, dtype=np.int64)
    if len(unreadable) and not skip_unreadable:
        raise first_refusal(collection, side, unreadable)
    if len(unreadable):
        print(f"pictures: {len(unreadable)} of {len(collection)} cannot be decoded and are left out, first "
              f"{collection.paths[unreadable[0]]}")  # fmt: skip
    if squares is not None and cache in ("auto", "device"):
        squares = move_to_device(squares, device, cache)
    return Pictures(collection, side, device, workers, squares), unreadable


def first_refusal(collection: Collection, side: int, unreadable: np.ndarray) -> UserError:
    """The line about the first picture that cannot be decoded; how many more there are follows."""
    row = int(unreadable[0])
    try:
        read_square(collection, row, side)
    except UnreadablePicture as error:
        more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        return refusal(collection, row, UnreadablePicture(f"{error}{more}"))
    return UserError(f"{collection.name(row)} could not be decoded a moment ago but can now; start again")


def find_unreadable(collection: Collection, side: int, workers: int) -> np.ndarray:
    """Decode every picture once only to see whether it can be; return the rows that cannot, int64 [k]."""

    def readable(row: int) -> bool:
        try:
            read_square(collection, row, side)
        except UnreadablePicture:
            return False
        return True

    found: list[bool] = []
    bar = tqdm(total=len(collection), desc="checking pictures", disable=None, leave=False)
    with bar, ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(collection), CHUNK):
            found += pool.map(readable, range(start, min(start + CHUNK, len(collection))))
            bar.update(len(found) - bar.n)
    return np.flatnonzero(~np.array(found, dtype=bool))


def move_to_device(squares: torch.Tensor, device: torch.device, cache: str) -> torch.Tensor:
    """Copy the squares into a GPU's memory if that is asked for or, with auto, leaves half of the free memory free."""
    gigabytes = squares.numel() / 1e9
    if device.type != "cuda":
        if cache == "device":
            print("pictures: the device is the CPU, whose memory holds the memory map anyway")
        return squares
    free = torch.cuda.mem_get_info(device)[0] / 1e9
    if cache == "auto" and gigabytes > free / 2:
        print(f"pictures: in a memory map on disk, as their {gigabytes:.1f} GB are more than half of the device's free "
              f"{free:.1f} GB")  # fmt: skip
        return squares
    if gigabytes > free:
        raise UserError(f"--cache device: the pictures need {gigabytes:.1f} GB, the device has {free:.1f} GB free; "
                        f"use --cache disk")  # fmt: skip
    held = torch.empty(squares.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(squares), 8 * CHUNK):
        held[start : start + 8 * CHUNK] = squares[start : start + 8 * CHUNK].to(device)
    print(f"pictures: in the device's memory ({gigabytes:.1f} GB of {free:.1f} GB free)")
    return held


# The memory map.


def cache_paths(collection: Collection, side: int, folder: Path) -> tuple[Path, Path, Path]:
    """The memory map, the pictures' states and the lock. Their names tell which pictures, as they were when read."""
    which, state = hashlib.sha256(f"{CACHE_FORMAT}".encode()), hashlib.sha256()
    for path, size, changed in zip(
        collection.paths, collection.size.tolist(), collection.changed.tolist(), strict=True
    ):
        which.update(path.encode("utf-8", "surrogateescape") + b"\n")
        state.update(f"{size} {changed}\n".encode())
    stem = f"{side}-{which.hexdigest()[:12]}"
    version = f"{stem}-{state.hexdigest()[:12]}"
    return folder / f"{version}.npy", folder / f"{version}.state.npy", folder / f"{stem}.lock"


def read_squares(collection: Collection, side: int, folder: Path, workers: int) -> tuple[torch.Tensor, np.ndarray]:
    """Get every picture's square out of the memory map in `folder`, after building or completing it where needed.

    Returns uint8 [n, side, side, 3], memory-mapped, and the states, uint8 [n]. Another process that builds the same
    map is waited for. Raises `CannotKeep` where the folder cannot be written.
    """
    map_path, state_path, lock_path = cache_paths(collection, side, folder)
    shape = (len(collection), side, side, 3)
    finished = load_finished(map_path, state_path, shape)
    if finished is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with waiting_lock(lock_path):
                finished = load_finished(map_path, state_path, shape)
                if finished is None:
                    drop_outdated(map_path, folder)
                    build_map(collection, side, map_path, state_path, workers)
                    finished = load_finished(map_path, state_path, shape)
        except OSError as error:
            raise CannotKeep(f"{folder} cannot hold them ({error.strerror or error})") from error
    if finished is None:
        raise CannotKeep(f"{folder} did not keep them")
    return finished


def load_finished(map_path: Path, state_path: Path, shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray] | None:
    """Map the squares if the map is complete and of the right shape, else None."""
    try:
        state = np.load(state_path)
        # Copy-on-write: the file stays as it is, and torch takes only arrays that it could write to.
        squares = np.load(map_path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    complete = state.shape == shape[:1] and state.dtype == np.uint8 and bool((state != MISSING).all())
    return (torch.from_numpy(squares), state) if complete and squares.shape == shape else None


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold the lock of one memory map; say so if another process has it first."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        print("pictures: another process is reading them; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def drop_outdated(map_path: Path, folder: Path) -> None:
    """Delete maps of the same pictures as they were before some of them changed, and say so."""
    stem = map_path.name.rsplit("-", 1)[0]
    outdated = [path for path in folder.glob(f"{stem}-*.npy") if not path.name.startswith(map_path.stem)]
    for path in outdated:
        path.unlink(missing_ok=True)
    if outdated:
        print("pictures: some changed since they were read; reading them all again")


def build_map(collection: Collection, side: int, map_path: Path, state_path: Path, workers: int) -> None:
    """Decode all pictures in parallel into the memory map; continues one that was interrupted.

    A picture counts as read only after its pixels are on the disk. Raises `OSError` where the disk is full.
    """
    shape = (len(collection), side, side, 3)
    if not is_array(map_path, shape):
        state_path.unlink(missing_ok=True)  # first: states without their pixels would pass zeros off as pictures
    squares = open_array(map_path, shape)
    state = open_array(state_path, shape[:1])
    missing = np.flatnonzero(state == MISSING)

    def read(row: int) -> int:
        try:
            squares[row] = read_square(collection, row, side)
        except UnreadablePicture:
            return UNREADABLE
        return KEPT

    bar = tqdm(total=len(collection), initial=len(collection) - len(missing), desc="reading pictures", disable=None)
    with bar, ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            states = list(pool.map(read, rows.tolist()))
            squares.flush()
            state[rows] = states
            bar.update(len(rows))
    state.flush()


def is_array(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether there is a whole uint8 .npy file of this shape."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.uint8


def open_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open a uint8 .npy file for writing, made of zeros if it is not there, cut short, or of another shape.

    The disk space is taken at once: a memory map that finds the disk full later would kill the process.
    """
    if not is_array(path, shape):
        path.unlink(missing_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            with part.open("r+b") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r+")
