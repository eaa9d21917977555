"""Both stages as a user runs them: what a run leaves behind and learns, stopped and resumed runs, refusals."""

import json
import os
import resource
import shutil
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import running
import torch
from conftest import CONTENTS, STYLES, draw_collection
from running import STAGE1, STAGE2, assert_same_run, read_rows, refuse_locks, run_elsewhere, stage1, stage2, strike

import classification_net
import train
from dataset import read_collection
from networks import load_net
from retrieval import evaluate
from retrieval.embedding import load
from triplet_network import average_precisions
from utils import UserError, rate_at, write_table

COLUMNS = {
    1: "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second,seconds",
    2: "epoch,train_loss,train_triplet_accuracy,val_loss,val_triplet_accuracy,val_map,lr,images_per_second,seconds",
}


@pytest.fixture(params=[STAGE1, STAGE2])
def finished(request, collection, stage1_run, stage2_run) -> tuple[str, Path, Path]:
    """A stage's script, what its runs begin with, and a finished one."""
    return (STAGE1, collection, stage1_run) if request.param == STAGE1 else (STAGE2, stage1_run, stage2_run)


def outputs(run: Path, collection: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What a run's net makes of the validation pictures, class scores or embeddings, and their styles."""
    net, found = load(run), read_collection(collection)
    rows = np.flatnonzero(found.split == "val")
    pictures = [collection / found.paths[row] for row in rows]
    return net.scores(pictures) if net.head else net(pictures), torch.from_numpy(found.number["style"][rows])


# What a run leaves behind.


def test_a_run_leaves_five_files(finished, collection):
    _, _, run = finished
    names = {path.name for path in run.iterdir()} - {".lock"}
    assert names == {"config.json", "split.csv", "metrics.csv", "weights.pt", "resume.pt"}
    rows, last = read_rows(run / "metrics.csv"), torch.load(run / "weights.pt", weights_only=True)
    assert (run / "metrics.csv").read_text().splitlines()[0] == COLUMNS[last["stage"]]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    found = read_collection(collection)
    split = {row["path"]: row["split"] for row in read_rows(run / "split.csv")}
    assert split == dict(zip(found.paths, found.split.tolist(), strict=True))
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["epochs"] == 3 and config["net"]["classes"] == list(STYLES)
    assert config["torch"] == torch.__version__ and config["data"]["folder"] == str(collection)


def test_the_weights_are_plain_data_that_give_the_last_validation_again(stage1_run, stage2_run, collection):
    saved = torch.load(stage2_run / "weights.pt", weights_only=True)
    assert saved["classes"] == list(STYLES) and saved["arch"] == "tiny" and saved["epoch"] == 3
    loss = torch.nn.functional.cross_entropy(*outputs(stage1_run, collection)).item()
    assert loss == pytest.approx(float(read_rows(stage1_run / "metrics.csv")[-1]["val_loss"]), rel=1e-4)
    precision = average_precisions(*outputs(stage2_run, collection)).nanmean().item()
    assert precision == pytest.approx(float(read_rows(stage2_run / "metrics.csv")[-1]["val_map"]), rel=1e-4)


def test_the_rate_warms_up_in_equal_steps_and_falls_as_half_a_cosine(stage1_run):
    rates = [rate_at(step, 110, 0.001, 10, "cosine") for step in range(110)]
    assert rates[:10] == pytest.approx([0.0001 * step for step in range(1, 11)])
    assert rates[10] == 0.001 and rates[60] == pytest.approx(0.0005)
    assert all(after < before for before, after in pairwise(rates[10:])) and 0 < rates[-1] < 1e-6
    expected = [rate_at(step, 27, 0.001, 100, "cosine") for step in (8, 17, 26)]
    assert [float(row["lr"]) for row in read_rows(stage1_run / "metrics.csv")] == pytest.approx(expected, rel=1e-4)


def test_plain_takes_back_every_departure_and_stage_2_keeps_stage_1s_split_label_and_net(
    collection, stage1_run, tmp_path
):
    first = stage1(collection, tmp_path / "1", "--plain", "--split-seed", 5, "--label", "content")
    second = stage2(tmp_path / "1", tmp_path / "2", "--plain")
    assert {row["lr"] for row in first + second} == {"0.001"}
    for number, script in enumerate((classification_net, train), 1):
        config = json.loads((tmp_path / str(number) / "config.json").read_text())
        assert config["departures"] == {name: plain for name, (_, plain) in script.DEPARTURES.items()}
    assert read_rows(tmp_path / "1/split.csv") == read_rows(tmp_path / "2/split.csv")
    facts, embedding, _ = load_net(tmp_path / "2")
    assert facts["colours"] == "unit" and facts["dropout"] is None
    assert embedding.backbone[5].p == 0.2 and load_net(stage1_run)[1].backbone[5].p == 0, "by default there is none"
    assert facts["label"] == "content" and facts["classes"] == sorted(CONTENTS)
    assert stage2(tmp_path / "1", tmp_path / "again", "--plain") == second, "dropout is drawn by the seed too"
    assert stage2(tmp_path / "1", tmp_path / "other", "--plain", "--seed", 1) != second


def test_triplets_that_name_a_picture_of_no_label_are_left_out(data, tmp_path, capsys):
    found = read_collection(data)
    train, val = (np.flatnonzero(found.split == split).tolist() for split in ("train", "val"))
    styles = [path.split("/")[0] if row not in (train[0], val[-1]) else "" for row, path in enumerate(found.paths)]
    write_table(data / "index.csv", ("path", "style", "split"), zip(found.paths, styles, found.split, strict=True))
    stage1(data, tmp_path / "1")
    lists = train[1:4], val[:3], train[:3], [*val[:2], val[-1]]
    (tmp_path / "list").write_text("".join(f"{a} {b} {c}\n" for a, b, c in lists))
    stage2(tmp_path / "1", tmp_path / "2", "--triplets", tmp_path / "list", "--epochs", 1)
    assert "triplets: 2 of 4" in capsys.readouterr().out


def test_sizes_that_differ_tenfold_and_too_little_for_stage_2_are_said(data, tmp_path, capsys):
    shutil.rmtree(data / "noise")
    for path in sorted(data.glob("stripes/*/*"))[4:]:
        path.unlink()
    stage1(data, tmp_path / "run")
    said = capsys.readouterr().out
    assert "differ more than tenfold in size: gradient 92.3%, stripes 7.7%" in said
    assert "too few for stage 2" in said and "as a mean over the classes" in said
    assert said.splitlines()[-1].startswith(f"next: python train.py --stage1 {tmp_path / 'run'}")


# The defaults learn.


@pytest.mark.parametrize("seed", [0, 1])
def test_styles_of_new_pictures_are_told_and_stage_2_makes_distance_mean_style_across_contents(tmp_path, seed):
    data, runs = draw_collection(tmp_path / "data", per_cell=30), [tmp_path / "1", tmp_path / "2"]
    common = ("--seed", seed, "--batch-size", 16)
    rows = stage1(data, runs[0], *common, "--lr", 0.01)
    assert float(rows[-1]["val_accuracy"]) > 0.6, "chance is 0.33"
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    rows = stage2(*runs, *common, "--epochs", 10, "--lr", 0.003)
    assert float(rows[-1]["val_triplet_accuracy"]) > 0.85, "chance is 0.5"
    assert float(rows[-1]["train_loss"]) < 0.15, "a loss at the margin, 0.2, is a collapse"
    running.run_main(evaluate, *runs, "--device", "cpu")
    metrics = [json.loads((run / "evaluation/metrics.json").read_text()) for run in runs]
    before, after = (one["map_cross_content"] for one in metrics)
    assert after > before + 0.1, "stage 2 should bring a style's pictures of other contents nearer"


# Stopped and resumed: the same numbers.


@pytest.mark.parametrize(("place", "times"), [("step", 14), ("file", 4), ("file", 5), ("file", 6)])
def test_killed_anywhere_and_resumed_it_ends_as_if_never_touched(finished, place, times, tmp_path):
    """In the middle of the second epoch; and in the first save, before weights.pt, before resume.pt, and after it."""
    script, begin, untouched = finished
    run, kill = tmp_path / "run", (strike, place, times, signal.SIGKILL)
    run_elsewhere(script, begin, run, status=-signal.SIGKILL, before=kill)
    run_elsewhere(script, begin, run, "--resume")
    assert_same_run(run, untouched)
    assert not list(run.glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run_with_one_line_that_says_where_it_goes_on(finished, number, tmp_path):
    script, begin, untouched = finished
    said = run_elsewhere(script, begin, tmp_path / "run", status=130, before=(strike, "step", 14, number))
    assert said.splitlines()[-1] == f"{script}: stopped; the same command with --resume goes on after epoch 1"
    for _ in range(2):  # the second time it is finished, and stays as it is
        assert "going on after epoch" in run_elsewhere(script, begin, tmp_path / "run", "--resume")
        assert_same_run(tmp_path / "run", untouched)


def test_keep_best_keeps_the_weights_of_the_best_epoch_stopped_twice_or_not(collection, tmp_path):
    options, whole, run = ("--keep", "best", "--epochs", 6, "--lr", 0.03), tmp_path / "whole", tmp_path / "run"
    rows = stage1(collection, whole, *options)
    accuracies = [float(row["val_accuracy"]) for row in rows]
    best = accuracies.index(max(accuracies)) + 1
    assert load_net(whole)[0]["epoch"] == best < 6, "otherwise this shows nothing"
    loss = torch.nn.functional.cross_entropy(*outputs(whole, collection)).item()
    assert loss == pytest.approx(float(rows[best - 1]["val_loss"]), rel=1e-3)
    for times in (14, 23):
        stop, status = (strike, "step", times, signal.SIGTERM), 130
        run_elsewhere(STAGE1, collection, run, *options, "--resume", status=status, before=stop)
    stage1(collection, run, *options, "--resume")
    assert_same_run(run, whole)


# Circumstances that end no run.


def ignore_hangup() -> None:
    """As under `nohup`, whose terminal is then closed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    strike("step", 3, signal.SIGHUP)


def close_output() -> None:
    """As of `>&- 2>&-`."""
    sys.stdout = sys.stderr = None


def lose_output() -> None:
    """Write into a pipe that nobody reads, as of `| head -1`."""
    read, write = os.pipe()
    os.close(read)
    sys.stdout, sys.stderr = (os.fdopen(write, "w", closefd=False) for _ in range(2))


@pytest.mark.parametrize("circumstance", [ignore_hangup, close_output, lose_output, refuse_locks])
def test_a_run_goes_through(circumstance, collection, stage1_run, tmp_path):
    said = run_elsewhere(STAGE1, collection, tmp_path / "run", before=(circumstance,))
    assert_same_run(tmp_path / "run", stage1_run)
    assert ("without locks" in said) == (circumstance is refuse_locks)


def test_names_of_any_bytes_and_a_launchers_leftovers_go_through_both_stages(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    os.rename(os.fsencode(data / "noise"), os.fsencode(data) + b"/br\xfbit\r")  # noqa: PTH104
    run_elsewhere(STAGE1, data, tmp_path / "1")
    run_elsewhere(STAGE2, tmp_path / "1", tmp_path / "2")
    assert load_net(tmp_path / "2")[0]["classes"][0] == "br\udcfbit\r"


# Refusals, each in one line.


def test_a_run_goes_on_with_its_own_options_and_data_alone(data, tmp_path):
    stage1(data, tmp_path / "run")
    with pytest.raises(UserError, match="holds a run; add --resume"):
        stage1(data, tmp_path / "run")
    with pytest.raises(UserError, match="began with --epochs 3; .*start from its weights by --weights"):
        stage1(data, tmp_path / "run", "--resume", "--epochs", 30)
    stage1(shutil.copytree(data, tmp_path / "copy"), tmp_path / "run", "--resume")
    shutil.copy(data / "noise/red/0.png", data / "stripes/red/0.png")
    with pytest.raises(UserError, match="began with .*other pictures, labels or splits"):
        stage1(data, tmp_path / "run", "--resume")


def test_a_folder_in_which_another_process_trains_is_refused(collection, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    options = running.options_of(STAGE1, collection, run)
    process = running.start(STAGE1, options, log, (strike, "step", 12, signal.SIGSTOP))
    while not (run / "resume.pt").exists() or Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
        time.sleep(0.01)
    with pytest.raises(UserError, match="another process trains in it"):
        stage1(collection, run, "--resume")
    os.kill(process.pid, signal.SIGCONT)
    running.finish(process, log)


def test_a_loss_that_is_not_finite_ends_the_run_without_weights(collection, tmp_path):
    said = run_elsewhere(STAGE1, collection, tmp_path / "run", "--plain", "--lr", 1e30, status=1).splitlines()[-1]
    assert "the loss is not finite in epoch 1" in said and "smaller --lr" in said
    assert not (tmp_path / "run/weights.pt").exists()


def test_a_full_disk_ends_the_run_and_it_goes_on_later(collection, stage1_run, tmp_path):
    run, size = tmp_path / "run", (stage1_run / "resume.pt").stat().st_size - 1
    limit = (resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    said = run_elsewhere(STAGE1, collection, run, status=1, before=limit)
    assert f"File too large (mend that, or choose another folder): '{run / 'resume.pt'}'" in said.splitlines()[-1]
    assert (run / "weights.pt").exists() and not list(run.glob(".*.part"))
    stage1(collection, run, "--resume")
    assert_same_run(run, stage1_run)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "nowhere"), r"--data nowhere: is no folder; .*bam\.harvest.*standin"),
        (("--arch", "alexnot"), "--arch alexnot: torchvision has no such classifier"),
        (("--arch", "fcn_resnet50"), "--arch fcn_resnet50: torchvision has no such classifier"),
        (("--arch", "alexnet"), "--image-size 32: does not fit the net"),
        (("--label", "content", "--data", "flat"), "--data .*flat: takes two contents at least"),
        (("--data", "halves"), "--data halves: .* of all pictures 20 are for training and 0 for validation"),
        (("--device", "cuda:99"), "--device cuda:99: .*; choose another, or --device cpu"),
        (("--weights", "nowhere.pt"), r"nowhere\.pt"),
        (("--arch", "resnet18", "--batch-size", 1), "--batch-size 1: .*batch norm"),
        (("--arch", "resnet18", "--batch-size", 71, "--plain"), "--batch-size 71: .*batch norm"),
    ],
    ids=str,
)
def test_what_users_get_wrong_is_said(options, says, data, tmp_path, monkeypatch):
    for style in ("gradient", "noise"):
        shutil.copytree(data / style / "red", tmp_path / "flat" / style)
    for half in ("train", "test"):
        shutil.copytree(tmp_path / "flat", tmp_path / "halves" / half)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, OSError), match=says):
        stage1(data, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_stage_1_that_is_missing_or_another_is_refused(stage1_run, stage2_run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: has no weights\.pt; first train it"):
        stage2(tmp_path / "nowhere", tmp_path / "2")
    file = shutil.copytree(stage1_run, tmp_path / "1") / "weights.pt"
    weights = torch.load(file, weights_only=True)
    torch.save({**weights, "colours": "unit"}, file)
    with pytest.raises(UserError, match="began with other pictures.* or another --stage1"):
        stage2(tmp_path / "1", shutil.copytree(stage2_run, tmp_path / "2"), "--resume")
    torch.save({**weights, "classes": ["gradient", "noise", "wood"]}, file)
    with pytest.raises(UserError, match="knows gradient, noise, wood; .* has gradient, noise, stripes"):
        stage2(tmp_path / "1", tmp_path / "3")
