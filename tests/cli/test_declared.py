"""Options of `liouville train` are the fields of the records, read from their source as the classes have them."""

import dataclasses
import typing

import pytest

from liouville.cli.declared import declared, options
from liouville.cli.help import section
from liouville.cli.train import train
from liouville.train import GaussNewton, Penalty, Settings

RECORDS = {
    Settings: "train/settings.py",
    GaussNewton: "train/settings.py",
    Penalty: "train/regularisers/penalty.py",
}


@pytest.mark.parametrize("record", RECORDS)
def test_what_is_read_is_what_the_class_has(record):
    hints, found = typing.get_type_hints(record), {}
    for field in dataclasses.fields(record):
        hint = hints[field.name]
        kinds = set(typing.get_args(hint)) - {type(None)} or {hint}
        if typing.get_origin(hint) is typing.Literal:
            found[field.name] = (str, typing.get_args(hint))
        elif kinds <= {int, float}:
            found[field.name] = (*kinds, ())
    read = declared(RECORDS[record], record.__name__)
    assert {field.name: (field.kind, field.words) for field in read} == found
    assert {field.former: field.name for field in read if field.former} == record._former
    for field in read:
        assert field.help[0].isupper() and field.help.endswith(".") and len(field.help) < 120, field


def test_a_field_is_an_option_with_the_first_clause_as_its_help(tmp_path):
    """A field that is added to a class is an option, of its type and words, and nothing else is touched."""
    file = tmp_path / "record.py"
    file.write_text(
        '''
@fields_renamed(old_gap="gap")
class Record:
    """A record.

    Args:
        gap: how wide ``"it"`` is; in metres,
            or none.
        kind: either; of two.
        inner: not for the command line.

    Raises:
        ValueError: never.
    """

    gap: float | None = None
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
'''
    )
    gap, kind = declared(str(file), "Record")
    assert gap == ("gap", float, (), "How wide it is.", "old_gap") and kind == (
        "kind",
        str,
        ("a", "b"),
        "Either.",
        None,
    )
    import click

    command = click.command()(options(section("Test"), (gap, kind), more={"kind": ("c",)})(lambda **values: None))
    assert [(p.opts, p.metavar) for p in command.params] == [(["--gap", "--old-gap"], None), (["--kind"], "a|b|c")]
    assert command.params[0].type.convert("1.5", None, None) == 1.5


def test_no_option_stands_twice():
    names = [name for parameter in train.params for name in (*parameter.opts, *parameter.secondary_opts)]
    assert len(names) == len(set(names))
