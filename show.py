"""Show finished pictures in a run's Visdom environment, beside its curves."""

from __future__ import annotations

import argparse
import threading

from curves import connect, environment_name, reason
from embedding import Run
from sheets import to_pixels

SECONDS = 20.0  # for all pictures of a run; a server that takes longer is left behind


def add_show_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whether and where pictures are shown."""
    group = parser.add_argument_group("Visdom")
    group.add_argument(
        "--visdom",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show the pictures in the run's Visdom environment too; default: if its curves were shown",
    )
    group.add_argument("--visdom-server", metavar="URL", help="default: the one that the run was trained with")
    group.add_argument("--visdom-port", type=int, metavar="N", help="default: the one that the run was trained with")


def show_pictures(args: argparse.Namespace, run: Run, pictures: dict[str, bytes]) -> None:
    """Show PNGs, by title, in the run's environment; waits `SECONDS` at most, and says whether it worked."""
    settings = run.settings
    wanted = settings.get("visdom", True) if args.visdom is None else args.visdom
    if not wanted:
        return
    server = args.visdom_server or settings.get("visdom_server") or "http://localhost"
    port = args.visdom_port or settings.get("visdom_port") or 8097
    env = settings.get("env") or environment_name(run.folder)
    problems = ["it does not answer"]

    def work() -> None:
        """Send the pictures; in a thread of its own, because Visdom's client may wait for longer than we do."""
        try:
            client = connect(server, port, env)
            for title, png in pictures.items():
                client.image(to_pixels(png), win=title, env=env, opts={"title": title})
            client.save([env])
            problems.clear()
        except ImportError:
            problems[0] = "visdom is not installed"
        except Exception as error:  # whatever goes wrong in a view, the pictures are in the files
            problems[0] = reason(error)

    thread = threading.Thread(target=work, name="visdom", daemon=True)
    thread.start()
    thread.join(SECONDS)
    place = f"{server}:{port}/env/{env}"
    if problems:
        print(f"visdom: the pictures are not in {place} ({problems[0]}); they are in the files")
    else:
        print(f"visdom: the pictures are in {place}")
