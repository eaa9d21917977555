"""Pictures are decoded once and then copied: the cache in every state, and the same numbers whichever way they come."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT, run_main
from running import PLAIN, TINY, assert_same_run, tiny

import classification_net
import networks
import train
from augmentation import crop_on_cpu, crop_on_gpu, draw_crops, prepare
from dataset import read_collection
from pictures import cache_paths, open_pictures, read_square, stored_size
from utils import UserError

CPU = torch.device("cpu")
SIZE = 56  # what the net would see; kept are squares of 64
SIDE = stored_size(SIZE)

# A process of its own that opens a folder's pictures and prints a sum over all their pixels.
OPEN = """
import sys, torch
from dataset import read_collection
from pictures import open_pictures
from utils import UserError
try:
    collection = read_collection(sys.argv[1])
    pictures, _ = open_pictures(collection, 56, torch.device("cpu"), cache=sys.argv[2], cache_dir=sys.argv[3], workers=2)
except UserError as error:
    sys.exit(f"refused: {error}")
rows = [part for part in torch.arange(len(collection)).numpy()[:, None]]
print("sum", sum(int(batch.long().sum()) for batch in pictures.batches(rows)))
"""


def make_folder(folder: Path, count: int, size: int = 80) -> Path:
    """Two styles of pictures of noise, each with another seed."""
    for number in range(count):
        place = folder / ("a", "b")[number % 2] / f"{number:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        cv2.imwrite(str(place), noise)
    return folder


def open_all(folder: Path, **options: object) -> torch.Tensor:
    """All squares of a folder's pictures, in order."""
    collection = read_collection(folder)
    pictures, _ = open_pictures(collection, SIZE, CPU, **{"cache": "disk", "workers": 2, **options})
    squares = torch.cat(list(pictures.batches(np.array_split(np.arange(len(collection)), 7))))
    pictures.close()
    return squares


def decoded(folder: Path) -> torch.Tensor:
    """The same without any cache."""
    collection = read_collection(folder)
    return torch.from_numpy(np.stack([read_square(collection, row, SIDE) for row in range(len(collection))]))


def replace_quietly(path: Path, content: bytes) -> None:
    """Give a file other content, but the size and time that it had."""
    status = path.stat()
    path.write_bytes(content[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def start_process(*command: object, **settings: object) -> subprocess.Popen:
    words = [sys.executable, "-c", OPEN, *map(str, command)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


# The cache.


@pytest.mark.parametrize("cache", ["none", "disk", "device", "auto"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_cache_gives_the_decoded_pictures_in_order(tmp_path, cache, workers):
    folder = make_folder(tmp_path, 20)
    assert torch.equal(open_all(folder, cache=cache, workers=workers), decoded(folder))


def test_pictures_are_decoded_once(tmp_path):
    folder = make_folder(tmp_path, 10)
    before = open_all(folder)
    for path in folder.glob("[ab]/*.png"):
        replace_quietly(path, b"no picture any more")
    assert torch.equal(open_all(folder), before)
    with pytest.raises(UserError, match="cannot be decoded"):
        open_all(folder, cache="none")


def test_changed_pictures_are_read_again_and_the_old_map_goes(tmp_path, capsys):
    folder = make_folder(tmp_path, 10)
    open_all(folder)
    cv2.imwrite(str(folder / "a" / "00004.png"), np.full((70, 70, 3), 9, np.uint8))
    assert "some changed" not in capsys.readouterr().out
    squares = open_all(folder)
    assert "some changed since they were read" in capsys.readouterr().out
    assert torch.equal(squares, decoded(folder)) and (squares[2] == 9).all()
    assert len(list((folder / ".pictures").glob("*.npy"))) == 2  # the map and its states


def test_other_sizes_and_other_pictures_have_maps_of_their_own(tmp_path):
    folder = make_folder(tmp_path / "data", 10)
    kept = tmp_path / "kept"
    open_all(folder, cache_dir=kept)
    open_pictures(read_collection(folder), 2 * SIZE, CPU, cache="disk", cache_dir=kept)
    make_folder(tmp_path / "data", 12)
    squares = open_all(folder, cache_dir=kept)
    assert torch.equal(squares, decoded(folder)) and len(list(kept.glob("*.state.npy"))) == 3


@pytest.mark.parametrize("damage", ["map gone", "map cut short", "map of another shape", "states gone", "states cut"])
def test_a_damaged_map_is_read_again(tmp_path, damage):
    folder = make_folder(tmp_path, 10)
    expected = open_all(folder)
    map_path, state_path, _ = cache_paths(read_collection(folder), SIDE, folder / ".pictures")
    path = map_path if damage.startswith("map") else state_path
    if damage.endswith("gone"):
        path.unlink()
    elif damage.endswith("shape"):
        np.save(path, np.zeros((3, 3), np.uint8))
    else:
        os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(open_all(folder), expected)


def test_killed_while_reading_it_continues_where_it_was(tmp_path):
    folder = make_folder(tmp_path / "data", 900, 300)
    state_path = cache_paths(read_collection(folder), SIDE, tmp_path)[1]
    process = start_process(folder, "disk", tmp_path)
    while not state_path.exists() or (done := np.load(state_path)).sum() < 256:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    done = np.flatnonzero(np.load(state_path))
    assert 256 <= len(done) < 900
    expected = decoded(folder)
    collection = read_collection(folder)
    for row in done:  # what was read before is not read again
        replace_quietly(folder / collection.paths[row], b"garbage")
    assert torch.equal(open_all(folder, cache_dir=tmp_path), expected)


def test_two_runs_that_read_at_once_are_both_right(tmp_path):
    folder = make_folder(tmp_path / "data", 600, 200)
    processes = [start_process(folder, "disk", tmp_path / "kept") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    expected = f"sum {int(decoded(folder).long().sum())}"
    assert all(expected in out for out, _ in said), said
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2


@pytest.mark.parametrize("cache", ["disk", "auto"])
@pytest.mark.parametrize("trouble", ["full", "no folder"])
def test_a_disk_that_cannot_hold_them_is_said(tmp_path, cache, trouble):
    folder = make_folder(tmp_path / "data", 30)
    kept, limit = tmp_path / "kept", None
    if trouble == "full":
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    else:
        kept.write_text("a file where the folder should be")
    out, error = start_process(folder, cache, kept, preexec_fn=limit).communicate(timeout=60)
    if cache == "disk":
        assert error.startswith("refused: ") and str(kept) in error and "--cache none" in error
    else:
        assert f"sum {int(decoded(folder).long().sum())}" in out and "decoded anew" in out and str(kept) in out
    assert not list(tmp_path.glob("kept/*.npy*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said_but_a_finished_map_in_it_is_used(tmp_path, capsys):
    folder = make_folder(tmp_path / "data", 10)
    kept = tmp_path / "kept"
    open_all(folder, cache_dir=kept)
    kept.chmod(0o555)
    open_all(folder, cache_dir=kept)
    assert "anew" not in capsys.readouterr().out
    make_folder(folder, 12)
    open_all(folder, cache="auto", cache_dir=kept)
    assert "anew" in capsys.readouterr().out
    kept.chmod(0o755)


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_unreadable_pictures_are_named_or_left_out(tmp_path, cache, capsys):
    folder = make_folder(tmp_path, 12)
    for name in ("a/00002.png", "b/00003.png"):
        (folder / name).write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"a/00002\.png .*--skip-unreadable"):
        open_all(folder, cache=cache)
    collection = read_collection(folder)
    _, unreadable = open_pictures(collection, SIZE, CPU, cache=cache, skip_unreadable=True)
    assert [collection.paths[row] for row in unreadable] == ["a/00002.png", "b/00003.png"]
    assert "2 of 12 cannot be decoded and are left out, first a/00002.png" in capsys.readouterr().out


# Batches.


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_batches_are_fetched_a_little_ahead_and_no_further(tmp_path, cache):
    folder = make_folder(tmp_path, 10)
    pictures, _ = open_pictures(read_collection(folder), SIZE, CPU, cache=cache, workers=2)
    asked = []

    def rows():
        for step in range(1000):
            asked.append(step)
            yield np.array([step % 10])

    batches = pictures.batches(rows())
    for _ in range(3):
        next(batches)
    assert 4 <= len(asked) <= 10
    batches.close()
    assert len(asked) <= 10


def test_memory_is_flat_over_epochs_and_workers(tmp_path):
    folder = make_folder(tmp_path, 60)
    collection = read_collection(folder)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for cache in ("none", "disk"):
        pictures, _ = open_pictures(collection, SIZE, CPU, cache=cache, workers=4)
        seen = []
        for _ in range(40):
            for _ in pictures.batches([np.arange(60)] * 10):  # 0.7 MB each
                pass
            seen.append(resident())
        pictures.close()
        assert seen[-1] - seen[15] < 5_000_000, seen


# Crops.


def test_crops_are_whole_pixels_inside_the_picture_and_depend_on_the_seed_alone():
    crops = draw_crops(5000, 0.4, 256, seed=3)
    left, top, side, mirrored = crops.unbind(dim=1)
    assert crops.min() >= 0 and (left + side).max() == 256 and (top + side).max() == 256
    assert side.min() == pytest.approx(256 * 0.4**0.5, abs=1) and side.max() >= 255
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03) and set(mirrored.tolist()) == {0, 1}
    assert torch.equal(crops, draw_crops(5000, 0.4, 256, seed=3)) and not torch.equal(
        crops, draw_crops(5000, 0.4, 256, 4)
    )
    assert torch.equal(draw_crops(9, 1, 256, 0)[:, :3], torch.tensor([[0, 0, 256]] * 9))


def test_both_ways_to_crop_see_the_same():
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)
    squares = np.stack([cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise])
    crops = draw_crops(32, 0.3, 64, seed=0)
    for size in (56, 40, 90):
        rounded = torch.from_numpy(crop_on_cpu(squares, size, crops)).float()
        exact = crop_on_gpu(torch.from_numpy(squares), size, crops)
        # At a crop's edge one repeats its own pixels and the other looks at those beside it.
        assert (rounded - exact)[:, 3:-3, 3:-3].abs().max() < 1


def test_colours_are_centred_and_a_whole_crop_is_the_picture():
    squares = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    mean, deviation = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.1])
    expected = ((squares / 255 - mean) / deviation).permute(0, 3, 1, 2)
    whole, mirrored = torch.tensor([[0, 0, 64, 0]] * 4), torch.tensor([[0, 0, 64, 1]] * 4)
    assert torch.allclose(prepare(squares, 64, mean, deviation, whole), expected, atol=1e-5)
    assert torch.allclose(prepare(squares, 64, mean, deviation, mirrored), expected.flip(3), atol=1e-5)
    assert torch.allclose(prepare(squares, 56, mean, deviation), expected[:, :, 4:60, 4:60], atol=1e-5)
    assert prepare(squares, 56, mean, deviation).is_contiguous(memory_format=torch.channels_last)


# The numbers.


def test_training_gives_the_same_numbers_through_each_cache_and_any_number_of_workers(
    collection, tmp_path, monkeypatch
):
    monkeypatch.setitem(networks.BACKBONES, "tiny", tiny)
    seen = []
    for cache, workers in (("none", 1), ("none", 3), ("disk", 1), ("device", 2)):
        kept = ("--cache", cache, "--workers", workers, "--cache-dir", tmp_path / "kept")
        runs = [tmp_path / f"{cache} {workers} {stage}" for stage in (1, 2)]
        run_main(classification_net, "--data", collection, "--run", runs[0], "--epochs", 2, *kept, *TINY, *PLAIN)
        run_main(train, "--data", collection, "--stage1", runs[0], "--run", runs[1], "--epochs", 2, *kept, *PLAIN)
        seen.append(runs)
    for runs in seen[1:]:
        for run, first in zip(runs, seen[0], strict=True):
            assert_same_run(run, first)


def test_a_run_that_reads_the_pictures_can_be_interrupted(tmp_path):
    folder = make_folder(tmp_path / "data", 900, 300)
    state_path = cache_paths(read_collection(folder), SIDE, tmp_path / "kept")[1]
    command = ["classification_net.py", "--data", folder, "--cache-dir", tmp_path / "kept", "--run", tmp_path / "run"]
    words = [sys.executable, *map(str, command), "--image-size", str(SIZE), "--arch", "resnet18", *QUIET]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not state_path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error
