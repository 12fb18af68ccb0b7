"""The command `strata`: views of what the workflow has made, makes, or would make.

It runs nothing and changes no file; what builds is Snakemake. Imports no torch.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from strata import __version__
from strata.stages import run_stage


def main(argv: Sequence[str] | None = None) -> None:
    """Show what is asked for, and leave the process with status 0, or 2 for a user's mistake."""
    arguments = _parser().parse_args(argv)
    with contextlib.suppress(KeyboardInterrupt):
        run_stage(lambda: _show(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strata",
        description="Views of the workflow in this folder. What builds is Snakemake.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"strata {__version__}")
    views = parser.add_subparsers(title="views", dest="view", metavar="view")
    _add_watch(views)
    _add_ls(views)
    _add_why(views)
    parser.set_defaults(help=parser.format_help())
    return parser


def _add_watch(views: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    says = "show running experiments live"
    more = "Leaves once nothing has run for 10 seconds, or with Ctrl-C."
    view = views.add_parser("watch", help=says, description=f"{says.capitalize()}. {more}")
    view.add_argument("names", nargs="*", metavar="experiment", help="experiment, family, or demo")
    view.add_argument("--once", action="store_true", help="print them once and leave")


def _add_ls(views: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    says = "list experiments with state and verdict"
    view = views.add_parser("ls", help=says, description=f"{says.capitalize()}.")
    view.add_argument("names", nargs="*", metavar="name", help="experiment, family, or demo")
    view.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _add_why(views: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    says = "say why Snakemake would make a file (again)"
    view = views.add_parser("why", help=says, description=f"{says.capitalize()}.")
    view.add_argument("target", help="a file or a target, such as results/mera_L4/verdict.json")


def _show(arguments: argparse.Namespace) -> None:
    """Each view is imported when it is asked for."""
    with _quiet_when_the_reader_leaves():
        if arguments.view == "watch":
            from strata.views.watching import watch

            watch(arguments.names, once=arguments.once)
        elif arguments.view == "ls":
            from strata.views.listing import list_experiments

            list_experiments(arguments.names, as_json=arguments.json)
        elif arguments.view == "why":
            from strata.views.reasons import explain

            explain(arguments.target)
        else:
            print(arguments.help, end="")


@contextlib.contextmanager
def _quiet_when_the_reader_leaves() -> Iterator[None]:
    """Say nothing when what is printed is no longer read, as in `strata ls | head -3`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
