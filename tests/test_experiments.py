"""The experiments, by real runs of a tiny net."""

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
import running

from experiments import SCRIPTS, recipes, speed
from utils import Run, UserError


def compare(collection: Path, out: Path, *options: str) -> None:
    """Compare recipes by one epoch of each stage."""
    how = ("--image-size", "32", "--epochs", "1", "1", "--seeds", "0", "--split", "val")
    quick = ("--stage1-options=--arch tiny --embedding-dim 16", "--options=--device cpu --amp off --no-visdom")
    arguments = ("--data", collection, "--out", out, *how, *quick, *options)
    running.run_main(recipes, *arguments)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_arm_takes_back_its_entry_wherever_there_is_one_and_no_other():
    assert recipes.changes("defaults", 1) == recipes.changes("defaults", 2) == {}
    assert recipes.changes("crop_area", 1) == recipes.changes("crop_area", 2) == {"crop_area": 1.0}
    assert recipes.changes("momentum=0.5", 2) == {"momentum": 0.5} and not recipes.changes("momentum=0.5", 1)
    assert recipes.changes("first_weights=he", 1) == {"first_weights": "he"}
    assert recipes.changes("plain", 1).keys() == SCRIPTS[1].DEPARTURES.keys()


def test_arms_are_trained_once_and_tabulated(collection, tmp_path, capsys, monkeypatch):
    arms = ("--arms", "plain", "momentum=0.5")
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(Run, "end_epoch", stop)
        compare(collection, tmp_path, *arms)
    assert "±" not in capsys.readouterr().out  # stopped; the same command goes on

    compare(collection, tmp_path, *arms)
    said = capsys.readouterr().out
    assert said.count("training ") == 4  # stage 2 with another momentum starts from the defaults' stage 1
    assert re.findall(r"^\| (\S+) \|(?:  \|| \d\.\d{3} ± 0\.000 \|){4}$", said, re.M) == ["plain", *arms[1:]]
    config = {arm: json.loads((tmp_path / arm / "0" / "stage2" / "config.json").read_text()) for arm in arms[1:]}
    defaults = {name: ours for name, (ours, _) in SCRIPTS[2].DEPARTURES.items()}
    assert config["momentum=0.5"]["departures"] == {**defaults, "momentum": 0.5}
    assert config["plain"]["options"]["plain"] and config["plain"]["departures"]["momentum"] == 0.0

    compare(collection, tmp_path, *arms)
    again = capsys.readouterr().out
    assert "training " not in again and [line for line in again.splitlines() if line not in said] == []


def test_a_folder_of_other_runs_and_an_arm_of_no_effect_are_refused(collection, tmp_path):
    (tmp_path / "recipes.json").write_text("{}")
    with pytest.raises(UserError, match="other data, options or departures"):
        compare(collection, tmp_path)
    for arm in ("squared", "momentun", "mirror=True"):
        with pytest.raises(UserError, match=f"{arm}: changes nothing"):
            compare(collection, tmp_path / "other", "--arms", arm)


@pytest.mark.slow
def test_the_report_has_all_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "LEARNING_EPOCHS", (1, 1))
    monkeypatch.setattr(speed, "PLAIN_SECONDS", 0.2)
    file = tmp_path / "report.md"
    options = ("--arch", "tiny", "--image-size", "32", "--pictures", "198", "--device", "cpu")
    running.run_main(speed, *options, "--gpu-report", file)
    report = file.read_text()
    assert "Traceback" not in report and "The largest difference of a weight is 0." in report
    assert report.count("\n## ") == 6 and "198 pictures, both stages:" in report
    speeds = re.findall(r"\| stage [12] \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", report)
    assert len(speeds) == 2 and all(one != "0" for row in speeds for one in row)
