"""Options that are written once, and shown wherever they can be given.

An option of a rule is a field with an entry in the rule's docstring; a common one is a parameter of
``scale_by_rule`` or ``optimizer``. Functions that hand them on take ``**options``: their signatures
and docstrings are completed here, so that ``help``, editors and ``optax.inject_hyperparams`` see
every option with its meaning and default.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from singd_optax._validate import near
from singd_optax.rules import Rule

Function = TypeVar("Function", bound=Callable[..., object])
Source = type[Rule] | Callable[..., object]

#: Characters of a type that a signature shows.
_LONGEST_TYPE = 60

#: Options of earlier versions, and what to write instead.
_RENAMED = {
    "consistent_rms": "`update_rms`",
    "b1": "`momentum`",
    "block_size": "`structures='block_diagonal:1024'`",
    "kl_learning_rate": "a part of `kl_clip`: KLClip(bound, learning_rate)",
}


def shows_options_of(
    *sources: Source,
    defaults: Mapping[str, object] | None = None,
    without: Iterable[str] = (),
    sections: str = "",
    example: str = "",
) -> Callable[[Function], Function]:
    """A decorator that completes signature and docstring of a function with ``**options``.

    Args:
      *sources: Rules, whose fields are options, and functions, whose keyword-only parameters are.
      defaults: The defaults that differ from those of the source, by name.
      without: The names of options that this function does not have.
      sections: The last paragraph, Args, Returns and Raises of a function that writes no Args;
        "<name>" in it stands for the name of the complete optimizer.
      example: The Example of a function that writes none, likewise.

    Raises:
      TypeError: An option has no entry in the docstring of its source.
    """

    def decorate(function: Function) -> Function:
        parameters: dict[str, inspect.Parameter] = {}
        entries: dict[str, str] = {}
        for source in sources:
            described = _entries(source)
            for name, parameter in _parameters(source).items():
                if name in parameters or name in without:
                    continue
                if name not in described:
                    raise TypeError(
                        f"The docstring of {source.__name__} describes no option {name!r}. Write "
                        "an entry for it under Attributes (or under Args, if it is a function)."
                    )
                default = (defaults or {}).get(name, parameter.default)
                parameters[name] = parameter.replace(default=default)
                entries[name] = described[name]
        own = inspect.signature(function)
        shown = [_readable(p) for p in own.parameters.values()]
        first = [p for p in shown if p.kind is not p.VAR_KEYWORD]
        taken = {p.name for p in first}
        rest = [p for name, p in parameters.items() if name not in taken]
        signature = own.replace(parameters=[*first, *rest])
        function.__signature__ = signature  # type: ignore[attr-defined]
        texts = [entries[p.name] for p in rest]
        doc = inspect.cleandoc(function.__doc__ or "")
        if "Args:" not in doc:
            name = function.__name__.removeprefix("scale_by_")
            own_example = "" if "Example:" in doc else example
            named = (text.replace("<name>", name) for text in (sections, own_example))
            doc = _sectioned(doc, *named)
        function.__doc__ = _inserted(doc, texts)
        return function

    return decorate


def _parameters(source: Source) -> dict[str, inspect.Parameter]:
    """The options of a source, by name, all keyword-only."""
    parameters = inspect.signature(source).parameters.values()
    inherited = set(inspect.signature(Rule).parameters)  # what all rules have comes last
    chosen = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {p.name: _readable(p) for p in sorted(chosen, key=lambda p: p.name in inherited)}


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter without a type that is longer than what it says."""
    is_long = len(inspect.formatannotation(parameter.annotation)) > _LONGEST_TYPE
    return parameter.replace(annotation=inspect.Parameter.empty) if is_long else parameter


def _entries(source: Source) -> dict[str, str]:
    """Name of an option -> its entry in the docstring, indented by two."""
    classes = source.__mro__ if isinstance(source, type) else (source,)
    found: dict[str, str] = {}
    for one in reversed(classes):
        doc = inspect.cleandoc(one.__doc__ or "")
        section = re.search(r"^(?:Args|Attributes):\n((?:  .*\n|\n)*)", doc + "\n", re.MULTILINE)
        if section:
            parts = re.split(r"^  (?=\**\w+:)", section.group(1), flags=re.MULTILINE)
            found |= {part.split(":")[0]: f"  {part.rstrip()}" for part in parts if part.strip()}
    return found


def _sectioned(doc: str, sections: str, example: str) -> str:
    """The docstring with these sections before its references, and the example at its end."""
    found = re.search(r"^(References|Example):$", doc, re.MULTILINE)
    place = found.start() if found else len(doc)
    parts = doc[:place].rstrip(), inspect.cleandoc(sections), doc[place:], inspect.cleandoc(example)
    return "\n\n".join(part for part in parts if part)


def _inserted(doc: str, entries: list[str]) -> str:
    """The docstring with these entries at the end of its ``Args``."""
    lines = doc.split("\n")
    start = lines.index("Args:")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("  "))
    return "\n".join([*lines[:end], *entries, *lines[end:]])


def check_options(function: Callable[..., object], options: Iterable[str]) -> None:
    """Raise unless a function has all of these options.

    Args:
      function: The function that was called.
      options: The names of the options that it got.

    Raises:
      TypeError: An option is unknown; the message names the legal option that is nearest.
    """
    legal = inspect.signature(function).parameters
    for name in options:
        if name not in legal:
            advice = f" It is now {_RENAMED[name]}." if name in _RENAMED else near(name, legal)
            raise TypeError(
                f"{getattr(function, '__name__', function)}() has no option `{name}`.{advice} "
                f"The options are {', '.join(legal)}."
            )


def split(rule: type[Rule], options: Mapping[str, object]) -> tuple[Rule, dict[str, object]]:
    """Make a rule of the options that are its own, and return it with all other options.

    Args:
      rule: The class of the rule.
      options: The options of the rule, and others, by name.
    """
    own = {field.name for field in dataclasses.fields(rule)}
    made = rule(**{name: value for name, value in options.items() if name in own})  # type: ignore[arg-type]
    return made, {name: value for name, value in options.items() if name not in own}
