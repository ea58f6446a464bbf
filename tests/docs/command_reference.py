"""The reference of the command line, from the parser: every command with its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from reasontrain.cli.arguments import parser


def command_reference() -> str:
    """A section per command: purpose, example, arguments."""
    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return "\n\n".join(
        f"## `reasontrain {name}`\n\n{command.description}\n\n{_example(command)}\n\n"
        f"{_arguments(command)}"
        for name, command in commands.choices.items()
    )


def _example(command: argparse.ArgumentParser) -> str:
    """The example of the help text, as a block of shell."""
    _, _, example = (command.epilog or "").partition("example:\n")
    assert example, f"{command.prog} has no example"
    lines = "\n".join(line.strip() for line in example.strip().splitlines())
    return f"```sh\n{lines}\n```"


def _arguments(command: argparse.ArgumentParser) -> str:
    """The arguments of a command as a table; a sentence if there are none."""
    rows = ["| argument | meaning |", "| --- | --- |"]
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        meaning = (action.help or "") % (vars(action) | {"prog": command.prog})
        rows.append(f"| `{' '.join(_usage(action))}` | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) if len(rows) > 2 else "It has no arguments."


def _usage(action: argparse.Action) -> Iterator[str]:
    """An argument as it is typed: its option, and names or choices of its values."""
    if action.option_strings:
        yield action.option_strings[-1]
        if action.nargs == 0:
            return
    if action.choices is not None:
        value = ",".join(map(str, action.choices))
        yield f"{{{value}}}"
    else:
        yield str(action.metavar or action.dest.upper())
    if action.nargs in ("+", "*"):
        yield "..."
