"""Both stages as a user runs them: what a run leaves behind, how stage 2 hangs together with stage 1, and the refusals."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import QUICK, QUIET, ROOT, SMALL, run_command, run_main
from running import TINY, tiny

import classification_net
import train
import training
from dataset import BAM_STYLES, read_collection
from networks import BACKBONES, COLOURS, rebuild
from pictures import open_pictures
from session import Session
from utils import UserError


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# What a run leaves behind.


@pytest.mark.parametrize(
    ("fixture", "columns"),
    [
        ("stage1_run", "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second,seconds"),
        (
            "stage2_run",
            "epoch,train_loss,train_triplet_accuracy,val_loss,val_triplet_accuracy,val_map,lr,images_per_second,seconds",
        ),
    ],
)
def test_a_run_leaves_its_whole_folder(fixture, columns, request):
    run = request.getfixturevalue(fixture)
    text = (run / "metrics.csv").read_text()
    assert text.splitlines()[0] == columns
    rows = read_rows(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert all(
        0 <= float(value) <= 1 for row in rows for name, value in row.items() if "accuracy" in name or "map" in name
    )
    assert cv2.imread(str(run / "curves.png")).shape[0] > 100
    assert not list(run.glob(".*.part"))


def test_config_and_split_say_everything_about_the_run(stage1_run, collection):
    config = json.loads((stage1_run / "config.json").read_text())
    assert config["classes"] == list(BAM_STYLES)
    assert config["settings"]["lr"] == 0.001 and config["settings"]["epochs"] == 2
    assert config["versions"]["torch"] == torch.__version__ and config["device"]
    found = read_collection(collection)
    assert config["data"]["fingerprint"] == found.fingerprint()
    split = {row["path"]: row["split"] for row in read_rows(stage1_run / "split.csv")}
    assert split == dict(zip(found.paths, found.split.tolist(), strict=True))


@pytest.mark.parametrize("fixture", ["stage1_run", "stage2_run"])
def test_best_weights_are_plain_data_that_rebuild_the_net(fixture, request):
    run = request.getfixturevalue(fixture)
    best = torch.load(run / "best.pt", weights_only=True)
    assert best["classes"] == list(BAM_STYLES) and best["label"] == "style" and best["image_size"] == 64
    embedding, classifier = rebuild(best, "here")
    assert (classifier is not None) == (fixture == "stage1_run")
    with torch.no_grad():
        assert embedding(torch.randn(1, 3, 64, 64)).shape == (1, 256)
    scores = [float(row["val_accuracy" if best["stage"] == 1 else "val_map"]) for row in read_rows(run / "metrics.csv")]
    assert best["score"] == pytest.approx(max(scores), rel=1e-5) and best["epoch"] == scores.index(max(scores)) + 1


def test_the_same_seed_gives_the_same_weights_and_another_one_others(stage1_run, collection, tmp_path):
    for seed in (0, 1):
        options = ("--data", collection, "--epochs", 2, "--seed", seed, *QUICK)
        run_main(classification_net, "--run", tmp_path / str(seed), *options)
    before, again, other = (
        torch.load(run / "last.pt", weights_only=True)["net"] for run in (stage1_run, tmp_path / "0", tmp_path / "1")
    )
    assert all(torch.equal(before[name], again[name]) for name in before)
    assert any(not torch.equal(before[name], other[name]) for name in before)


# From stage 1 to stage 2.


def test_stage_2_starts_from_the_best_weights_of_stage_1(stage1_run, collection, tmp_path):
    # A rate so small that nothing moves, though a zero becomes an even smaller number: stage 2 saves what it loaded.
    run_main(
        train, "--data", collection, "--stage1", stage1_run, "--run", tmp_path / "s2", "--epochs", 1, "--lr", 1e-30,
        *QUIET,
    )  # fmt: skip
    loaded = torch.load(stage1_run / "best.pt", weights_only=True)["weights"]
    saved = torch.load(tmp_path / "s2" / "best.pt", weights_only=True)["weights"]
    assert saved.keys() == {name for name in loaded if name.startswith("embedding.")}
    learnt = [name for name in saved if not name.startswith("embedding.bottleneck") and "running" not in name
              and "num_batches" not in name]  # fmt: skip
    assert len(learnt) > 50 and max(saved[name].abs().max() for name in learnt) > 0.01
    assert all(torch.allclose(saved[name], loaded[name], rtol=0, atol=1e-25) for name in learnt)
    # The bottleneck is scaled as a whole, which changes no embedding of a set length.
    weight, bias = (loaded[f"embedding.bottleneck.{part}"] for part in ("weight", "bias"))
    factor = saved["embedding.bottleneck.weight"].norm() / weight.norm()
    assert torch.allclose(saved["embedding.bottleneck.weight"], factor * weight, atol=1e-6)
    assert torch.allclose(saved["embedding.bottleneck.bias"], factor * bias, atol=1e-6)


def test_stage_2_starts_with_embeddings_of_a_mean_length(stage1_run, collection):
    net, _ = rebuild(torch.load(stage1_run / "best.pt", weights_only=True), "best.pt")
    found, device = read_collection(collection), torch.device("cpu")
    with contextlib.closing(open_pictures(found, 64, device)[0]) as pictures:
        equipment = training.Equipment(pictures, device, None, 64, COLOURS["centred"])
        before = training.predict(net.eval(), found.rows("train"), equipment)
        train.scale_bottleneck(net, Session(stage1_run, found, equipment), seed=0)
        after = training.predict(net.eval(), found.rows("train"), equipment)
    assert not 1 < before.norm(dim=1).mean() < 2
    assert after.norm(dim=1).mean() == pytest.approx(1.5, rel=1e-3)
    assert torch.cosine_similarity(before, after).min() > 0.999


def test_the_content_pipeline_is_the_same_two_scripts(collection, tmp_path):
    common = ("--data", collection, "--epochs", 1, "--no-visdom")
    run_main(classification_net, "--label", "content", "--run", tmp_path / "1", *SMALL, *common)
    run_main(train, "--stage1", tmp_path / "1", "--run", tmp_path / "2", *common)
    best = torch.load(tmp_path / "2" / "best.pt", weights_only=True)
    assert best["label"] == "content" and len(best["classes"]) == 9 and best["arch"] == "resnet18"


def test_pictures_of_unknown_content_are_left_out_of_the_content_pipeline(collection, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(collection, data)
    found = read_collection(collection)
    rows = zip(found.paths, map(found.style_name, range(len(found))), found.split, strict=True)
    lines = [f"{path},{style},{found.content_name(row) if row % 10 else ''},{split}" for row, (path, style, split) in
             enumerate(rows)]  # fmt: skip
    (data / "index.csv").write_text("\n".join(["path,style,content,split", *lines]))
    assert {"train", "val"} <= set(found.split[::10])
    common = ("--data", data, "--epochs", 1, "--no-visdom")
    run_main(classification_net, "--label", "content", "--run", tmp_path / "1", *SMALL, *common)
    for options in ((), ("--mining", "batch")):
        run = tmp_path / f"2{len(options)}"
        run_main(train, "--stage1", tmp_path / "1", "--run", run, *options, *common)
        (row,) = read_rows(run / "metrics.csv")
        assert 0 < float(row["val_map"]) <= 1 and float(row["train_loss"]) > 0


def train_tiny(folder: Path, collection: Path, run: Path, *options: object) -> list[dict[str, str]]:
    """Run stage 2 on a tiny net's stage 1, `folder`/1; a hundred steps, so that warm-up takes ten."""
    common = ("--data", collection, "--stage1", folder / "1", "--run", run, "--epochs", 5, "--batch-size", 8)
    run_main(train, *common, "--lr", 0.05, *options, *QUIET)
    return read_rows(run / "metrics.csv")


@pytest.fixture(scope="module")
def tiny_runs(collection, tmp_path_factory) -> Iterator[Path]:
    """A folder with a run of both stages, 1 and 2, of a tiny net."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", tiny)
        run_main(classification_net, "--data", collection, "--run", folder / "1", "--epochs", 5, *TINY, *QUIET)
        train_tiny(folder, collection, folder / "2")
        yield folder


@pytest.mark.parametrize(
    "options",
    [("--average", "all"), ("--mining", "batch"), ("--no-normalise",), ("--length", 1), ("--margin", 0.4),
     ("--momentum", 0), ("--crop-area", 1), ("--warm-up", 0), ("--decay", "none")],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_every_choice_in_stage_2_can_be_taken_back_and_makes_a_difference(tiny_runs, collection, tmp_path, options):
    rows, default = (
        train_tiny(tiny_runs, collection, tmp_path / "run", *options),
        read_rows(tiny_runs / "2/metrics.csv"),
    )
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert [row["train_loss"] for row in rows] != [row["train_loss"] for row in default]
    assert all(float(row["train_loss"]) > 0 for row in rows) and float(rows[0]["train_triplet_accuracy"]) > 0


@pytest.fixture(scope="module")
def alexnet_losses(collection, tmp_path_factory) -> list[str]:
    """The loss of an epoch of stage 1 with AlexNet at the defaults."""
    return train_alexnet(collection, tmp_path_factory.mktemp("alexnet") / "run")


def train_alexnet(collection: Path, run: Path, *options: object) -> list[str]:
    """Train AlexNet for an epoch; return its training loss, and leave nothing of its gigabyte."""
    common = ("--data", collection, "--run", run, "--epochs", 1, "--image-size", 64, *QUIET)
    run_main(classification_net, *common, *options)
    losses = [row["train_loss"] for row in read_rows(run / "metrics.csv")]
    shutil.rmtree(run)
    return losses


@pytest.mark.parametrize(
    "options",
    [("--init", "he"), ("--init", "torchvision"), ("--rate-width", 0), ("--dropout", 0.5)],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_every_choice_for_alexnet_can_be_taken_back_and_makes_a_difference(
    alexnet_losses, collection, tmp_path, options
):
    losses = train_alexnet(collection, tmp_path / "run", *options)
    assert np.isfinite(float(losses[0])) and losses != alexnet_losses


@pytest.mark.parametrize(
    "options",
    [("--colours", "unit"), ("--crop-area", 1), ("--decay", "none"), ("--warm-up", 0)],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_every_choice_in_stage_1_can_be_taken_back_and_makes_a_difference(tiny_runs, collection, tmp_path, options):
    run_main(
        classification_net, "--data", collection, "--run", tmp_path / "run", "--epochs", 5, *TINY, *QUIET, *options
    )
    rows, default = read_rows(tmp_path / "run/metrics.csv"), read_rows(tiny_runs / "1/metrics.csv")
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert [row["train_loss"] for row in rows] != [row["train_loss"] for row in default]


def test_embeddings_that_keep_their_length_are_not_scaled(stage1_run, collection, tmp_path):
    options = ("--run", tmp_path / "run", "--epochs", 1, "--lr", 1e-30, "--no-normalise", *QUIET)
    run_main(train, "--data", collection, "--stage1", stage1_run, *options)
    before, after = (
        torch.load(run / "best.pt", weights_only=True)["weights"] for run in (stage1_run, tmp_path / "run")
    )
    for part in ("weight", "bias"):
        assert torch.equal(before[f"embedding.bottleneck.{part}"], after[f"embedding.bottleneck.{part}"])


def test_stage_2_takes_triplets_from_a_file_even_without_styles(stage1_run, collection, tmp_path):
    found = read_collection(collection)
    (tmp_path / "names.txt").write_text("\n".join(found.paths))
    # Without styles the split cannot be stage 1's: train on what was not for training there is refused.
    rows = {split: found.rows(split).tolist() for split in ("train", "val")}
    lines = [f"{r[i]} {r[i + 1]} {r[i + 2]}" for r in rows.values() for i in range(0, len(r) - 2, 3)]
    (tmp_path / "triplets.txt").write_text("\n".join(lines))
    run_main(
        train, "--data", collection, "--filenames", tmp_path / "names.txt", "--triplets", tmp_path / "triplets.txt",
        "--stage1", stage1_run, "--run", tmp_path / "s2", "--epochs", 1, *QUIET,
    )  # fmt: skip
    row = read_rows(tmp_path / "s2" / "metrics.csv")[0]
    assert row["val_map"] == "" and 0 <= float(row["val_triplet_accuracy"]) <= 1


def test_stage_2_refuses_a_split_that_leaks_stage_1s_training_pictures(stage1_run, collection, tmp_path):
    with pytest.raises(UserError, match="trained on are now for validation or test.*--split-seed"):
        run_main(
            train, "--data", collection, "--stage1", stage1_run, "--run", tmp_path / "s2", "--split-seed", 1, *QUIET
        )


def test_stage_2_refuses_a_stage_1_of_other_classes(stage1_run, collection, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(collection, fewer, ignore=shutil.ignore_patterns("index.csv", "Comic", ".pictures", "demo.json"))
    with pytest.raises(UserError, match="was trained on the styles .*Comic"):
        run_main(train, "--data", fewer, "--stage1", stage1_run, "--run", tmp_path / "s2", *QUIET)


# What bad input gets: one line on stderr, exit status 2, no traceback.


def refuse(*command: object, says: str) -> None:
    """Run a script as a user would and expect a refusal in one line that has `says` in it."""
    done = run_command(*command)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and says in lines[0], done.stderr


def test_no_data_folder(tmp_path):
    refuse("classification_net.py", "--data", tmp_path / "none", "--run", tmp_path / "run", says="no such data folder")


def test_a_picture_that_cannot_be_decoded_is_named_and_can_be_left_out(collection, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(collection, broken, ignore=shutil.ignore_patterns(".pictures"))
    victim = "Comic/bird/bird_0000.jpg"
    (broken / victim).write_bytes(b"this is no picture")
    options = ("--data", broken, "--run", tmp_path / "run", "--epochs", 1, *QUICK)
    refuse("classification_net.py", *options, says=victim)
    done = run_command("classification_net.py", *options, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    assert "1 of 198 cannot be decoded" in done.stdout
    split = {row["path"]: row["split"] for row in read_rows(tmp_path / "run" / "split.csv")}
    assert split.pop(victim) == "unreadable" and "unreadable" not in split.values()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(collection, tmp_path):
    refuse(
        "classification_net.py", "--data", collection, "--run", tmp_path / "r", "--device", "cuda", says="--device cpu"
    )


def test_stage_2_without_stage_1(collection, tmp_path):
    refuse("train.py", "--data", collection, "--stage1", tmp_path, "--run", tmp_path / "r", says="no such file")


def test_a_checkpoint_of_something_else(collection, tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "best.pt")
    refuse(
        "train.py", "--data", collection, "--stage1", tmp_path, "--run", tmp_path / "r", says="checkpoint of something"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--mining", "batch", "--triplets", "t.txt"), "--mining batch: makes its own triplets"),
        (("--no-normalise", "--length", 0.5), "--length: embeddings keep their own with --no-normalise"),
        (("--warm-up", -1), "argument --warm-up: -1 is less than 0"),
        (("--mining", "batch", "--batch-size", 3), "--batch-size 3: holds no triplets"),
    ],
)
def test_options_that_do_not_go_together(stage1_run, collection, tmp_path, options, complaint):
    command = ("train.py", "--data", collection, "--stage1", stage1_run, "--run", tmp_path / "run", *options)
    done = run_command(*command)
    assert done.returncode == 2 and complaint in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_dropout_in_a_net_without_a_place_for_it(collection, tmp_path):
    command = ("classification_net.py", "--data", collection, "--run", tmp_path / "run", "--arch", "resnet18")
    refuse(*command, "--dropout", 0.5, says="--dropout: resnet18 has no place for it")


def test_a_folder_that_holds_another_run_or_anything_else(stage1_run, collection, tmp_path):
    before = (stage1_run / "last.pt").read_bytes()
    refuse("classification_net.py", "--data", collection, "--run", stage1_run, says="--resume")
    assert (stage1_run / "last.pt").read_bytes() == before
    (tmp_path / "thesis.tex").write_text("precious")
    refuse("classification_net.py", "--data", collection, "--run", tmp_path, says="holds no run")


def test_options_that_contradict_the_run_that_is_resumed(stage1_run, collection):
    with pytest.raises(UserError, match=r"--lr 0.5: the run in .* was started with 0.001"):
        run_main(classification_net, "--data", collection, "--run", stage1_run, "--resume", "--lr", 0.5)


def test_a_start_that_was_refused_leaves_its_folder_to_the_corrected_command(collection, tmp_path):
    options = ("--data", collection, "--run", tmp_path / "run", "--epochs", 1, *QUIET)
    with pytest.raises(UserError, match="too small"):
        run_main(classification_net, *options, "--image-size", 32)
    run_main(classification_net, *options, "--image-size", 64)
    assert json.loads((tmp_path / "run/config.json").read_text())["settings"]["image_size"] == 64


def test_a_resumed_run_keeps_its_data_its_stage_1_and_its_triplets(stage1_run, collection, tmp_path, capsys):
    found = read_collection(collection)
    rows = {split: found.rows(split).tolist() for split in ("train", "val")}
    lines = [f"{r[i]} {r[i + 1]} {r[i + 2]}" for r in rows.values() for i in range(0, len(r) - 2, 3)]
    (tmp_path / "triplets.txt").write_text(
        "\n".join([*lines, f"{rows['train'][0]} {rows['train'][1]} {rows['val'][0]}"])
    )
    options = ("--triplets", tmp_path / "triplets.txt", "--epochs", 2, *QUIET)
    run_main(train, "--data", collection, "--stage1", stage1_run, "--run", tmp_path / "run", *options)
    said = capsys.readouterr().out
    assert f"triplets: {len(rows['train']) // 3} train, {len(rows['val']) // 3} val, 0 test; those of" in said
    run_main(train, "--run", tmp_path / "run", "--resume", "--no-visdom")
    said = capsys.readouterr().out
    assert "started with: --epochs 2 --amp off" in said
    assert "triplets: " in said
    other = tmp_path / "other"
    run_main(classification_net, "--data", collection, "--run", other, "--epochs", 1, *QUICK, "--image-size", 72)
    with pytest.raises(UserError, match="has image_size 72, the one that .* began with 64"):
        run_main(train, "--run", tmp_path / "run", "--resume", "--stage1", other)


def test_without_two_validation_pictures_of_a_style_triplets_choose_the_best_epoch(stage1_run, collection, tmp_path):
    split = {row["path"]: row["split"] for row in read_rows(stage1_run / "split.csv")}
    seen = set()
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "style", "split"))
        for path, name in split.items():
            style = path.split("/")[0]
            if name == "train" or (style, name) not in seen:
                writer.writerow((path, style, name))
                seen.add((style, name))
    for style in {style for style, _ in seen}:
        (tmp_path / style).symlink_to(collection / style)
    found = read_collection(tmp_path)
    rows = {name: found.rows(name).tolist() for name in ("train", "val")}
    assert len(rows["val"]) >= 3
    (tmp_path / "triplets.txt").write_text("\n".join(f"{r[0]} {r[1]} {r[2]}" for r in rows.values()))
    run_main(train, "--data", tmp_path, "--triplets", tmp_path / "triplets.txt", "--stage1", stage1_run,
             "--run", tmp_path / "run", "--epochs", 1, *QUIET)  # fmt: skip
    assert read_rows(tmp_path / "run/metrics.csv")[0]["val_map"] == ""
    assert (tmp_path / "run/best.pt").exists()


def test_resuming_on_other_data_is_refused(stage1_run, collection, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(collection, other, ignore=shutil.ignore_patterns(".pictures", "index.csv"))
    (other / "Comic/bird/bird_0000.jpg").unlink()
    with pytest.raises(UserError, match="is not the data that the run"):
        run_main(classification_net, "--data", other, "--run", stage1_run, "--resume", *QUIET)


@pytest.mark.parametrize("script", [classification_net, train])
def test_every_option_is_read_by_its_stage(script):
    stage = ("session", "training", "triplets", "run_folder", "curves", "utils", script.__name__)
    text = "".join((ROOT / f"{name}.py").read_text() for name in stage)
    for action in script.get_parser()._actions:
        if action.dest != "help":
            assert re.search(rf"args\.{action.dest}\b", text), action.dest


@pytest.mark.parametrize("active_only", [False, True])
def test_a_step_goes_by_the_mean_over_all_examples_or_over_the_active_ones(tmp_path, active_only):
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(net.weight)
    colours = ((0.5,) * 3, (0.5,) * 3)
    equipment = training.Equipment(None, torch.device("cpu"), None, 64, colours)
    task = training.Task(
        net, torch.optim.SGD(net.parameters(), lr=1.0), lambda epoch: [], lambda outputs, rows: (
            outputs[:, 0].relu(), outputs[:, 0] > 0), dict, ("epoch",), "", {}, active_only,
    )  # fmt: skip
    loop = training.Loop(task, tmp_path, Namespace(compile=False), equipment)
    sums = loop.train_step(torch.tensor([[4.0], [2.0], [-1.0], [-3.0]]), torch.zeros(4, 1), 4)
    assert sums[0] == 6  # what is logged is the mean over all either way
    assert net.weight.item() == pytest.approx(1 - 6 / (2 if active_only else 4))
    loop.train_step(torch.full((4, 1), 5.0) * -net.weight.sign(), torch.zeros(4, 1), 4)  # none active: no step, no NaN
    assert net.weight.item() == pytest.approx(1 - 6 / (2 if active_only else 4))
