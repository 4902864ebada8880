"""The command ``liouville``. Nothing here imports torch before a subcommand runs, so that ``--help`` is quick."""

from __future__ import annotations

__all__ = ["liouville", "run"]

from typing import Any

import click

from liouville.cli.agents import agents
from liouville.cli.check import check
from liouville.cli.errors import guarded
from liouville.cli.exits import Interrupted
from liouville.cli.help import Explained
from liouville.cli.list import list_command
from liouville.cli.predict import predict
from liouville.cli.report import report
from liouville.cli.reproduce import reproduce
from liouville.cli.sensitivities import sensitivities
from liouville.cli.train import train
from liouville.cli.verify import verify_command
from liouville.names import suggestion
from liouville.version import __version__


class _Group(Explained, click.Group):
    """A group that answers an unknown subcommand with the nearest right one, and an interrupt in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would write an empty line first
            raise Interrupted("interrupted.") from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = suggestion(args[0], self.commands) or f"the commands are {', '.join(sorted(self.commands))}."
            raise click.UsageError(f"there is no command {args[0]!r}; {near.strip()}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    examples=(
        ("liouville train", "a 64-layer network learns the Swiss roll"),
        ("liouville train --data my.csv --target y", "a network for a table of your own"),
        ("liouville check runs/swiss-roll-h2-1", "what is guaranteed of it"),
        ("liouville predict runs/swiss-roll-h2-1 points.csv", "its answers"),
        ("liouville list", "models, data sets and more"),
    ),
    failure="a training diverged, or a check failed",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "--version", message="%(prog)s %(version)s")
@click.pass_context
def liouville(ctx: click.Context) -> None:
    """Train networks of any depth: every network is an integrator, and the Jacobian between any two layers of the
    papers' Hamiltonian ones never contracts every direction.

    Begin with `liouville train`, which trains a 64-layer Hamiltonian network on the Swiss roll in seconds. Every
    command has a --help with examples. LIOUVILLE_DEBUG=1 shows a defect in full.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (train, report, check, sensitivities, predict, reproduce, agents, verify_command, list_command):
    liouville.add_command(_command)


def run(argv: list[str] | None = None) -> int:
    """Run the command with these words and return the exit code; every error is one line on standard error."""
    options = {p.name for command in liouville.commands.values() for p in command.params if p.name}
    return guarded(lambda: liouville.main(argv, prog_name="liouville", standalone_mode=False), options)
