"""What many tests need: a small collection, and a finished run of each stage on it."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import stage1, stage2

torch.set_num_threads(1)
# A shell that starts the tests in the background has interrupts ignored, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

STYLES = ("gradient", "noise", "stripes")
CONTENTS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def draw(style: str, content: str, generator: np.random.Generator) -> Image.Image:
    """A picture whose texture is the style and whose colour is the content."""
    rows, columns = np.mgrid[:40, :40]
    noise, stripes = generator.uniform(-1, 1, (40, 40)), (columns + generator.integers(6)) % 6 < 3
    texture = {"gradient": (rows + columns) / 40 - 1, "noise": noise, "stripes": 2.0 * stripes - 1}[style]
    colour = np.array(CONTENTS[content]) + generator.integers(-50, 50, 3)
    picture = colour + 50 * texture[:, :, None] + generator.normal(0, 5, (40, 40, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def draw_collection(folder: Path, per_cell: int) -> Path:
    """A folder of three styles and three contents, `per_cell` pictures of each pair."""
    generator = np.random.default_rng(0)
    for style in STYLES:
        for content in CONTENTS:
            place = folder / style / content
            place.mkdir(parents=True)
            for number in range(per_cell):
                draw(style, content, generator).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pictures: 72 to train on, 9 to validate and 9 to test."""
    return draw_collection(tmp_path_factory.mktemp("collection") / "pictures", 10)


@pytest.fixture
def data(collection: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return shutil.copytree(collection, tmp_path / "data", ignore=shutil.ignore_patterns(".pictures"))


@pytest.fixture(scope="session")
def stage1_run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of stage 1: three epochs of nine steps."""
    run = tmp_path_factory.mktemp("runs") / "stage1"
    stage1(collection, run)
    return run


@pytest.fixture(scope="session")
def stage2_run(stage1_run: Path) -> Path:
    """A finished run of stage 2: three epochs of nine steps that start from `stage1_run`."""
    run = stage1_run.parent / "stage2"
    stage2(stage1_run, run)
    return run
