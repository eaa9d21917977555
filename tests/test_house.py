"""Six files tell the method: who may import whom."""

import ast

import pytest
from running import ROOT

MAY = {  # what each of the six may import of the project
    "utils": set(),
    "dataset": {"utils"},
    "networks": {"utils"},
    "triplet_network": {"networks", "utils"},
    "classification_net": {"dataset", "networks", "utils"},
    "train": {"dataset", "networks", "triplet_network", "utils"},
}
FOLDERS = ("retrieval", "bam", "standin", "experiments")
STAGES = {"classification_net", "train"}


def imported(path: str) -> set[str]:
    """The top-level names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(MAY))
def test_the_six_import_each_other_in_one_direction_and_nothing_else_of_the_project(name):
    assert imported(f"{name}.py") & {*MAY, *FOLDERS} <= MAY[name]


def test_only_experiments_import_a_stage_script():
    for path in [*ROOT.glob("hubconf.py"), *(file for folder in FOLDERS[:3] for file in (ROOT / folder).glob("*.py"))]:
        assert not imported(str(path)) & STAGES, path
