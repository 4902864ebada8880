"""How the command ends otherwise than well: one sentence and an exit code."""

from __future__ import annotations

__all__ = ["BadInput", "Broken", "Failed", "Interrupted"]

import click


class BadInput(click.ClickException):
    """Something that was given does not fit."""

    exit_code = 2


class Broken(click.ClickException):
    """A claim about a network that does not hold."""

    exit_code = 1


class Failed(click.ClickException):
    """A training that diverged, or lost one of its processes."""

    exit_code = 1


class Interrupted(click.ClickException):
    """The user stopped it."""

    exit_code = 130
