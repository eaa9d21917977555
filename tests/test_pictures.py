"""Pictures are decoded once, into a memory map that later runs use, and cropped and centred from there."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from running import STAGE1, run_elsewhere

import dataset
from dataset import (
    batches,
    crop_on_cpu,
    crop_on_gpu,
    draw_crops,
    load_pictures,
    read_collection,
    read_picture,
    to_square,
)
from utils import UserError

SIZE, SIDE = 56, 64  # what the net would see, and the squares that are kept


def make_folder(folder: Path, numbers: range) -> Path:
    """Two styles of pictures of noise, each by its own seed."""
    for number in numbers:
        place = folder / "ab"[number % 2] / f"{number:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (80, 70, 3), dtype=np.uint8)).save(place)
    return folder


def load(folder: Path, cache: Path | None = None) -> torch.Tensor:
    return load_pictures(read_collection(folder), SIZE, torch.device("cpu"), cache)[1]


def decoded(folder: Path) -> torch.Tensor:
    """What `load` should give."""
    paths = read_collection(folder).paths
    return torch.from_numpy(np.stack([to_square(read_picture(folder / path), SIDE) for path in paths]))


def test_pictures_are_decoded_once_and_what_changes_costs_itself_alone(tmp_path, monkeypatch):
    seen, folder = [], make_folder(tmp_path, range(10))
    expected = decoded(folder)
    monkeypatch.setattr(dataset, "read_picture", lambda path, side: seen.append(path.name) or read_picture(path, side))
    for _ in range(2):
        assert torch.equal(load(folder), expected) and len(seen) == 10
    make_folder(folder, range(10, 12))
    (folder / "a/00.png").unlink()
    Image.fromarray(np.full((70, 70, 3), 9, np.uint8)).save(folder / "a/04.png")
    squares = load(folder)
    assert sorted(seen[10:]) == ["04.png", "10.png", "11.png"] and (squares[1] == 9).all()
    assert torch.equal(squares, decoded(folder))
    (old,) = (folder / ".pictures").glob("*.squares")  # and no other
    known = dict.fromkeys(read_collection(folder).paths[:3], "train")
    fewer = load_pictures(read_collection(folder, known=known), SIZE, torch.device("cpu"), None)[1]
    assert torch.equal(fewer, decoded(folder)[:3]) and torch.equal(squares, decoded(folder)), "what is open stays"
    old.unlink()
    assert torch.equal(load(folder), decoded(folder))


def test_pictures_that_cannot_be_read_are_named_up_to_twenty_and_counted_or_left_out(tmp_path, capsys):
    folder = make_folder(tmp_path, range(50))
    for number in range(0, 50, 2):
        (folder / f"a/{number:02d}.png").write_bytes(b"no picture")
    make_folder(folder, range(100, 104, 2))
    for _ in range(2):  # the second time from the map
        with pytest.raises(UserError, match=r"25 pictures cannot be read: a/00\.png .*--skip-unreadable") as caught:
            load(folder)
        assert str(caught.value).count(".png") == 20
    found, squares = load_pictures(read_collection(folder), SIZE, torch.device("cpu"), None, True)
    assert "25 pictures cannot be read: a/00.png" in capsys.readouterr().out and len(squares) == len(found.paths) == 52
    assert (found.split == "").sum() == 25 and found.split[found.paths.index("a/02.png")] == ""


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder with pictures, while this process has no more rights than anybody has."""
    folder, owner = Path(tempfile.mkdtemp()), os.geteuid()
    nobody = -1 if owner else 65534  # -1: all stays as it is
    make_folder(folder / "data", range(10))
    for path in (folder, folder / "data/a/04.png"):
        path.chmod(0o777)
        os.chown(path, nobody, nobody)
    (folder / "data").chmod(0o555)
    os.setresuid(nobody, nobody, -1)
    yield folder
    os.setresuid(owner, owner, -1)
    (folder / "data").chmod(0o755)
    shutil.rmtree(folder)


def test_a_data_folder_that_cannot_be_written_gets_its_map_in_the_users_cache(as_nobody, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(as_nobody / "cache"))
    assert torch.equal(load(as_nobody / "data"), decoded(as_nobody / "data"))
    said = capsys.readouterr().out
    assert "cannot be written" in said and str(as_nobody / "cache/sketching-with-style") in said
    assert len(list(as_nobody.glob("cache/sketching-with-style/*/*.squares"))) == 1


def test_a_picture_without_read_rights_is_an_error_that_is_not_remembered(as_nobody):
    picture = as_nobody / "data/a/04.png"
    picture.chmod(0o000)
    with pytest.raises(PermissionError, match=str(picture)):
        load(as_nobody / "data", as_nobody / "cache")
    picture.chmod(0o644)
    assert torch.equal(load(as_nobody / "data", as_nobody / "cache"), decoded(as_nobody / "data"))
    assert len(list(as_nobody.glob("cache/*/*.squares"))) == 1 and not (as_nobody / "data/.pictures").exists()


def test_a_folder_without_read_rights_is_said(as_nobody, capsys):
    closed = make_folder(as_nobody / "own", range(4)) / "a" / "closed"
    closed.mkdir(mode=0o000)
    assert len(read_collection(as_nobody / "own").paths) == 4
    assert f"1 in {closed} (Permission denied)" in capsys.readouterr().out


def test_a_map_that_finds_the_disk_full_is_an_error_and_leaves_nothing(tmp_path):
    folder = make_folder(tmp_path / "data", range(40))
    limit = (resource.setrlimit, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    said = run_elsewhere(STAGE1, folder, tmp_path / "run", "--image-size", 224, status=1, before=limit)
    assert "choose another folder" in said.splitlines()[-1] and ".pictures" in said.splitlines()[-1]
    assert not list((folder / ".pictures").glob("[!.]*"))


# From squares to what the net sees.


def test_crops_are_whole_pixels_inside_the_square_and_depend_on_the_generator_alone():
    rows = np.arange(5000)
    crops = draw_crops(rows, 0.4, True, 256, np.random.default_rng(3))
    row, left, top, side, mirrored = crops.unbind(dim=1)
    assert row.tolist() == rows.tolist()
    assert crops.min() >= 0 and (left + side).max() == 256 and (top + side).max() == 256
    assert side.min() == pytest.approx(256 * 0.4**0.5, abs=1) and side.max() >= 255
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03) and set(mirrored.tolist()) == {0, 1}
    assert torch.equal(crops, draw_crops(rows, 0.4, True, 256, np.random.default_rng(3)))
    plain = draw_crops(np.full((3, 3), 7), 1.0, False, 256, np.random.default_rng(0))
    assert torch.equal(plain, torch.tensor([7, 0, 0, 256, 0]).expand(3, 3, 5))


@pytest.mark.parametrize("size", [56, 40, 90])
def test_both_ways_to_crop_see_the_same(size):
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)
    squares = torch.from_numpy(np.stack([cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise]))
    crops = draw_crops(np.arange(32), 0.3, True, 64, np.random.default_rng(0))[:, 1:]
    difference = crop_on_cpu(squares, size, crops) - crop_on_gpu(squares, size, crops)
    # At a crop's edge one repeats its own pixels and the other looks at those beside it.
    assert difference[:, 3:-3, 3:-3].abs().max() < 1


def test_colours_are_centred_and_a_whole_crop_is_the_picture():
    squares = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((squares / 255 - mean) / deviation).permute(0, 3, 1, 2)
    whole, mirrored = (torch.tensor([[row, 0, 0, 64, mirror] for row in range(4)]) for mirror in (0, 1))
    rows = torch.arange(4)[:, None]

    def see(batch: torch.Tensor, size: int, colours: str) -> torch.Tensor:
        return next(batches(squares, [batch], torch.device("cpu"), size, colours))[1]

    assert torch.allclose(see(whole, 64, "centred"), expected, atol=1e-5)
    assert torch.allclose(see(mirrored, 64, "centred"), expected.flip(3), atol=1e-5)
    assert torch.allclose(see(rows, 56, "centred"), expected[:, :, 4:60, 4:60], atol=1e-5)
    assert torch.allclose(see(rows, 64, "unit"), (squares / 255).permute(0, 3, 1, 2), atol=1e-6)
