"""The shape of a source tree in numbers: functions that know too much, functions and files that are too long.

``python benchmarks/code_shape.py src`` prints one line a count, ``--list`` also where it was found.
To compare two trees, run it on both. It reads the syntax only: nothing of the tree is imported.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_PARAMETERS = 6
MAX_FUNCTION_LINES = 50
MAX_FILE_LINES = 500

CONFIG_CLASS = "RunConfig"
CONFIG_PARAMETERS = {"settings", "config", "base"}  # in the command line, where they are annotated Any
CONTEXT_MODES = {"chat", "window"}
CONTEXT_SETTINGS = {"context", "mode"}  # the last name of a setting that holds the context mode

SETTINGS_SUFFIXES = ("Settings", "Section", "Size")
# Settings classes that are one thing under two names; besides them, classes with equal stems.
SAME_SETTINGS = {"Reward": "Method", "Credit": "Method"}

BANNED = (
    *("place", "go_on", "turn", "finish", "asking", "slim", "light"),
    *("shelf", "meet", "blame", "hold", "talk"),
)
# In a function with one of these names, "turn" is a rotation and not a turn of a conversation.
ROTARY_NAMES = {"cos", "sin", "rotary", "rotation", "rotation_at", "go_on", "attention"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Report:
    """Everything counted so far."""

    lines_of_code: int = 0  # lines of *.py
    lines_of_all: int = 0  # lines of every text file
    files: int = 0  # number of *.py
    most_parameters: int = 0  # of a function that is no command
    found_at: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )  # kind -> "file:line name"
    banned: Counter[str] = field(default_factory=Counter)  # banned name -> identifiers that hold it

    def add(self, kind: str, file: str, line: int, text: str) -> None:
        self.found_at[kind].append(f"{file}:{line} {text}")


@dataclass(frozen=True, slots=True)
class SettingsClass:
    """A class of settings and the fields that it defines itself."""

    name: str
    file: str
    fields: dict[str, int]  # name -> line

    @property
    def stem(self) -> str:
        """The name without its suffix and leading underscores: Lora of LoraSettings."""
        name = self.name.lstrip("_")
        return next(name.removesuffix(s) for s in SETTINGS_SUFFIXES if name.endswith(s))

    def pairs_with(self, other: SettingsClass) -> bool:
        """Whether both are settings of the same thing."""
        stems = {self.stem, other.stem}
        equal = len(stems) == 1 and "" not in stems
        return equal or any({ours, theirs} == stems for ours, theirs in SAME_SETTINGS.items())


def functions(
    node: ast.AST, inside: ast.ClassDef | None = None
) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    """Every function below ``node``, nested ones included, with the class it is a method of."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, inside
            yield from functions(child)
        else:
            yield from functions(child, child if isinstance(child, ast.ClassDef) else inside)


def parameters(function: Function, owner: ast.ClassDef | None) -> list[ast.arg]:
    """Parameters by position or name; not ``self`` or ``cls``, not ``*args`` and ``**kwargs``."""
    found = [*function.args.posonlyargs, *function.args.args]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    if owner is not None and not static:
        found = found[1:]
    return [*found, *function.args.kwonlyargs]


def union_members(annotation: ast.expr | None) -> Iterator[str]:
    """The names that a union is of: "RunConfig" and "None" of ``RunConfig | None``, however it is written."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from union_members(left)
            yield from union_members(right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            yield from union_members(inner)
        case ast.Constant(value=str(text)):
            yield from union_members(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name


def is_command(function: Function) -> bool:
    """Whether typer makes a command of it: its parameters are what a person may type."""
    return any(
        isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) and d.func.attr == "command"
        for d in function.decorator_list
    )


def look_at_functions(tree: ast.Module, file: str, in_cli: bool, report: Report) -> None:
    for function, owner in functions(tree):
        line, found = function.lineno, parameters(function, owner)
        name = f"{owner.name}.{function.name}" if owner is not None else function.name
        if any(CONFIG_CLASS in union_members(parameter.annotation) for parameter in found):
            report.add("config", file, line, name)
        if in_cli and any(
            parameter.arg in CONFIG_PARAMETERS and "Any" in union_members(parameter.annotation)
            for parameter in found
        ):
            report.add("config as Any", file, line, name)
        if is_command(function):
            if len(found) > MAX_PARAMETERS:
                report.add("parameters of a command", file, line, f"{name} {len(found)}")
        else:
            report.most_parameters = max(report.most_parameters, len(found))
            if len(found) > MAX_PARAMETERS:
                report.add("parameters", file, line, f"{name} {len(found)}")
        length = (function.end_lineno or line) - line + 1
        if length > MAX_FUNCTION_LINES:
            report.add(
                "command lines" if is_command(function) else "function lines", file, line, f"{name} {length}"
            )


def last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def strings_in(node: ast.expr) -> set[object]:
    members = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {member.value for member in members if isinstance(member, ast.Constant)}


def look_at_context_modes(tree: ast.Module, file: str, report: Report) -> None:
    """Calls of ``is_chat`` and comparisons of a context setting with "chat" or "window"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) == "is_chat":
            report.add("context", file, node.lineno, "is_chat()")
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            settings = CONTEXT_SETTINGS & {last_name(side) for side in sides}
            if settings and any(CONTEXT_MODES & strings_in(side) for side in sides):
                report.add("context", file, node.lineno, ast.unparse(node))
        elif isinstance(node, ast.Match) and last_name(node.subject) in CONTEXT_SETTINGS:
            report.add("context", file, node.lineno, f"match {ast.unparse(node.subject)}")


def settings_classes(tree: ast.Module, file: str) -> Iterator[SettingsClass]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(SETTINGS_SUFFIXES):
            fields = {
                statement.target.id: statement.lineno
                for statement in node.body
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            }
            yield SettingsClass(node.name, file, fields)


def look_at_settings(classes: list[SettingsClass], report: Report) -> None:
    """Fields that two classes of the same settings both define."""
    for position, first in enumerate(classes):
        for second in classes[position + 1 :]:
            if first.pairs_with(second):
                for name in sorted(first.fields.keys() & second.fields.keys()):
                    report.add(
                        "twice",
                        first.file,
                        first.fields[name],
                        f"{first.name}.{name} and {second.name}.{name}",
                    )


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every identifier as it is written, definitions and uses alike; an import's new name too."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                for alias in names:
                    yield alias.asname or alias.name, node.lineno


def look_at_names(tree: ast.Module, file: str, report: Report) -> None:
    rotations = {
        (name, line) for function, _ in functions(tree) for name, line in _identifiers_if_rotary(function)
    }
    for name, line in sorted(identifiers(tree), key=lambda pair: pair[1]):
        words = f"_{name.strip('_').lower()}_"
        for banned in BANNED:
            if f"_{banned}_" in words and (banned != "turn" or (name, line) in rotations):
                report.banned[banned] += 1
                report.add("banned", file, line, name)


def _identifiers_if_rotary(function: Function) -> list[tuple[str, int]]:
    found = list(identifiers(function))
    return found if ROTARY_NAMES & {name for name, _ in found} else []


def read_tree(source: Path) -> Report:
    """Count everything below ``source``."""
    report = Report()
    classes: list[SettingsClass] = []
    for path in sorted(source.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts or path.suffix == ".pyc":
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a binary file has no lines
            continue
        report.lines_of_all += len(text.splitlines())
        if path.suffix != ".py":
            continue
        file = str(path.relative_to(source))
        count = len(text.splitlines())
        report.files += 1
        report.lines_of_code += count
        if count > MAX_FILE_LINES:
            report.add("file lines", file, 1, str(count))
        tree = ast.parse(text, str(path))
        look_at_functions(tree, file, "cli" in path.relative_to(source).parts, report)
        look_at_context_modes(tree, file, report)
        look_at_names(tree, file, report)
        classes.extend(settings_classes(tree, file))
    look_at_settings(classes, report)
    return report


def lines_of(report: Report, with_positions: bool) -> Iterator[str]:
    """The report as a person reads it."""
    for kind, label in (
        ("config", f"functions that take the whole configuration ({CONFIG_CLASS})"),
        ("config as Any", "functions of the command line that take it as Any"),
        ("parameters", f"functions with more than {MAX_PARAMETERS} parameters (commands apart)"),
        ("parameters of a command", f"commands with more than {MAX_PARAMETERS} parameters"),
        ("function lines", f"functions over {MAX_FUNCTION_LINES} lines (commands apart)"),
        ("command lines", f"commands over {MAX_FUNCTION_LINES} lines"),
        ("context", "branches on the context mode"),
        ("twice", "fields defined in two settings classes"),
        ("file lines", f"files over {MAX_FILE_LINES} lines"),
        ("banned", "identifiers with a banned name"),
    ):
        found_at = report.found_at[kind]
        yield f"{len(found_at):>7,}  {label}"
        if kind == "banned" and found_at:
            yield "         " + ", ".join(f"{name} {report.banned[name]}" for name in sorted(report.banned))
        if with_positions:
            yield from (f"         {position}" for position in found_at)
    yield f"{report.most_parameters:>7,}  most parameters of a function (commands apart)"
    yield f"{report.files:>7,}  Python files"
    yield f"{report.lines_of_code:>7,}  lines of Python"
    yield f"{report.lines_of_all:>7,}  lines of all text files"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the source tree")
    parser.add_argument("--list", action="store_true", help="print where")
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        parser.error(f"no folder {arguments.source}")
    print("\n".join(lines_of(read_tree(arguments.source), arguments.list)))


if __name__ == "__main__":
    main()
