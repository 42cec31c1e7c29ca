"""The command line: `safetypilot VERB ...`. What a verb needs is imported when it is called.

Exit codes: 0 done, 1 the run (or the request) failed, 2 the input is wrong; a run stopped by a
person ends with 128 + the signal's number (Ctrl-C: 130), cleanly and with its summary.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from safetypilot.launch import cli_attach as attach
from safetypilot.launch import cli_bench as bench
from safetypilot.launch import cli_bridge as bridge
from safetypilot.launch import cli_collect as data
from safetypilot.launch import cli_hosts as hosts
from safetypilot.launch import cli_launch as launch
from safetypilot.launch import cli_record as recording
from safetypilot.launch import cli_results as results
from safetypilot.launch import cli_swap as swap
from safetypilot.launch import cli_tools as tools
from safetypilot.launch import cli_watch as watch
from safetypilot.launch.children import ONE_THREAD


class Verbs(TyperGroup):
    """Turns what can go wrong for known reasons into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `safetypilot echo ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except expected_errors() as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(exit_code_of(error)) from None


def expected_errors() -> tuple[type[BaseException], ...]:
    """What is answered with a line instead of a traceback; imported only when there is an error."""
    from safetypilot.bridge.contract import DriverError
    from safetypilot.envs.registry import UnknownEnvironmentError, UnsupportedEnvironmentError
    from safetypilot.launch.bundle import BundleError
    from safetypilot.launch.cli_common import InputError
    from safetypilot.launch.loader import LaunchFileError
    from safetypilot.launch.runtime_dir import RuntimeDirError
    from safetypilot.nodes.kernel.errors import KernelError
    from safetypilot.policies.learn.errors import LearnError

    return (
        BundleError,
        DriverError,
        InputError,
        LaunchFileError,
        RuntimeDirError,
        KernelError,
        LearnError,
        UnknownEnvironmentError,
        UnsupportedEnvironmentError,
    )


def exit_code_of(error: BaseException) -> int:
    """1 where a running node refused or stayed silent, 2 where the input is wrong."""
    from safetypilot.nodes.kernel.errors import RequestRefused, Unanswered

    return 1 if isinstance(error, RequestRefused | Unanswered) else 2


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Flies learned policies behind a shield: launch a graph, watch it, swap its models.",
    epilog="Example: safetypilot launch maze-demo",
)
for verbs in (launch, hosts, attach, bridge, swap, watch, recording, tools, data, results, bench):
    verbs.register(app)


def main() -> None:
    """Entry point of the `safetypilot` command."""
    for name in ONE_THREAD:  # before numpy: nodes in this process compute as those in their own
        os.environ.setdefault(name, "1")
    try:
        app(prog_name="safetypilot")
    except OSError as error:  # a full disk, say, behind standard output
        name = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {name}{error.strerror or error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
