"""How a command explains itself: ``--help`` is short and ends with examples, ``--help-all`` is whole."""

from __future__ import annotations

__all__ = ["Command", "Explained", "section"]

import copy
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

_ALL = "liouville.help-all"
_OTHERS = "2 bad usage or input; 130 interrupted by Ctrl-C, 129 by a hangup, 143 by SIGTERM; 70 a defect of liouville."


class Explained(click.Command):
    """What ends a help text: examples, exit codes, and where the rest is.

    Args:
        examples: command lines, each with a few words on what it does.
        failure: what the exit code 1 says; empty where the command never ends with it.
    """

    def __init__(
        self, *args: Any, examples: Sequence[tuple[str, str]] = (), failure: str = "", **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.examples, self.failure = tuple(examples), failure

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line, what in self.examples:
                    formatter.write(
                        f"{'':{formatter.current_indent}}{line}\n{'':{formatter.current_indent + 4}}{what}\n"
                    )
        failure = f"1 {self.failure}; " if self.failure else ""
        formatter.write_paragraph()
        formatter.write_text(f"Exit codes: 0 done; {failure}{_OTHERS}")


class Command(Explained):
    """A command whose ``--help`` shows the options that most people use, and ``--help-all`` all of them, in sections.

    Args:
        common: names of the parameters that the short help shows; all of them if None.
    """

    def __init__(self, *args: Any, common: Sequence[str] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.common = common
        self.params.append(
            click.Option(
                ["--help-all"], is_flag=True, expose_value=False, is_eager=True, callback=_show_all, help=_hint(self)
            )
        )

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        whole = self.help
        if whole and self.common is not None and not ctx.meta.get(_ALL):
            self.help = "\n\n".join(whole.split("\n\n")[:2])
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = whole

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if self._shows(ctx, parameter) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name if name != "Options" or len(sections) == 1 else "Help"):
                formatter.write_dl(records)

    def _shows(self, ctx: click.Context, parameter: click.Parameter) -> bool:
        if self.common is None or ctx.meta.get(_ALL) or parameter.name in self.common:
            return True
        return bool({"--help", "--help-all"} & {*parameter.opts})


def _hint(command: Command) -> str:
    options = [p for p in command.params if isinstance(p, click.Option)]
    hidden = [p for p in options if command.common is not None and p.name not in command.common]
    return f"Show the other {len(hidden)} options, too." if hidden else "Show the same: these are all options."


def _show_all(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class _Option(click.Option):
    """An option of one section; ``former`` is a name of an earlier version, which works and is not shown."""

    section = "Options"

    def __init__(self, declarations: Sequence[str], *, former: str | None = None, **attributes: Any) -> None:
        super().__init__([*declarations, former] if former else declarations, **attributes)
        self.former = former

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts = [name for name in self.opts if name != self.former]
        return super(_Option, shown).get_help_record(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The words of ``metavar="stored|reversible"``, where nothing else completes the option."""
        found = super().shell_complete(ctx, incomplete)
        words = [word for word in (self.metavar or "").split("|") if "|" in (self.metavar or "") and word.islower()]
        return found or [CompletionItem(word) for word in words if word.startswith(incomplete)]


def section(name: str) -> Callable[..., Callable[[Any], Any]]:
    """``click.option`` for one section of the help."""
    kind = type("_SectionOption", (_Option,), {"section": name})

    def option(*declarations: str, **attributes: Any) -> Callable[[Any], Any]:
        return click.option(*declarations, cls=kind, **attributes)

    return option
