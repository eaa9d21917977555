"""Checkpoints come from strangers: they never run code, are checked before anything is allocated, or refused in a line."""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_command
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from running import PLAIN, TINY, finish, get_server, last_line, start, tiny

import networks
from networks import BACKBONES, build_embedding, load_safely, rebuild
from run_folder import BEST_FORMAT, LAST_FORMAT, read_checkpoint
from utils import UserError


@pytest.fixture(scope="module", autouse=True)
def small_backbone():
    BACKBONES["tiny"] = tiny
    yield
    del BACKBONES["tiny"]


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of stage 1 of the smallest net."""
    run = tmp_path_factory.mktemp("run") / "run"
    options = ("--data", collection, "--run", run, "--epochs", 2, *TINY, *PLAIN)
    finish(start("classification_net.py", options, run.parent / "log"), run.parent / "log")
    return run


def load(path: Path) -> Any:
    """Everything that the project does with a `best.pt` before it uses it."""
    return rebuild(read_checkpoint(path, BEST_FORMAT), str(path))


def refuse(path: Path, says: str = "") -> None:
    """The file is refused with one line that names it."""
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


class Malicious:
    """What would create a file when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *values: Any) -> None:
        self.function, self.values = function, values

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.values


@pytest.mark.parametrize("whole", [True, False], ids=["as torch.save writes", "a bare pickle"])
@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_malicious_pickle_runs_nothing(run, collection, tmp_path, whole, name):
    harm = tmp_path / "harm"
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for bad in (Malicious(os.system, f"touch {harm}"), Malicious(exec, f"open({str(harm)!r}, 'w')")):
        if whole:
            content = torch.load(run / name, weights_only=True)
            torch.save({**content, "extra": bad}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps({"format": BEST_FORMAT, "weights": bad}))
        with pytest.raises(UserError, match="damaged, or no file of weights"):
            load_safely(folder / name)
        assert not harm.exists()
    torch.load(folder / name, weights_only=False) if whole else pickle.loads((folder / name).read_bytes())
    assert harm.exists()  # it would have


def test_no_file_of_the_project_loads_pickles_unsafely():
    for path in ROOT.glob("*.py"):
        text = path.read_text()
        assert "pickle.load" not in text and "allow_pickle=True" not in text and "joblib" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True, mmap=True") + text.count(
            "torch.load(weights_only=True)"
        ), path


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_truncated_file_is_refused(run, tmp_path, name):
    data, path = (run / name).read_bytes(), tmp_path / name
    chances = random.Random(0)
    for length in (0, 1, 100, len(data) - 1, *chances.sample(range(len(data)), 46)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="is damaged, or no file of weights") as caught:
            load_safely(path)
        assert str(path) in str(caught.value)


def test_a_damaged_file_is_loaded_or_refused_never_worse(run, tmp_path):
    data, path, refused = (run / "best.pt").read_bytes(), tmp_path / "best.pt", 0
    for seed in range(300):
        chances, spoilt = random.Random(seed), bytearray(data)
        # Half of the blows go where the structure is: the pickle at the beginning and the directory at the end.
        edge = chances.choice((2000, len(data) // 2))
        for _ in range(chances.choice((1, 5, 50))):
            spoilt[chances.choice((1, -1)) * chances.randrange(1, edge)] = chances.randrange(256)
        path.write_bytes(spoilt)
        try:
            load(path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


def test_foreign_files_are_refused(run, tmp_path):
    path = tmp_path / "best.pt"
    for content, says in [
        (b"PK\x03\x04", "damaged"),
        ((run / "curves.png").read_bytes(), "no file of weights"),
        ((run / "config.json").read_bytes(), "no file of weights"),
        ([1, 2, 3], "holds no weights"),
        (torch.zeros(3), "holds no weights"),
        ({"state_dict": {}}, BEST_FORMAT),
        (torch.load(run / "last.pt", weights_only=True), BEST_FORMAT),
        ({"format": BEST_FORMAT}, "which net it holds"),
    ]:
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        refuse(path, says)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", "no pickle")
    refuse(path, "damaged")
    refuse(tmp_path / "missing.pt", "no such file")
    refuse(tmp_path, "damaged")


# What a checkpoint says of itself.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.builds(lambda n: torch.zeros(n), st.integers(0, 3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["arch", "embedding_dim", "dropout", "classes", "weights", "stage", "format"]), value=ANYTHING
)
def test_any_value_in_a_checkpoint_is_accepted_or_refused(run, tmp_path, key, value):
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save({**content, key: value}, tmp_path / "best.pt")
    try:
        load(tmp_path / "best.pt")
    except UserError as error:
        assert str(tmp_path) in str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(range(18)), value=ANYTHING)
def test_any_weight_of_another_kind_is_refused(run, tmp_path, name, value):
    content = torch.load(run / "best.pt", weights_only=True)
    name = list(content["weights"])[name % len(content["weights"])]
    # The PReLU's one number is the only weight that `ANYTHING` can hit.
    assume(not isinstance(value, torch.Tensor) or value.shape != content["weights"][name].shape)
    content["weights"][name] = value
    torch.save(content, tmp_path / "best.pt")
    refuse(tmp_path / "best.pt")


def posing(content: dict[str, Any], dim: int) -> dict[str, Any]:
    """The checkpoint as if its embedding had `dim` numbers, each weight a single number that poses as many."""
    content = {**content, "embedding_dim": dim, "weights": dict(content["weights"])}
    weights = content["weights"]
    for name, shape in {
        "embedding.bottleneck.weight": (dim, 1000), "embedding.bottleneck.bias": (dim,),
        "head.1.weight": (len(content["classes"]), dim),
    }.items():  # fmt: skip
        assert name in weights
        weights[name] = torch.zeros(1).expand(shape)
    return content


def load_with_little_memory(path: str, megabytes: int, log: str) -> None:
    """Load a checkpoint in a process that may take `megabytes` more than it has."""
    BACKBONES["tiny"] = tiny
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20,) * 2)
    try:
        load(Path(path))
        Path(log).write_text("loaded")
    except UserError as error:
        Path(log).write_text(str(error))


@pytest.mark.parametrize("dim", [2**13, 2**19, 2**40, -1])
def test_a_checkpoint_that_claims_a_huge_net_takes_no_memory(run, tmp_path, dim):
    path, log = tmp_path / "best.pt", tmp_path / "log"
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save(posing(content, dim) if 0 < dim < 2**30 else {**content, "embedding_dim": dim}, path)
    process = get_server().Process(target=load_with_little_memory, args=(str(path), 200, str(log)), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "which net it holds" in log.read_text() or "holds no weights" in log.read_text(), log.read_text()


def test_a_compressed_checkpoint_is_refused_before_it_unpacks(run, tmp_path):
    """Ten gigabytes of zeros are ten megabytes compressed."""
    path, log = tmp_path / "best.pt", tmp_path / "log"
    with zipfile.ZipFile(run / "best.pt") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            with target.open(name, "w", force_zip64=True) as part:
                part.write(source.read(name))
                if name.endswith("data.pkl"):
                    for _ in range(600):
                        part.write(bytes(2**20))
    assert path.stat().st_size < 2_000_000
    process = get_server().Process(target=load_with_little_memory, args=(str(path), 200, str(log)), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0 and "damaged, or no file of weights" in log.read_text()


def test_weights_that_are_not_finite_or_of_another_type_are_refused(run, tmp_path):
    content = torch.load(run / "best.pt", weights_only=True)
    for spoil, says in [
        (lambda value: value * float("nan"), "not finite"),
        (lambda value: value.double(), "torch.float64"),
        (lambda value: value.to_sparse(), "holds no weights"),
    ]:
        weights = dict(content["weights"])
        weights["embedding.bottleneck.weight"] = spoil(weights["embedding.bottleneck.weight"])
        torch.save({**content, "weights": weights}, tmp_path / "best.pt")
        refuse(tmp_path / "best.pt", says)


def spoil_state(state: dict[str, Any], how: int) -> None:
    """Make a `last.pt` one that does not fit, each time in another way."""
    progress, moments = state["progress"], state["optimizer"]["state"]
    ways: list[Callable[[], Any]] = [
        lambda: state.pop("net"),
        lambda: progress.update(epoch="2"),
        lambda: progress.update(epoch=-5),
        lambda: progress.update(step=-1),
        lambda: progress.update(surplus=1),
        lambda: progress.update(history=[{"epoch": 1}]),
        lambda: progress.update(batch_losses=[("1", 2.0)]),
        lambda: moments[0].update(exp_avg=torch.zeros(2)),
        lambda: moments[0].update(exp_avg=torch.zeros(1).expand(moments[0]["exp_avg"].shape)),
        lambda: moments.update({999: moments[0]}),
        lambda: state.update(optimizer=None),
        lambda: state.update(progress=None),
        lambda: state["net"].popitem(),
    ]
    ways[how]()


@pytest.mark.parametrize("how", range(13))
def test_a_last_checkpoint_that_does_not_fit_ends_in_one_line(run, collection, tmp_path, how):
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(run, folder)
    state = torch.load(run / "last.pt", weights_only=True)
    state["progress"].update(epoch=2, history=state["progress"]["history"][:1])
    spoil_state(state, how)
    torch.save(state, folder / "last.pt")
    before = (folder / "metrics.csv").read_bytes()
    options = ("--data", collection, "--run", folder, "--epochs", 2, *TINY, *PLAIN, "--resume")
    line = last_line(finish(start("classification_net.py", options, log), log, 2))
    assert str(folder / "last.pt") in line
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_run_without_its_last_checkpoint_is_not_trained_anew_over_what_it_left(run, collection, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(run, folder)
    (folder / "last.pt").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = ("--data", collection, "--run", folder, "--epochs", 2, *TINY, *PLAIN, "--resume")
    line = last_line(finish(start("classification_net.py", options, log), log, 2))
    assert str(folder / "last.pt") in line
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_the_settings_of_the_optimizer_come_from_the_run_and_not_from_its_checkpoint(run, collection, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(run, folder)
    state = torch.load(run / "last.pt", weights_only=True)
    state["optimizer"]["param_groups"] = [{"params": [], "lr": "much", "betas": (0, 0)}]
    torch.save(state, folder / "last.pt")
    options = ("--data", collection, "--run", folder, "--epochs", 2, *TINY, *PLAIN, "--resume")
    assert "done" in finish(start("classification_net.py", options, log), log)


@pytest.mark.parametrize("key", ["label", "image_size", "colour_mean", "colour_deviation", "classes"])
def test_a_checkpoint_that_does_not_describe_itself_is_refused_by_stage_2(run, collection, tmp_path, key):
    content, log = torch.load(run / "best.pt", weights_only=True), tmp_path / "log"
    del content[key]
    torch.save(content, tmp_path / "best.pt")
    options = ("--data", collection, "--stage1", tmp_path, "--run", tmp_path / "r", *PLAIN)
    assert f"{tmp_path / 'best.pt'}: does not say" in last_line(finish(start("train.py", options, log), log, 2))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "search.py"])
def test_a_truncated_checkpoint_ends_every_command_in_one_line(stage1_run, collection, tmp_path, script):
    folder = tmp_path / "run"
    shutil.copytree(stage1_run, folder, ignore=shutil.ignore_patterns("last.pt"))
    data = (folder / "best.pt").read_bytes()
    (folder / "best.pt").write_bytes(data[: len(data) // 2])
    picture = next(collection.rglob("*.jpg"))
    options = {
        "train.py": ("--data", collection, "--stage1", folder, "--run", tmp_path / "r"),
        "evaluate.py": (folder, "--data", collection),
        "search.py": (folder, picture, "--data", collection),
    }[script]
    done = run_command(script, *options)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"{folder / 'best.pt'}: is damaged" in done.stderr


def test_weights_files_of_torchvision_fit_with_and_without_what_only_training_needs(tmp_path):
    backbone = BACKBONES["resnet18"]()
    state = backbone.state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for content in (state, old, {**old, "aux1.conv.weight": torch.zeros(3)}):
        torch.save(content, tmp_path / "weights.pt")
        net = build_embedding("resnet18", 16, str(tmp_path / "weights.pt"), 0.0, 64)
        assert torch.equal(net.backbone.conv1.weight, backbone.conv1.weight)
    for content, says in [({"conv1.weight": torch.zeros(3)}, "does not fit the net"), ({"a": 1}, "holds no weights")]:
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(UserError, match=says):
            build_embedding("resnet18", 16, str(tmp_path / "weights.pt"), 0.0, 64)


def test_what_is_checked_is_what_is_loaded(run):
    """A checkpoint that is whole loads, and its weights are its own, not a view of the file."""
    embedding, classifier = load(run / "best.pt")
    stored = torch.load(run / "best.pt", weights_only=True)
    assert classifier is not None and stored["format"] == BEST_FORMAT
    assert read_checkpoint(run / "last.pt", LAST_FORMAT)["progress"]["epoch"] == 3
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, stored["weights"][name])
    assert networks.MAX_EMBEDDING_DIM * 1000 * 4 < 100_000_000  # bytes of the largest bottleneck
