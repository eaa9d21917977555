"""The embedding in another program, whatever that program's own modules are called.

net = torch.hub.load("path/of/this/project", "style_embedding", source="local", weights="runs/stage2")
embeddings = net(["one.jpg", "another.png"])         # float32 [2, 256], each of length 1
"""

import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
OURS = {path.stem for path in HERE.glob("*.py")} | {"retrieval"}
dependencies = ["torch", "torchvision", "numpy", "cv2", "PIL", "tqdm", "filelock"]


def take_modules() -> dict:
    """Take all modules that are called like ones of this project out of the interpreter's table."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in OURS}


# The program's modules step aside while ours are imported; afterwards ours are nobody's but this file's.
theirs = take_modules()
sys.path.insert(0, str(HERE))
try:
    from retrieval.embedding import load
finally:
    sys.path.remove(str(HERE))
    take_modules()
    sys.modules.update(theirs)


def style_embedding(weights: str | Path, device: str = "cpu") -> torch.nn.Module:
    """Load the net of the run folder `weights`, ready with its preprocessing: see `retrieval.embedding.TrainedNet`.

    Call it on paths or uint8 RGB arrays [height, width, 3]: float32 [n, embedding_dim], each of length 1, whose
    Euclidean distance is the difference in style. Nothing is downloaded.
    """
    return load(weights, device)
