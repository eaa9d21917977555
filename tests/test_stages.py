"""Both stages as a user runs them: what a run leaves behind, stopped and resumed runs, refusals."""

from __future__ import annotations

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
import torch
from conftest import CONTENTS, STYLES
from running import (
    QUIET,
    TINY,
    assert_same_run,
    finish,
    read_rows,
    read_tensors,
    run_elsewhere,
    run_main,
    start,
    strike,
)

import dataset
import train
from dataset import load_pictures, predict, read_collection
from networks import load_net
from triplet_network import TripletNet, average_precisions
from utils import UserError, rate_at

STAGE1, STAGE2 = "classification_net.py", "train.py"
COLUMNS = {
    1: "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second,seconds",
    2: "epoch,train_loss,train_triplet_accuracy,val_loss,val_triplet_accuracy,val_map,lr,images_per_second,seconds",
}
CPU = torch.device("cpu")


def stage1(collection: Path, run: Path, *options: object) -> list[dict[str, str]]:
    """Run stage 1 for three epochs in this process; return the rows of its metrics."""
    run_main(STAGE1, "--data", collection, "--run", run, "--epochs", 3, *TINY, *options)
    return read_rows(run / "metrics.csv")


def stage2(start_from: Path, run: Path, *options: object) -> list[dict[str, str]]:
    """Run stage 2 for three epochs in this process; return the rows of its metrics."""
    run_main(STAGE2, "--stage1", start_from, "--run", run, "--epochs", 3, "--batch-size", 8, *QUIET, *options)
    return read_rows(run / "metrics.csv")


def options_of(script: str, collection: Path, first: Path, run: Path) -> tuple[object, ...]:
    """The options with which the runs of the fixtures were made."""
    if script == STAGE1:
        return ("--data", collection, "--run", run, "--epochs", 3, *TINY)
    return ("--stage1", first, "--run", run, "--epochs", 3, "--batch-size", 8, *QUIET)


# What a run leaves behind.


@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_leaves_five_files_and_the_columns_of_its_stage(stage, collection, request):
    run = request.getfixturevalue(f"stage{stage}_run")
    names = {path.name for path in run.iterdir()} - {".lock"}
    assert names == {"config.json", "split.csv", "metrics.csv", "weights.pt", "resume.pt"}
    assert (run / "metrics.csv").read_text().splitlines()[0] == COLUMNS[stage]
    rows = read_rows(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    found = read_collection(collection)
    split = {row["path"]: row["split"] for row in read_rows(run / "split.csv")}
    assert split == dict(zip(found.paths, found.split.tolist(), strict=True))
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["epochs"] == 3 and config["net"]["classes"] == list(STYLES)
    assert config["torch"] == torch.__version__ and config["data"]["folder"] == str(collection)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_weights_are_plain_data_that_give_the_last_validation_again(stage, collection, request):
    run = request.getfixturevalue(f"stage{stage}_run")
    saved = torch.load(run / "weights.pt", weights_only=True)
    assert saved["classes"] == list(STYLES) and saved["arch"] == "tiny" and saved["epoch"] == 3
    facts, embedding, head = load_net(run)
    assert (head is None) == (stage == 2) and facts["label"] == "style"
    last = read_rows(run / "metrics.csv")[-1]
    if stage == 1:
        assert validation_loss(run, collection) == pytest.approx(float(last["val_loss"]), rel=1e-4)
        return
    found, squares = load_pictures(read_collection(collection), 32, CPU, None)
    rows = found.rows("val")
    embeddings = predict(TripletNet(embedding, 0.25).branch, squares, rows, CPU, 32, facts["colours"])
    precision = average_precisions(embeddings, torch.from_numpy(found.style[rows])).nanmean().item()
    assert precision == pytest.approx(float(last["val_map"]), rel=1e-4)


def validation_loss(run: Path, collection: Path) -> float:
    """Stage 1's loss on the validation pictures by the weights that a run keeps."""
    facts, embedding, head = load_net(run)
    found, squares = load_pictures(read_collection(collection), 32, CPU, None)
    rows = found.rows("val")
    scores = predict(torch.nn.Sequential(embedding, head), squares, rows, CPU, 32, facts["colours"])
    return torch.nn.functional.cross_entropy(scores, torch.from_numpy(found.style[rows])).item()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(stage1_run, collection, tmp_path):
    stage1(collection, tmp_path / "same")
    assert_same_run(tmp_path / "same", stage1_run)
    assert stage1(collection, tmp_path / "other", "--seed", 1) != read_rows(stage1_run / "metrics.csv")


def test_the_rate_warms_up_in_equal_steps_and_falls_as_half_a_cosine(stage1_run):
    rates = [rate_at(step, 110, 0.001, 10, "cosine") for step in range(110)]
    assert rates[:10] == pytest.approx([0.0001 * step for step in range(1, 11)])
    assert rates[10] == 0.001 and rates[60] == pytest.approx(0.0005)
    assert all(after < before for before, after in pairwise(rates[10:])) and 0 < rates[-1] < 1e-6
    assert {rate_at(step, 50, 0.001, 0, "none") for step in range(50)} == {0.001}
    expected = [rate_at(step, 27, 0.001, 100, "cosine") for step in (8, 17, 26)]
    assert [float(row["lr"]) for row in read_rows(stage1_run / "metrics.csv")] == pytest.approx(expected, rel=1e-4)


def test_plain_takes_back_every_departure(stage1_run, stage2_run, collection, tmp_path):
    first = stage1(collection, tmp_path / "1", "--plain")
    second = stage2(tmp_path / "1", tmp_path / "2", "--plain")
    assert {row["lr"] for row in first + second} == {"0.001"}
    assert first != read_rows(stage1_run / "metrics.csv") and second != read_rows(stage2_run / "metrics.csv")
    assert torch.load(tmp_path / "2" / "weights.pt", weights_only=True)["colours"] == "unit"
    for number, script in ((1, sys.modules["classification_net"]), (2, train)):
        config = json.loads((tmp_path / str(number) / "config.json").read_text())
        assert config["departures"] == {name: plain for name, (_, plain) in script.DEPARTURES.items()}


def test_keep_best_keeps_the_weights_of_the_best_epoch(collection, tmp_path):
    rows = stage1(collection, tmp_path / "best", "--keep", "best", "--epochs", 6, "--lr", 0.03)
    scores = [float(row["val_accuracy"]) for row in rows]
    best = scores.index(max(scores)) + 1
    assert best < 6, "otherwise this shows nothing"
    assert load_net(tmp_path / "best")[0]["epoch"] == best
    assert validation_loss(tmp_path / "best", collection) == pytest.approx(float(rows[best - 1]["val_loss"]), rel=1e-3)


def test_the_content_pipeline_is_the_same_two_scripts(collection, tmp_path):
    stage1(collection, tmp_path / "1", "--label", "content")
    stage2(tmp_path / "1", tmp_path / "2")
    facts, _, _ = load_net(tmp_path / "2")
    assert facts["label"] == "content" and facts["classes"] == sorted(CONTENTS)


def test_sizes_that_differ_tenfold_and_too_little_for_stage_2_are_said(collection, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(collection, data, ignore=shutil.ignore_patterns(".pictures", "noise"))
    for path in sorted(data.glob("stripes/*/*"))[4:]:
        path.unlink()
    stage1(data, tmp_path / "run")
    said = capsys.readouterr().out
    assert "differ more than tenfold in size: gradient 92.3%, stripes 7.7%" in said
    assert "too few for stage 2" in said and "as a mean over the classes" in said
    assert said.splitlines()[-1].startswith(f"next: python train.py --stage1 {tmp_path / 'run'}")


# From stage 1 to stage 2.


def test_stage_2_starts_from_stage_1s_weights_with_embeddings_of_a_mean_length(stage1_run, collection, tmp_path):
    stage2(stage1_run, tmp_path / "run", "--lr", 1e-30, "--epochs", 1)
    loaded, saved = (read_tensors(run / "weights.pt") for run in (stage1_run, tmp_path / "run"))
    learnt = [name for name in saved if "bottleneck" not in name and "running" not in name and "num_" not in name]
    assert len(learnt) == 6 and all(torch.equal(saved[name], loaded[name]) for name in learnt)
    factors = [saved[name] / loaded[name] for name in saved if "bottleneck" in name]
    assert torch.cat([factor.flatten() for factor in factors]).std() < 1e-4, "it is scaled as a whole"
    found, squares = load_pictures(read_collection(collection), 32, CPU, None)
    embedding = load_net(stage1_run)[1]
    train.scale_bottleneck(embedding, predict(embedding, squares, found.rows("train"), CPU, 32, "centred"), 1.5)
    scaled = predict(embedding, squares, found.rows("train"), CPU, 32, "centred")
    assert scaled.norm(dim=1).mean() == pytest.approx(1.5, rel=1e-3)


def test_both_stages_train_with_the_dropout_of_stage_1s_table(collection, tmp_path):
    for plain, share in (((), 0.0), (("--plain",), 0.2)):
        run = tmp_path / f"{share}"
        stage1(collection, run, "--epochs", 1, *plain)
        assert load_net(run)[1].backbone[5].p == share


def test_stage_2_takes_its_triplets_from_files(stage1_run, collection, tmp_path):
    found = read_collection(collection)
    for split in ("train", "val"):
        rows = found.rows(split).tolist()
        (tmp_path / split).write_text("".join(f"{a} {rows[-1]} {rows[1]}\n" for a in rows[2:-1]))
    both = stage2(stage1_run, tmp_path / "run", "--triplets", tmp_path / "train", tmp_path / "val")
    assert 0 < float(both[0]["val_triplet_accuracy"]) <= 1
    with pytest.raises(UserError, match="--triplets .*val"):
        stage2(stage1_run, tmp_path / "no val", "--triplets", tmp_path / "train")


def test_pictures_that_are_new_since_stage_1_are_left_out_and_lost_ones_are_named(
    stage1_run, collection, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(collection, data, ignore=shutil.ignore_patterns(".pictures"))
    shutil.copy(data / "noise/red/0.png", data / "noise/red/new.png")
    stage2(stage1_run, tmp_path / "run", "--data", data)
    assert "1 pictures are new since stage 1 and left out" in capsys.readouterr().out
    assert read_rows(tmp_path / "run/split.csv") == read_rows(stage1_run / "split.csv")
    (data / "noise/red/1.png").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of the pictures that stage 1 had, first noise/red/1\.png"):
        stage2(stage1_run, tmp_path / "other", "--data", data)


def test_other_classes_than_stage_1s_are_refused(stage1_run, collection, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(collection, data, ignore=shutil.ignore_patterns(".pictures"))
    (data / "noise").rename(data / "other")
    index = [f"{row['path'].replace('noise', 'other')},{row['split']}" for row in read_rows(stage1_run / "split.csv")]
    run = tmp_path / "1"
    shutil.copytree(stage1_run, run)
    (run / "split.csv").write_text("\n".join(["path,split", *index]))
    with pytest.raises(UserError, match="knows gradient, noise, stripes; .* has gradient, other, stripes"):
        stage2(run, tmp_path / "2", "--data", data)


# Stopped and resumed: the same numbers.


@pytest.mark.parametrize("script", [STAGE1, STAGE2])
@pytest.mark.parametrize(("place", "times"), [("step", 14), ("file", 4), ("file", 5), ("file", 6)])
def test_killed_anywhere_and_resumed_it_ends_as_if_never_touched(
    script, place, times, collection, stage1_run, stage2_run, tmp_path
):
    """In the middle of the second epoch; and in the first save, before weights.pt, before resume.pt, and after it."""
    options, log = options_of(script, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    run_elsewhere(script, *options, log=log, status=-signal.SIGKILL, before=(strike, place, times, signal.SIGKILL))
    run_elsewhere(script, *options, "--resume", log=log)
    assert_same_run(tmp_path / "run", stage1_run if script == STAGE1 else stage2_run)
    assert not list((tmp_path / "run").glob(".*.part"))


@pytest.mark.parametrize(
    ("script", "number"), [(STAGE1, signal.SIGTERM), (STAGE2, signal.SIGINT), (STAGE1, signal.SIGHUP)]
)
def test_a_signal_ends_a_run_with_one_line_that_says_where_it_goes_on(
    script, number, collection, stage1_run, stage2_run, tmp_path
):
    options, log = options_of(script, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    said = run_elsewhere(script, *options, log=log, status=128 + number, before=(strike, "step", 14, number))
    assert said.splitlines()[-1] == f"{script}: stopped; the same command with --resume goes on after epoch 1"
    assert "going on after epoch 1 of 3" in run_elsewhere(script, *options, "--resume", log=log)
    assert_same_run(tmp_path / "run", stage1_run if script == STAGE1 else stage2_run)


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    strike("step", 3, signal.SIGHUP)


def test_under_nohup_a_closed_terminal_is_nothing(collection, stage1_run, tmp_path):
    options, log = options_of(STAGE1, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    run_elsewhere(STAGE1, *options, log=log, before=(ignore_hangup,))


def test_stopped_twice_with_the_best_weights_kept_it_ends_the_same(collection, stage1_run, tmp_path):
    common = ("--data", collection, "--epochs", 5, "--keep", "best", *TINY, "--lr", 0.03)
    run_main(STAGE1, *common, "--run", tmp_path / "whole")
    for times in (14, 23):
        before = (strike, "step", times, signal.SIGTERM)
        log, status = tmp_path / "log", 128 + signal.SIGTERM
        run_elsewhere(STAGE1, *common, "--run", tmp_path / "run", "--resume", log=log, status=status, before=before)
    run_main(STAGE1, *common, "--run", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("stage", [1, 2])
def test_a_finished_run_that_is_resumed_stays_as_it_is(stage, collection, stage1_run, request, tmp_path):
    shutil.copytree(request.getfixturevalue(f"stage{stage}_run"), tmp_path / "run")
    run_main(
        (STAGE1, STAGE2)[stage - 1],
        *options_of((STAGE1, STAGE2)[stage - 1], collection, stage1_run, tmp_path / "run"),
        "--resume",
    )
    assert_same_run(tmp_path / "run", request.getfixturevalue(f"stage{stage}_run"))


# Refusals.


def test_a_run_goes_on_with_its_own_options_and_data_alone(collection, stage1_run, tmp_path):
    shutil.copytree(stage1_run, tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already; go on with it by --resume"):
        stage1(collection, tmp_path / "run")
    with pytest.raises(
        UserError, match="began with (--epochs 3 --lr 0.001|--lr 0.001 --epochs 3); .*start from its weights"
    ):
        stage1(collection, tmp_path / "run", "--resume", "--epochs", 30, "--lr", 0.1)
    data = tmp_path / "data"
    shutil.copytree(collection, data, ignore=shutil.ignore_patterns(".pictures"))
    stage1(data, tmp_path / "run", "--resume")  # a copy of the data is the same data
    shutil.copy(data / "noise/red/0.png", data / "stripes/red/0.png")
    with pytest.raises(UserError, match="began with other pictures, labels or splits"):
        stage1(data, tmp_path / "run", "--resume")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").touch()
    with pytest.raises(UserError, match="holds something else"):
        stage1(collection, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir() if path.name[0] != "."] == ["thesis.tex"]


def test_a_folder_in_which_another_process_trains_is_refused(collection, tmp_path):
    options, log = ("--data", collection, "--run", tmp_path / "run", "--epochs", 3, *TINY), tmp_path / "log"
    process = start(STAGE1, options, log, strike, "step", 12, signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while not (tmp_path / "run/resume.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError, match="another process trains in it"):
        stage1(collection, tmp_path / "run", "--resume")
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGCONT)
    finish(process, log)


def test_a_loss_that_is_not_finite_ends_the_run_and_what_was_saved_stays(collection, stage1_run, tmp_path):
    options, log = ("--data", collection, "--run", tmp_path / "run", *TINY, "--plain"), tmp_path / "log"
    said = run_elsewhere(STAGE1, *options, "--lr", "1e30", log=log, status=1)
    assert "the loss is not finite in epoch 1" in said.splitlines()[-1] and "smaller --lr" in said.splitlines()[-1]
    assert not (tmp_path / "run/weights.pt").exists()


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_later(collection, stage1_run, tmp_path):
    options, log = options_of(STAGE1, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    size = (stage1_run / "resume.pt").stat().st_size - 1
    said = run_elsewhere(STAGE1, *options, log=log, status=1, before=(limit_files, size))
    assert f"File too large: '{tmp_path / 'run/resume.pt'}'" in said.splitlines()[-1]
    assert (tmp_path / "run/weights.pt").exists() and not list((tmp_path / "run").glob(".*.part"))
    run_elsewhere(STAGE1, *options, "--resume", log=log)
    assert_same_run(tmp_path / "run", stage1_run)


def close_output() -> None:
    """As of `>&- 2>&-`."""
    sys.stdout = sys.stderr = None


def lose_output() -> None:
    """Write into a pipe that nobody reads, as of `| head -1`."""
    read, write = os.pipe()
    os.close(read)
    sys.stdout, sys.stderr = (os.fdopen(write, "w", closefd=False) for _ in range(2))


@pytest.mark.parametrize("fault", [close_output, lose_output])
def test_output_that_nobody_takes_ends_no_run(fault, collection, stage1_run, tmp_path):
    options, log = options_of(STAGE1, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    run_elsewhere(STAGE1, *options, log=log, before=(fault,))
    assert_same_run(tmp_path / "run", stage1_run)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "nowhere"), r"--data nowhere: is no folder\..*bam\.harvest.*standin"),
        (("--arch", "alexnot"), "--arch alexnot: torchvision has no such classifier"),
        (("--arch", "alexnet", "--image-size", 32), "--image-size 32: does not fit the net"),
        (("--label", "content", "--data", "flat"), "--data .*flat: takes two contents at least"),
        (("--amp", "fp16"), "--amp fp16: needs a GPU"),
        (("--weights", "nowhere.pt"), r"nowhere\.pt"),
        (("--arch", "resnet18", "--batch-size", 1), "--batch-size 1: "),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_users_get_wrong_is_said_in_one_line(options, says, collection, tmp_path, monkeypatch):
    (tmp_path / "flat").mkdir()
    for style in ("gradient", "noise"):
        shutil.copytree(collection / style / "red", tmp_path / "flat" / style)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, OSError), match=says):
        stage1(collection, tmp_path / "run", *options)
    assert not (tmp_path / "run/metrics.csv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_auto_takes_the_cpu_and_cuda_is_refused(collection, stage1_run, tmp_path, capsys):
    stage1(collection, tmp_path / "run", "--device", "auto")
    assert "device: the CPU" in capsys.readouterr().out
    with pytest.raises(UserError, match="--device cuda: .*; choose another, or --device cpu"):
        stage1(collection, tmp_path / "other", "--device", "cuda")


def test_stage_2_without_a_stage_1_and_with_damaged_weights_is_refused(stage1_run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: has no weights\.pt; first train it"):
        stage2(tmp_path / "nowhere", tmp_path / "run")
    shutil.copytree(stage1_run, tmp_path / "1")
    data = (stage1_run / "weights.pt").read_bytes()
    for content in (data[: len(data) // 2], b"", b"no weights", (stage1_run / "config.json").read_bytes()):
        (tmp_path / "1/weights.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pt: is damaged, or no file of weights"):
            stage2(tmp_path / "1", tmp_path / "run")


def without_locks() -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    dataset.take_lock.__globals__["filelock"].FileLock._acquire = refuse


def test_a_file_system_without_locks_is_said_and_trained_on(collection, stage1_run, tmp_path):
    options, log = options_of(STAGE1, collection, stage1_run, tmp_path / "run"), tmp_path / "log"
    assert "without locks" in run_elsewhere(STAGE1, *options, log=log, before=(without_locks,))


def test_a_launchers_leftovers_in_the_environment_are_no_launch(collection, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert len(stage1(collection, tmp_path / "run")) == 3


def test_names_that_are_no_utf_8_go_through_both_stages(collection, tmp_path):
    data, log = tmp_path / "data", tmp_path / "log"
    shutil.copytree(collection, data, ignore=shutil.ignore_patterns(".pictures"))
    os.rename(os.fsencode(data / "noise"), os.fsencode(data) + b"/br\xfbit\r")  # noqa: PTH104
    run_elsewhere(STAGE1, *options_of(STAGE1, data, data, tmp_path / "1"), log=log)
    run_elsewhere(STAGE2, *options_of(STAGE2, data, tmp_path / "1", tmp_path / "2"), log=log)
    assert load_net(tmp_path / "2")[0]["classes"][0] == "br\udcfbit\r"
