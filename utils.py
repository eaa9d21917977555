"""What every script shares about running: errors, files written whole, devices, precision and seeds."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch


class UserError(Exception):
    """Something that the user must change. Its message is one line: what is wrong, and the remedy."""


class Interrupted(Exception):
    """The run was asked to stop and has saved its work. `signal_number` says by what."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def run_script(get_parser: Callable[[], argparse.ArgumentParser], main: Callable[[argparse.Namespace], Any]) -> int:
    """Run a script's `main` on the command line; return its exit status.

    0: done. 2: the user must change something, or memory is full; one line on stderr says what. 130 and 143: stopped
    by Ctrl-C or SIGTERM after saving.
    """
    args = get_parser().parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of pictures may not fit the terminal's encoding
    try:
        main(args)
        sys.stdout.flush()
    except UserError as error:
        return complain(str(error), 2)
    except Interrupted as stop:
        return complain(str(stop), 128 + stop.signal_number)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # What is written through `write_whole` never comes here; a redirected output on a full disk does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = error.filename or "the output"
        return complain(
            f"{what}: cannot be read or written: {error.strerror or error}; free some space or check its rights", 2
        )
    except RuntimeError as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and "DefaultCPUAllocator" not in str(error):
            raise
        whose = "GPU" if on_gpu else "machine"
        return complain(f"the memory of the {whose} is full; lower --batch-size, or free some of it", 2)
    return 0


def complain(message: str, status: int) -> int:
    """Print one line on stderr, under the script's name, and return `status`."""
    with contextlib.suppress(OSError):  # stderr may lie on the full disk that the message is about
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    return status


# Files: whole or not at all.


def write_whole(path: Path, content: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it is there whole or not at all: beside it, synced, then renamed.

    `content` is the bytes or text, or a function that writes them into the open file.
    Raises `UserError` where the file cannot be written (disk full, folder gone or read-only).
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give this one the rights that open() would have given it.
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror or error}; free some space or check the folder's rights"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `UserError` where there is none or it is not valid."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not a readable JSON file ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: should hold a JSON object")
    return value


# Devices, precision and seeds.


def choose_device(name: str) -> torch.device:
    """Turn `--device` (auto, cpu, cuda or cuda:N) into a device that is really there.

    Raises `UserError` for CUDA where there is none and for names that are no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"--device {name}: this machine has no usable CUDA device; use --device cpu")
        if device.index is not None and device.index >= count:
            raise UserError(f"--device {name}: this machine has only {count} CUDA device(s), counted from cuda:0")
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Turn `--amp` (auto, off, bf16 or fp16) into the autocast type, or None for full precision.

    auto takes bfloat16 only where the device computes it natively: elsewhere it is up to 25 times slower.
    """
    if name == "auto":
        if device.type == "cuda":
            major, _ = torch.cuda.get_device_capability(device)
            name = "bf16" if major >= 8 else "fp16" if major >= 7 else "off"
        else:
            name = "bf16" if processor_has_matrix_bfloat16() else "off"
    if name == "fp16" and device.type == "cpu":
        raise UserError("--amp fp16: needs a CUDA device; use --amp auto")
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def processor_has_matrix_bfloat16() -> bool:
    """Whether this processor has matrix units for bfloat16 (AMX), by what the Linux kernel says of it."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def keep_freed_memory() -> None:
    """Have the C library keep freed memory instead of giving each large tensor back to the system.

    Otherwise every step of a large net on a CPU asks for hundreds of megabytes anew, and the system clears them first:
    a quarter of the time in bfloat16. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_max = -1, -4  # names in malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def derive_seed(*parts: int | str) -> int:
    """Make one 63-bit seed out of a run's seed and a purpose, such as (seed, "augmentation", epoch).

    The same on every machine and in every process; different purposes get unrelated streams.
    """
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def to_bytes(save: Callable[[BinaryIO], Any]) -> bytes:
    """Collect in memory what `save` would write into a file."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of being ended by them, so that a step can finish and be saved.

    A second Ctrl-C ends the process at once. Outside the main thread, where Python takes no signals, nothing changes.
    """
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and caught:
            raise KeyboardInterrupt
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
