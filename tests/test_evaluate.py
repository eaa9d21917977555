"""evaluate.py: the numbers are what their definitions say, and everything that a reader wants lies in the run folder."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from conftest import QUICK, QUIET, run_command, run_main
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

import classification_net
import evaluate
import figures
import sheets
import train
from dataset import read_collection
from embedding import Embedded
from evaluate import DEFINITIONS, Case, measure
from run_folder import read_split
from utils import UserError

NUMBERS = tuple(DEFINITIONS)


def evaluate_in(out: Path, run: Path, *options: object) -> dict:
    """Evaluate a run into a folder; return its numbers."""
    run_main(evaluate, run, "--out", out, "--no-tsne", *options)
    return json.loads((out / "metrics.json").read_text())


def copy_run(run: Path, place: Path) -> Path:
    """A run folder of its own, with a link to the large file."""
    place.mkdir()
    for name in ("config.json", "split.csv", "metrics.csv"):
        shutil.copy(run / name, place / name)
    (place / "best.pt").symlink_to(run / "best.pt")
    return place


def copy_collection(collection: Path, place: Path) -> Path:
    """The same pictures elsewhere, in folders by style and content without an index."""
    shutil.copytree(collection, place, ignore=shutil.ignore_patterns(".*", "*.csv", "*.json"))
    return place


@pytest.fixture(scope="module")
def stage1_numbers(stage1_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("evaluated") / "stage1"
    return evaluate_in(out, stage1_run), out


@pytest.fixture(scope="module")
def stage2_numbers(stage2_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("evaluated") / "stage2"
    return evaluate_in(out, stage2_run, "--split", "all", "--format", "csv"), out


# What can be wrong, first.


def test_the_command_line_answers_a_mistake_with_one_line_and_status_2(tmp_path: Path) -> None:
    done = run_command("evaluate.py", tmp_path / "no such run")
    assert done.returncode == 2
    assert done.stderr.startswith("evaluate.py: ")
    assert "no such run" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_whose_folder_of_pictures_is_gone_is_told_how_many(stage1_run: Path, tmp_path: Path) -> None:
    run = copy_run(stage1_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["folder"] = str(tmp_path / "away")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"all 198 pictures of its data are gone, first 3D Graphics/.*away.*--data"):
        evaluate_in(tmp_path / "out", run)


def test_pictures_of_the_split_that_are_gone_are_counted_and_the_first_named(
    stage1_run: Path, collection: Path, tmp_path: Path
) -> None:
    data = copy_collection(collection, tmp_path / "data")
    test = [path for path, split in read_split(stage1_run).items() if split == "test"]
    for path in test[1:4]:
        (data / path).unlink()
    with pytest.raises(UserError, match=f"3 of its {len(test)} test pictures are gone.*first {test[1]}"):
        evaluate_in(tmp_path / "out", stage1_run, "--data", data)
    assert evaluate_in(tmp_path / "out", stage1_run, "--data", data, "--split", "val")["split"] == "val"
    assert evaluate_in(tmp_path / "out", stage1_run, "--data", data, "--split", "all")["n_pictures"] == 198 - 3


def test_labels_without_their_pictures_are_refused(stage1_run: Path, collection: Path, tmp_path: Path) -> None:
    for data in ((), ("--data", collection), ("--data", collection, "--unlabelled")):
        with pytest.raises(UserError, match="--labels: needs --filenames"):
            evaluate_in(tmp_path / "out", stage1_run, *data, "--labels", tmp_path / "labels.txt")


def test_an_empty_split_is_refused(stage1_run: Path, collection: Path, tmp_path: Path) -> None:
    data = copy_collection(collection, tmp_path / "data")
    rows = [(path.relative_to(data).as_posix(), path.parts[-3], "train") for path in sorted(data.rglob("*.jpg"))][:90]
    with (data / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "style", "split"), *rows])
    with pytest.raises(UserError, match="--split val: .*no pictures in it .90 train, 0 val, 0 test."):
        evaluate_in(tmp_path / "out", stage1_run, "--data", data, "--split", "val")


def test_one_style_only_is_refused(stage1_run: Path, collection: Path, tmp_path: Path) -> None:
    shutil.copytree(collection / "Comic", tmp_path / "data" / "Comic")
    with pytest.raises(UserError, match="'Comic'; it takes two"):
        evaluate_in(tmp_path / "out", stage1_run, "--data", tmp_path / "data")


def test_styles_that_the_net_does_not_know_are_refused_and_can_be_embedded_unlabelled(
    stage1_run: Path, collection: Path, tmp_path: Path
) -> None:
    shutil.copytree(collection / "Comic", tmp_path / "data" / "Cubism")
    shutil.copytree(collection / "Scary", tmp_path / "data" / "Scary")
    with pytest.raises(UserError, match="has the style 'Cubism'.*--unlabelled"):
        evaluate_in(tmp_path / "out", stage1_run, "--data", tmp_path / "data")
    numbers = evaluate_in(tmp_path / "out", stage1_run, "--data", tmp_path / "data", "--unlabelled")
    assert numbers["n_pictures"] == 36
    assert [numbers[name] for name in NUMBERS] == [None] * len(NUMBERS)


def test_a_picture_that_cannot_be_decoded_is_named_or_left_out_and_counted(
    stage1_run: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = copy_collection(collection, tmp_path / "data")
    test = [path for path, split in read_split(stage1_run).items() if split == "test"]
    for path in test[:2]:
        (data / path).write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"{test[0]} .*\(and 1 more\).*--skip-unreadable"):
        evaluate_in(tmp_path / "out", stage1_run, "--data", data)
    numbers = evaluate_in(tmp_path / "out", stage1_run, "--data", data, "--skip-unreadable")
    assert numbers["n_pictures"] == len(test) - 2
    assert f"2 pictures cannot be decoded and are left out, first {data / test[0]}" in capsys.readouterr().out


def test_a_run_without_weights_yet_says_so(stage1_run: Path, tmp_path: Path) -> None:
    run = copy_run(stage1_run, tmp_path / "run")
    (run / "best.pt").unlink()
    with pytest.raises(UserError, match="has no best.pt yet"):
        evaluate_in(tmp_path / "out", run)
    (run / "best.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match="best.pt: is damaged"):
        evaluate_in(tmp_path / "out", run)


def test_weights_that_give_no_finite_embedding_are_refused(stage2_run: Path, tmp_path: Path) -> None:
    run = copy_run(stage2_run, tmp_path / "run")
    checkpoint = torch.load(run / "best.pt", weights_only=True)
    checkpoint["weights"]["embedding.bottleneck.weight"].fill_(3e38)  # finite, but what it makes is not
    (run / "best.pt").unlink()
    torch.save(checkpoint, run / "best.pt")
    with pytest.raises(UserError, match="no finite embedding"):
        evaluate_in(tmp_path / "out", run)


# The numbers.


def test_the_numbers_are_those_of_scikit_learn_on_the_exported_embeddings(stage2_numbers: tuple[dict, Path]) -> None:
    numbers, out = stage2_numbers
    with np.load(out / "embeddings.npz", allow_pickle=False) as file:
        embeddings, styles, contents = (file[name] for name in ("embeddings", "styles", "contents"))
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    far = np.square(embeddings[:, None].astype(np.float64) - embeddings).sum(axis=2)
    precise, across = [], []
    for query in range(len(far)):
        others = np.arange(len(far)) != query
        precise.append(average_precision_score(styles[others] == styles[query], -far[query, others]))
        others &= (styles != styles[query]) | (contents != contents[query])
        across.append(average_precision_score(styles[others] == styles[query], -far[query, others]))
    assert numbers["map"] == pytest.approx(np.mean(precise), abs=1e-6)
    assert numbers["map_cross_content"] == pytest.approx(np.mean(across), abs=1e-6)
    found = NearestNeighbors(n_neighbors=11).fit(embeddings).kneighbors(return_distance=False)[:, :10]
    same = styles[found] == styles[:, None]
    assert numbers["precision_at_1"] == pytest.approx(same[:, 0].mean())
    assert numbers["precision_at_10"] == pytest.approx(same.mean())
    assert numbers["content_precision_at_1"] == pytest.approx((contents[found[:, 0]] == contents).mean())
    assert numbers["n_queries"] == numbers["n_pictures"] == len(styles) == 198
    assert numbers["accuracy"] is None
    assert numbers["confusion"]["by"] == "nearest neighbour"
    assert np.trace(numbers["confusion"]["counts"]) == same[:, 0].sum()


def test_the_validation_split_gives_what_training_saw(stage1_run: Path, stage2_run: Path, tmp_path: Path) -> None:
    for run, columns in (
        (stage1_run, {"accuracy": "val_accuracy"}),
        (stage2_run, {"map": "val_map", "triplet_accuracy": "val_triplet_accuracy"}),
    ):
        numbers = evaluate_in(tmp_path / run.name, run, "--split", "val")
        with (run / "metrics.csv").open() as file:
            best = max(csv.DictReader(file), key=lambda row: float(row[next(iter(columns.values()))]))
        for ours, theirs in columns.items():
            assert numbers[ours] == pytest.approx(float(best[theirs]), abs=1e-5), ours


def test_the_test_split_is_the_one_that_the_run_recorded(stage1_numbers: tuple[dict, Path], stage1_run: Path) -> None:
    numbers, out = stage1_numbers
    with np.load(out / "embeddings.npz") as file:
        paths = file["paths"].tolist()
    assert paths == [path for path, split in read_split(stage1_run).items() if split == "test"]
    assert numbers["split"] == "test"


def test_accuracy_and_the_confusion_matrix_belong_together(stage1_numbers: tuple[dict, Path]) -> None:
    numbers, out = stage1_numbers
    counts = np.array(numbers["confusion"]["counts"])
    assert numbers["confusion"]["by"] == "classifier"
    assert counts.sum() == numbers["n_pictures"]
    assert numbers["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    with np.load(out / "embeddings.npz") as file:
        true = Counter(file["styles"].tolist())
    assert dict(zip(numbers["confusion"]["classes"], counts.sum(axis=1), strict=True)) == true


def test_the_styles_numbers_add_up_to_the_whole(stage2_numbers: tuple[dict, Path]) -> None:
    numbers, _ = stage2_numbers
    each = numbers["per_style"].values()
    assert len(each) == 11
    assert sum(row["n_queries"] for row in each) == numbers["n_queries"]
    for name in set(NUMBERS) - {"accuracy"}:
        assert np.mean([row[name] for row in each]) == pytest.approx(numbers[name]), name  # styles are equally large


def test_a_perfect_style_embedding_is_told_from_one_of_contents() -> None:
    style, content = np.arange(90) % 5, np.arange(90) // 5 % 3
    triplets = np.array([[0, 5, 1], [7, 2, 8]])  # anchor and positive share the style, the negative the content
    assert (style[triplets[:, 0]] == style[triplets[:, 1]]).all()
    noise = 0.01 * torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    names = tuple("abcde")
    for known, worth in ((style, 1.0), (content, 0.0)):
        embeddings = torch.nn.functional.normalize(torch.eye(5)[known] + noise, dim=1)
        rows = np.arange(90)
        case = Case(Embedded(rows, embeddings, None, rows[:0]), style, names, content, names[:3])
        numbers = measure(case, triplets, torch.device("cpu"))
        for name in ("map", "map_cross_content", "precision_at_10", "r_precision", "triplet_accuracy"):
            assert numbers[name] == pytest.approx(worth, abs=0.45 * (1 - worth)), name
        assert numbers["content_precision_at_1"] == pytest.approx(1 - worth, abs=0.45 * worth)
        assert numbers["chance"]["precision_at_1"] == pytest.approx(17 / 89)


def test_the_batch_size_makes_no_difference(stage2_run: Path, tmp_path: Path) -> None:
    few, many = (evaluate_in(tmp_path / str(size), stage2_run, "--batch-size", size) for size in (3, 64))
    for name in set(NUMBERS) - {"accuracy"}:
        assert few[name] == pytest.approx(many[name], abs=1e-3), name
    first, second = (np.load(tmp_path / str(size) / "embeddings.npz")["embeddings"] for size in (3, 64))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_pictures_that_moved_give_the_same_numbers(
    stage1_numbers: tuple[dict, Path], stage1_run: Path, collection: Path, tmp_path: Path
) -> None:
    data = copy_collection(collection, tmp_path / "moved")
    numbers = evaluate_in(tmp_path / "out", stage1_run, "--data", data)
    for name in NUMBERS:
        assert numbers[name] == pytest.approx(stage1_numbers[0][name], abs=1e-9), name


def test_a_run_on_text_lists_is_evaluated_from_anywhere_wherever_its_pictures_are(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = copy_collection(collection, tmp_path / "data")
    paths = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.jpg"))]
    (tmp_path / "names.txt").write_text("\n".join(paths))
    styles = sorted({path.split("/")[0] for path in paths})
    (tmp_path / "labels.txt").write_text("\n".join(str(styles.index(path.split("/")[0]) % 2) for path in paths))
    monkeypatch.chdir(tmp_path)
    lists = ("--filenames", "names.txt", "--labels", "labels.txt")
    run_main(classification_net, "--data", "data", *lists, "--run", "run", "--epochs", 1, *QUICK)
    monkeypatch.chdir(collection)
    before = evaluate_in(tmp_path / "before", tmp_path / "run")
    data.rename(tmp_path / "moved")
    after = evaluate_in(tmp_path / "after", tmp_path / "run", "--data", tmp_path / "moved")
    assert after["split"] == "test"
    assert list(after["per_style"]) == ["0", "1"]
    assert [after[name] for name in NUMBERS] == [before[name] for name in NUMBERS]


def test_a_triplets_file_is_not_read_for_other_pictures_than_it_numbers(
    stage1_run: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = copy_collection(collection, tmp_path / "data")
    found = read_collection(data)
    rows = {split: found.rows(split).tolist() for split in ("train", "val", "test")}
    lines = [f"{r[i]} {r[i + 1]} {r[i + 2]}" for r in rows.values() for i in range(len(r) - 2)]
    (tmp_path / "triplets.txt").write_text("\n".join(lines))
    options = ("--stage1", stage1_run, "--run", tmp_path / "run", "--epochs", 1, *QUIET)
    run_main(train, "--data", data, "--triplets", tmp_path / "triplets.txt", *options)
    own = evaluate_in(tmp_path / "own", tmp_path / "run")["triplet_accuracy"]
    assert own * (len(rows["test"]) - 2) == pytest.approx(round(own * (len(rows["test"]) - 2)))
    (data / found.paths[rows["train"][0]]).unlink()
    evaluate_in(tmp_path / "fewer", tmp_path / "run")
    assert "1 of the run's pictures are gone; triplet_accuracy is on drawn triplets" in capsys.readouterr().out


# What is written.


def test_everything_lies_in_the_run_folder_and_is_not_blank(stage2_run: Path, tmp_path: Path) -> None:
    run = copy_run(stage2_run, tmp_path / "run")
    run_main(evaluate, run)
    out = run / "evaluation"
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "embeddings.npz", "tsne.png", "retrieval.png", "confusion.png"
    }  # fmt: skip
    for path in out.glob("*.png"):
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10, path
    numbers = json.loads((out / "metrics.json").read_text())
    assert {*NUMBERS, "n_queries", "per_style"} <= numbers.keys()


def test_several_runs_stand_side_by_side(
    stage1_run: Path, stage2_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_main(evaluate, stage1_run, stage2_run, "--out", tmp_path, "--no-tsne")
    printed = capsys.readouterr().out
    text, markdown = ((tmp_path / f"comparison.{kind}").read_text() for kind in ("txt", "md"))
    assert text in printed
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert lines[0] == ["", "stage1", "stage2"]
    table = {line[0]: line[1:] for line in lines[2:]}
    assert set(NUMBERS) < set(table)
    for column, name in enumerate(("stage1", "stage2")):
        numbers = json.loads((tmp_path / name / "metrics.json").read_text())
        assert table["map"][column] == f"{numbers['map']:.3f}"
    assert table["accuracy"][1] == "-"
    with pytest.raises(UserError, match="two of the runs are called stage1"):
        run_main(evaluate, stage1_run, stage1_run, "--out", tmp_path)


def test_the_csv_holds_what_the_archive_holds(stage2_numbers: tuple[dict, Path]) -> None:
    _, out = stage2_numbers
    with (out / "embeddings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(out / "embeddings.npz") as file:
        assert [(row["path"], row["style"], row["content"]) for row in rows] == list(
            zip(file["paths"], file["styles"], file["contents"], strict=True)
        )
        last = np.array([float(rows[-1][f"e{position}"]) for position in range(256)], dtype=np.float32)
        np.testing.assert_array_equal(last, file["embeddings"][-1])


def test_a_flat_folder_is_embedded_for_the_projector(stage2_run: Path, collection: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(collection.rglob("*.jpg"))[:12]):
        shutil.copy(path, tmp_path / "flat" / f"{number}\tof twelve.jpg")
    run_main(evaluate, stage2_run, "--data", tmp_path / "flat", "--out", tmp_path / "out", "--format", "projector")
    vectors = np.loadtxt(tmp_path / "out" / "vectors.tsv", delimiter="\t", dtype=np.float32)
    np.testing.assert_array_equal(vectors, np.load(tmp_path / "out" / "embeddings.npz")["embeddings"])
    lines = (tmp_path / "out" / "metadata.tsv").read_text().splitlines()
    assert lines[0] == "path\tstyle\tcontent"
    assert len(lines) == 13
    assert all(line.count("\t") == 2 for line in lines)
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["n_queries"] == 0
    assert numbers["map"] is None
    assert (tmp_path / "out" / "tsne.png").exists()


# Visdom.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def visdom_port(tmp_path: Path) -> Iterator[int]:
    """The port of a real Visdom server."""
    port = free_port()
    start = "from visdom.server.run_server import main; main()"
    command = [sys.executable, "-c", start, "-port", str(port), "-bind_local", "-env_path", str(tmp_path / "envs")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                try:
                    requests.get(f"http://127.0.0.1:{port}", timeout=5)
                    break
                except requests.RequestException:
                    time.sleep(0.1)
            yield port
        finally:
            server.kill()


def test_the_pictures_appear_in_the_runs_environment(
    stage1_run: Path, tmp_path: Path, visdom_port: int, capsys: pytest.CaptureFixture
) -> None:
    options = ("--visdom", "--visdom-server", "http://127.0.0.1", "--visdom-port", visdom_port)
    evaluate_in(tmp_path / "out", stage1_run, *options)
    assert f"visdom: the pictures are in http://127.0.0.1:{visdom_port}/env/stage1-" in capsys.readouterr().out
    saved = [json.loads(path.read_text())["jsons"] for path in (tmp_path / "envs").glob("stage1-*.json")]
    assert [sorted(windows) for windows in saved] == [["confusion (test)", "retrieval (test)"]]
    assert saved[0]["retrieval (test)"]["content"]["src"].startswith("data:image/png;base64,")


def test_no_visdom_server_costs_one_line_and_nothing_else(
    stage1_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    evaluate_in(
        tmp_path / "out", stage1_run, "--visdom", "--visdom-server", "http://127.0.0.1", "--visdom-port", free_port()
    )
    output = capsys.readouterr()
    assert output.out.count("visdom: the pictures are not in") == 1
    assert "Traceback" not in output.err
    assert (tmp_path / "out" / "retrieval.png").exists()


def test_a_server_that_is_no_visdom_is_named_and_costs_nothing_else(
    stage1_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        evaluate_in(
            tmp_path / "out", stage1_run, "--visdom", "--visdom-server", "http://127.0.0.1", "--visdom-port", port
        )
        server.shutdown()
    output = capsys.readouterr()
    assert "(the server there answers with status 404, as if it were no Visdom); they are in the files" in output.out
    assert "Traceback" not in output.err


# Very many classes.


def test_of_very_many_classes_the_drawings_stay_small() -> None:
    counts = np.eye(300, dtype=np.int64)
    drawn = sheets.to_pixels(sheets.draw_confusion(counts, [f"artist {n}" for n in range(300)], "run", "nearest"))
    assert max(drawn.shape) < 4000
    label = np.repeat(np.arange(300), 3)
    queries = sheets.choose_queries(label, np.zeros_like(label), 2)
    assert len(np.unique(label[queries])) == sheets.MOST_CLASSES
    assert label[queries].max() == 299


# The README's figures.


def test_the_figures_come_out_of_two_evaluated_runs_and_are_small(
    stage1_run: Path, stage2_run: Path, tmp_path: Path
) -> None:
    runs = [copy_run(run, tmp_path / run.name) for run in (stage1_run, stage2_run)]
    with pytest.raises(UserError, match="stage1: has no evaluation; run `python evaluate.py"):
        run_main(figures, "--runs", tmp_path, "--out", tmp_path / "images")
    run_main(evaluate, *runs, "--no-tsne")
    run_main(figures, "--runs", tmp_path, "--out", tmp_path / "images")
    drawn = {path.name: path.stat().st_size for path in (tmp_path / "images").iterdir()}
    each = ("curves", "tsne", "retrieval")
    assert drawn.keys() == {"triplet_net.png", "loss.png"} | {f"{kind}_stage{n}.png" for kind in each for n in (1, 2)}
    assert max(drawn.values()) < 500_000
