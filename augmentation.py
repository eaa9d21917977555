"""From squares to what the net sees: crops, flips and centred colours, a whole batch at once on its device.

Colour and texture *are* style, so they are left alone; where a thing stands, how large, and which way it looks is not.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def draw_crops(count: int, smallest_area: float, side: int, seed: int) -> Tensor:
    """Draw the crops of an epoch, on the CPU and so the same for every device: int64 [count, 4].

    Each is a square of between `smallest_area` (in (0, 1]) and all of the area of a picture of `side` pixels, anywhere
    in it, and half of them are mirrored; written as left, top, side (whole pixels) and mirrored (0 or 1).
    """
    chances = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    crop = (side * (smallest_area + (1 - smallest_area) * chances[:, 0]).sqrt()).round().clamp(min=1)
    corner = (chances[:, 2:] * (side - crop + 1)[:, None]).floor()
    return torch.stack([*corner.unbind(dim=1), crop, (chances[:, 1] >= 0.5).double()], dim=1).long()


def prepare(squares: Tensor, image_size: int, mean: Tensor, deviation: Tensor, crops: Tensor | None = None) -> Tensor:
    """Crop squares and centre their colours.

    `squares` is uint8 [n, side, side, 3]; `mean` and `deviation`, float32 [3], are of colours in [0, 1]; `crops`,
    int64 [n, 4], comes from `draw_crops` in training; without them the middle is taken, at its own size.
    Returns float32 [n, 3, image_size, image_size] in the channels-last layout that convolutions are fastest on.
    """
    if crops is None:
        start = (squares.shape[1] - image_size) // 2
        pictures = squares[:, start : start + image_size, start : start + image_size].float()
    elif squares.device.type == "cpu":
        pictures = torch.from_numpy(crop_on_cpu(squares.numpy(), image_size, crops)).float()
    else:
        pictures = crop_on_gpu(squares, image_size, crops)
    # One multiplication and one addition for each value: (value / 255 - mean) / deviation. Whole lines of pixels are
    # several times faster on a CPU than three values at a time.
    lines = pictures.view(len(pictures), image_size, 3 * image_size)
    torch.addcmul((-mean / deviation).repeat(image_size), lines, (1 / (255 * deviation)).repeat(image_size), out=lines)
    return pictures.permute(0, 3, 1, 2)


def crop_on_cpu(squares: np.ndarray, image_size: int, crops: Tensor) -> np.ndarray:
    """Crop and resize, bilinearly, uint8 [n, side, side, 3] to uint8 [n, image_size, image_size, 3]."""
    cropped = np.empty((len(squares), image_size, image_size, 3), dtype=np.uint8)
    for square, (left, top, side, mirrored), into in zip(squares, crops.tolist(), cropped, strict=True):
        part = square[top : top + side, left : left + side]
        cv2.resize(part, (image_size, image_size), dst=into, interpolation=cv2.INTER_LINEAR)
        if mirrored:
            cv2.flip(into, 1, dst=into)
    return cropped


def crop_on_gpu(squares: Tensor, image_size: int, crops: Tensor) -> Tensor:
    """The same for all pictures at once and without rounding: float32 [n, image_size, image_size, 3]."""
    # Where the pixels' centres lie in the squares, whose edges grid_sample has at -1 and 1.
    steps = (torch.arange(image_size, device=squares.device) + 0.5) / image_size
    left, top, side, mirrored = crops[:, :, None].unbind(dim=1)
    x = torch.where(mirrored > 0, left + side * (1 - steps), left + side * steps)
    y = top + side * steps
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1) * (2 / squares.shape[1]) - 1
    cropped = functional.grid_sample(
        squares.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False
    )
    return cropped.permute(0, 2, 3, 1).contiguous()
