"""For programs that want the embedding and not the scripts, whatever their own modules are called:

net = torch.hub.load("path/of/this/project", "style_embedding", source="local", weights="runs/stage2/best.pt")
embeddings = net(["one.jpg", "another.png"])         # float32 [2, 256], each of length 1
"""  # noqa: D400

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def foreign_modules() -> set[str]:
    """Modules of the calling program that are called like ones of this project, such as a `utils` of its own."""
    ours = {path.stem for path in HERE.glob("*.py")} - {"hubconf"}
    return {
        name for name in sys.modules.keys() & ours
        if Path(getattr(sys.modules[name], "__file__", None) or "").resolve().parent != HERE
    }  # fmt: skip


# The program's modules step aside while ours are imported, and come back: each then has its own.
aside = {name: sys.modules.pop(name) for name in foreign_modules()}
sys.path.insert(0, str(HERE))
try:
    from trained import TrainedNet, load_trained
finally:
    sys.path.remove(str(HERE))
    sys.modules.update(aside)

dependencies = ["torch", "torchvision", "numpy", "cv2", "PIL", "tqdm", "filelock"]


def style_embedding(weights: str | Path, device: str = "cpu") -> TrainedNet:
    """Load a trained net, ready with its preprocessing.

    `weights` is a run folder or its `best.pt`; `device` where the net goes. Call the net on paths, uint8 RGB arrays
    [height, width, 3] or float tensors [n, 3, image_size, image_size] in [0, 1]: float32 [n, embedding_dim], each of
    length 1, Euclidean distance = difference in style. See `trained.TrainedNet`. Nothing is downloaded.
    """
    return load_trained(weights, device)
