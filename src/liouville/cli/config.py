"""Files of settings: ``--config FILE`` reads one, ``--print-config`` writes one."""

from __future__ import annotations

__all__ = ["read", "written"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

from liouville.cli.exits import BadInput
from liouville.version import __version__

if TYPE_CHECKING:
    from liouville.runs import Plan

_MOST = 100_000  # bytes of a YAML file; --print-config writes some 2,000, and 10 MB would take minutes to parse
_HEAD = f"""\
# Every setting of a training, by liouville {__version__}. `liouville train --config FILE` starts from it: leave out
# what may be as the data set's recipe has it. Options on the command line replace what stands here.
"""
_SPELLED = {"id": "ids", "category": "categories", "batch": "batch_size"}


def read(file: str) -> dict[str, Any]:
    """The settings in a YAML file, or in the ``config.json`` of a run, by their names.

    Raises:
        BadInput: it is not YAML, or no mapping from names to values.
        OSError: it cannot be read.
    """
    from liouville import documents
    from liouville.runs import Plan, Run
    from liouville.runs.run import CONFIG
    from liouville.runs.written import flat

    path = Path(file)
    if path.is_dir():
        raise BadInput(f"{file} is a folder; give its {CONFIG}, or --like {file}.")
    if path.suffix == ".json":
        value = documents.read(path)
        if isinstance(value, dict) and isinstance(value.get("plan"), dict):
            return flat(Run.open(path.parent).plan if path.name == CONFIG else Plan.from_dict(value["plan"]))
    else:
        value = _yaml(documents.content(path), file)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise BadInput(f"{file} must have lines NAME: VALUE, as `liouville train --print-config` prints them.")
    names = {name: name.replace("-", "_") for name in value}
    return {_SPELLED.get(names[name], names[name]): content for name, content in value.items()}


def written(plan: Plan) -> str:
    """The settings of a plan as YAML, in the order of the options.

    Examples:
        >>> from liouville.runs import Plan
        >>> [line for line in written(Plan.of("wine")).splitlines() if line.startswith(("data:", "model:"))]
        ['data: wine', 'model: h2']
    """
    import io

    from liouville.runs.written import flat

    yaml, text = _parser(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(flat(plan), text)
    return _HEAD + text.getvalue().rstrip()


def _parser() -> Any:
    try:
        from ruamel.yaml import YAML
    except ImportError as error:
        raise ImportError(
            f"files of settings need ruamel.yaml ({error}); install it: pip install 'liouville[command]'"
        ) from error
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def _yaml(content: bytes, file: str) -> Any:
    if len(content) > _MOST:
        raise BadInput(f"{file} has {len(content):,} bytes; settings have at most {_MOST:,}. Give a file of settings.")
    yaml = _parser()
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return yaml.load(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not text in UTF-8; write it as `liouville train --print-config` does.") from None
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise BadInput(f"{file} is not YAML; {line}{error.problem}.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} is not YAML: {str(error).splitlines()[0]}.") from None
