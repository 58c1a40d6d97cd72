"""The house stays one that a stranger can walk through: rooms, names, words, and how much of it.

What does not hold yet stands in `house_debts.toml`, which can only shrink: what is worse than it
says fails, and so does an entry that is needed no more. After a move, write it anew, and read what
`git diff` shows of it:

    python -m tests.test_house --write-debts
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import orchestratord
from bench.code.size import PRODUCT, Function, House, Module, documented

HOUSE = House()
DEBTS = Path(__file__).with_name("house_debts.toml")

# -- bounds --------------------------------------------------------------------------------------

CODE_LINES = 59_831
"""300 and 32,000 before the daemon told its health, kept its own time and refused what it cannot
read, had several workers, shared its slots fairly, kept orders, relayed an outbox, took webhooks,
gathered alerts, counted runs and how bulks went, and said of each refusal what to do, and read
what files repeat once; 198 before the backoff was a floor, a task and what replaces it were never
both carried out, each way out of an attempt had its type, and a late start counted for its rate;
498 before nothing from outside stood it still: somebody else's lock, data, disk or pipe; of
plugins, 213 before they had commands, 224 services, 113 references and checks of `doctor`, 163
pages and metrics, 55 before a guard said what its fault is, 137 before `check` and the start told
what is wrong with them, 107 before their tests had a stand-in for the daemon. A change that adds to
them says here for what."""
LINES_OF_FUNCTION = 60
"""With its decorators and comments, without its docstring."""
FMT_SKIPS = 44
DOCUMENTED = 0.92
"""Of the public functions, methods and classes; 94 of 100 functions."""

# -- names ---------------------------------------------------------------------------------------

ROOT: set[str] = {
    *"README.md CHANGELOG.md CONTRIBUTING.md CODE_OF_CONDUCT.md SECURITY.md LICENSE".split(),
    *"orchestratord orchestratorctl plugins clients config systemd deploy examples".split(),
    *"docs tests bench scripts pyproject.toml constraints.txt requirements.lock".split(),
    *"justfile mkdocs.yml .ci .github .devcontainer .gitignore .git-blame-ignore-revs".split(),
    *".pre-commit-config.yaml .containerignore .dockerignore".split(),
}
"""What a newcomer finds at the root of a checkout."""
LOOSE = {"__init__", "__main__", "errors", "log", "testing"}
"""Modules at the root of `orchestratord`."""
ANYWHERE = {"__init__", "__main__", "main"}
OF_PLUGINS = {"checks", "declaration", "routes"}
"""Names of files that the same part of each plugin has."""

WORDS: dict[str, str] = {
    "forgo": "release_slot",
    "withdrawn": "release_claim",
    "put back": "release_claim",
    "give back": "return_token",
    "unreserve": "return_token",
    "suspend": "release_claim",
    "let go": "release_slot",
    "unsent": "return_token",
    "unused": "return_token",
    "gate": "throttle",
    "gates": "throttle",
    "aside": "throttled",
    "shut": "throttled",
    "patience": "throttled",
    "standings": "placement",
    "suspect": "poison candidate",
    "suspects": "poison candidates",
    "intake": "enqueue",
    "scoreboard": "stats",
    "hub": "event bus",
    "tunnel": "proxy",
    "adoption": "reload",
    "vigil": "service",
    "pretence": "simulate",
    "prospect": "simulate",
    "previews": "simulate",
    "explained": "simulate",
    "trial": "test case",
    "trials": "test cases",
    "complaint": "problem",
    "complaints": "problems",
    "mistake": "problem",
    "mistakes": "problems",
}
"""Words that occur in no name, wherever in it they stand, and what to write instead."""
WHOLE: dict[tuple[str, str], str] = {
    ("class", "Ended"): "AttemptResult",
    ("class", "Ending"): "AttemptResult",
    ("class", "Limits"): "Feedback",
    ("class", "Verbs"): "Service",
    ("class", "PluginControl"): "Service",
    ("parameter", "ended"): "result",
    ("parameter", "ending"): "result",
    ("parameter", "verbs"): "service",
    ("attribute", "ahead"): "prefetched",
    **{
        ("module", name): word
        for word, names in {
            "attempt_in_progress": "ended ending",
            "feedback": "limits",
            "service": "verbs parts plugin_control",
            "connect": "dial",
            "client, request_bytes": "transport head",
            "response_parser": "answer parsed decoding",
            "tls": "trust",
            "oauth": "tokens keeping",
        }.items()
        for name in names.split()
    },
}
"""Names of the core, by their kind, of which a part may well be plain English."""

VAGUE = re.compile(r"\b(?:[Nn]obody|[Ss]omebody|[Ww]hoever|[Aa]nybody|[Ee]verybody|[Bb]y hand)\b")
"""Words of prose where a noun can stand (the daemon, the caller, the operator), or "manually"."""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "class_names": {
        "Service": "the public face's, of a plugin; what the API asks of the daemon",
    },
    "protocols": {
        "Control": "the public face's: what plugins may ask, which must not show the whole service",
        "Send": "the public face's: what an executor calls before the first byte",
    },
    "hands_itself": {
        "ServedConnection → Exchange": "uvicorn has it so: an answer ends, and the next one begins",
        "Assets → Route": "a route is a path and the method that answers there",
        "WebhookRoutes → Route": "a route is a path and the method that answers there",
        "SubscriptionRoutes → Route": "a route is a path and the method that answers there",
    },
    "several_daemons": {
        "fleet.py": "it is what looks for the others",
        "deadlines.py": "what may lose its lease while it lives is ended before",
        "worker.py": "lanes count for all daemons, and claims are dear",
    },
    "vague_words": {
        '{"user nobody nogroup;" if os.geteuid() == 0 else ""}': "nginx's configuration",
        'MANUALLY = "by hand"': "the API's value",
    },
    "twins": {
        "daemon.py/daemons.py": "the program; what the table of daemons is asked",
    },
}
"""What a rule is not meant for, and why."""


class Finding(NamedTuple):
    """What a rule does not allow.

    Attributes:
        name: what it is of, in words that outlive a move where they can.
        size: how bad it is.
        where: what to look at.
    """

    name: str
    size: int
    where: str


Rule = Callable[[], Iterable[Finding]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    RULES[check.__name__] = check
    return check


def gathered(places: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """One finding for each name, as bad as it is found often."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, place in places:
        found[name].append(place)
    for name, where in found.items():
        yield Finding(name, len(where), ", ".join(where))


# -- rooms ---------------------------------------------------------------------------------------


@rule
def root() -> Iterator[Finding]:
    """At the root of the checkout stands only what is listed here."""
    for name in sorted({path.parts[0] for path in HOUSE.files} - ROOT):
        yield Finding(name, 1, f"{name} is not for the root")


@rule
def loose_modules() -> Iterator[Finding]:
    """At the root of the package stands only what is listed here."""
    for path in HOUSE.below("orchestratord"):
        if len(path.parts) == 2 and path.suffix == ".py" and path.stem not in LOOSE:
            yield Finding(path.stem, 1, f"{path} belongs into a package")


@rule
def packages() -> Iterator[Finding]:
    """Each package says in three lines what lives there and which way the data goes."""
    for folder in sorted({module.path.parent for module in HOUSE.product}):
        if folder == Path("plugins"):
            continue
        modules = {
            module.path.name: module for module in HOUSE.product if module.path.parent == folder
        }
        doc = ast.get_docstring(modules["__init__.py"].tree) if "__init__.py" in modules else None
        lines = [line for line in (doc or "").splitlines() if line.strip()]
        if len(lines) < 3:
            yield Finding(
                f"{folder}", 1, f"{folder}/__init__.py says {len(lines)} lines, not three"
            )


# -- names ---------------------------------------------------------------------------------------


@rule
def file_names() -> Iterator[Finding]:
    """No name of a file occurs twice."""
    paths = [path for path in HOUSE.below(*PRODUCT) if path.stem not in ANYWHERE]
    named: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        named[path.name if path.suffix == ".py" else f"{path.name} (data)"].append(path)
    for name, same in named.items():
        plugins = all(path.parts[0] == "plugins" for path in same)
        if len(same) > 1 and not (plugins and same[0].stem in OF_PLUGINS):
            yield Finding(name, len(same), ", ".join(map(str, same)))


@rule
def twins() -> Iterator[Finding]:
    """No file is named for many of what another is named for one of."""
    named = {module.path.name: module.path for module in HOUSE.product}
    for name, path in named.items():
        many = f"{path.stem}s.py"
        if many in named and path.stem not in OF_PLUGINS and f"{path.stem}s" not in OF_PLUGINS:
            pair = f"{name}/{many}"
            yield Finding(pair, 1, f"{path}, {named[many]}")


@rule
def class_names() -> Iterator[Finding]:
    """No name of a public class occurs twice."""
    places = [
        (node.name, f"{module.path}:{node.lineno}")
        for module in HOUSE.product
        for node in module.classes
        if not node.name.startswith("_")
    ]
    return (found for found in gathered(places) if found.size > 1)


@rule
def clocks() -> Iterator[Finding]:
    """Tests have one clock that they turn: `FakeClock`."""
    known = {"Clock", "FakeClock"}
    for module in (*HOUSE.product, *HOUSE.modules("tests", "bench")):
        for number, line in enumerate(module.text.splitlines(), 1):
            match = re.match(r" *class (\w*Clock)\b", line)
            core = module.path.is_relative_to("orchestratord")
            if match is not None and not (core and match[1] in known):
                yield Finding(match[1], 1, f"{module.path}:{number}")


# -- words ---------------------------------------------------------------------------------------


@rule
def words() -> Iterable[Finding]:
    """No name has a word that the dictionary replaced; the public face's names are its own."""
    public = public_names()
    return gathered(
        (f"{kind} {name}", f"{place} ({instead})")
        for module in HOUSE.product
        for kind, name, place in names_in(module)
        if name not in public and (instead := replaced(kind, name, module)) is not None
    )


@rule
def vague_words() -> Iterator[Finding]:
    """Docstrings, comments and messages name who does a thing: no nobody, somebody, whoever."""
    for module in (*HOUSE.product, *HOUSE.modules("bench")):
        for number, line in enumerate(module.text.splitlines(), 1):
            if VAGUE.search(line):
                yield Finding(line.strip(), 1, f"{module.path}:{number}")


def replaced(kind: str, name: str, module: Module) -> str | None:
    """The word to write instead of a name; None where it may stand."""
    text = f" {' '.join(parts_of(name))} "
    for word, instead in WORDS.items():
        if f" {word} " in text:
            return instead
    core = module.path.parts[0] == "orchestratord"
    return WHOLE.get((kind, name.strip("_"))) if core else None


def parts_of(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def names_in(module: Module) -> Iterator[tuple[str, str, str]]:
    """What a module gives a name to: the kind, the name, where."""
    inside = module.path.parent.name if module.path.stem == "__init__" else module.path.stem
    yield "module", inside, str(module.path)
    for node in module.nodes:
        for kind, name in _named(node):
            yield kind, name, f"{module.path}:{getattr(node, 'lineno', 1)}"


def _named(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ClassDef):
        yield "class", node.name
        yield from (("attribute", name) for name in _assigned(node.body))
    elif isinstance(node, Function):
        yield "function", node.name
    elif isinstance(node, ast.Module):
        yield from (("attribute", name) for name in _assigned(node.body))
    elif isinstance(node, ast.arg):
        yield "parameter", node.arg
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield "attribute", node.attr
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield "variable", node.id
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield "variable", node.name


def _assigned(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


@cache
def public_names() -> frozenset[str]:
    """What plugins' authors see: the face's names, their members, hooks and their arguments."""
    found = set(orchestratord.__all__)
    for name in orchestratord.__all__:
        value = getattr(orchestratord, name)
        if inspect.isclass(value):
            found.update(name for name in dir(value) if not name.startswith("_"))
            found.update(inspect.get_annotations(value))
    hooks = sys.modules["orchestratord.plugin.hookspecs"]
    for name, value in vars(hooks).items():
        if hasattr(value, "orchestratord_spec"):
            found.update({name, *inspect.signature(value).parameters})
    return frozenset(found)


# -- interfaces ----------------------------------------------------------------------------------


@rule
def protocols() -> Iterator[Finding]:
    """A Protocol has two implementations, or none is needed; of a call alone, a `Callable`."""
    classes = [(module, node) for module in HOUSE.product for node in module.classes]
    by_name = {node.name: node for _, node in classes}
    for module, node in classes:
        if "Protocol" in map(ast.unparse, node.bases):
            found = list(implementations(node, [other for _, other in classes], by_name))
            call_alone = all(name.startswith("__call__") for name in members(node, {}))
            if len(found) < 2 or call_alone:
                where = (
                    f"{module.path}:{node.lineno} is implemented by {', '.join(found) or 'nothing'}"
                )
                yield Finding(node.name, 1, where)


def implementations(
    protocol: ast.ClassDef, classes: Iterable[ast.ClassDef], by_name: Mapping[str, ast.ClassDef]
) -> Iterator[str]:
    """Classes that inherit a Protocol or have all that it asks for."""
    wanted = members(protocol, {})
    for other in classes:
        bases = set(map(ast.unparse, other.bases))
        of_its_kind = protocol.name in bases or wanted <= members(other, by_name)
        if of_its_kind and other is not protocol and "Protocol" not in bases:
            yield other.name


def members(node: ast.ClassDef, by_name: Mapping[str, ast.ClassDef]) -> set[str]:
    """The attributes of a class and its methods with their arguments; its bases' as well."""
    found = {*_assigned(node.body), *_attributes_set(node)}
    for inner in node.body:
        if isinstance(inner, Function) and (inner.name[0] != "_" or inner.name == "__call__"):
            asked = [*inner.args.posonlyargs, *inner.args.args, *inner.args.kwonlyargs][1:]
            is_property = "property" in map(ast.unparse, inner.decorator_list)
            names = ", ".join(arg.arg for arg in asked)
            found.add(inner.name if is_property else f"{inner.name}({names})")
    for base in map(ast.unparse, node.bases):
        if base in by_name and by_name[base] is not node:
            found |= members(by_name[base], by_name)
    return found


@cache
def _attributes_set(node: ast.ClassDef) -> frozenset[str]:
    return frozenset(
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
    )


@rule
def hands_itself() -> Iterator[Finding]:
    """Nothing hands itself, or a method of its own, to what it makes, nor puts that into another
    object: one that is made knows what it is given, and never its maker."""
    by_name = {node.name: node for module in HOUSE.product for node in module.classes}
    for module in HOUSE.product:
        for owner in module.classes:
            methods = methods_of(owner, by_name)
            for node in ast.walk(owner):
                for receiver, given in handed(node, by_name):
                    if is_own(given, methods):
                        where = f"{module.path}:{given.lineno}: {ast.unparse(given)}"
                        yield Finding(f"{owner.name} → {receiver}", 1, where)


def methods_of(owner: ast.ClassDef, by_name: Mapping[str, ast.ClassDef]) -> set[str]:
    """The methods of a class and its bases, without properties."""
    found = {
        inner.name
        for inner in owner.body
        if isinstance(inner, Function)
        and not {"property", "cached_property"} & set(map(ast.unparse, inner.decorator_list))
    }
    for base in map(ast.unparse, owner.bases):
        if base in by_name and by_name[base] is not owner:
            found |= methods_of(by_name[base], by_name)
    return found


def handed(node: ast.AST, made: Iterable[str]) -> Iterator[tuple[str, ast.expr]]:
    """What an instance of a class of ours is made with, or an attribute of another object set to;
    each behind the name of that class or attribute."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in made:
            yield from ((name, given) for given in node.args)
            yield from ((name, keyword.value) for keyword in node.keywords)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) != "self":
                yield ast.unparse(target), node.value


def is_own(given: ast.expr, methods: set[str]) -> bool:
    """Whether it is `self`, a method of that, or a function or a container that has one."""
    match given:
        case ast.Name(id="self"):
            return True
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name in methods
        case ast.Lambda():
            return any(isinstance(n, ast.Name) and n.id == "self" for n in ast.walk(given.body))
        case ast.Call(func=ast.Name(id="partial")):
            return any(is_own(inner, methods) for inner in given.args)
        case ast.Starred(value=inner):
            return is_own(inner, methods)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(is_own(item, methods) for item in items)
        case ast.Dict(values=values):
            return any(is_own(value, methods) for value in values)
    return False


@rule
def lane_counts() -> Iterator[Finding]:
    """`lane_set`, and of one member `fair_slots`, alone count what is claimed, prefetched, in
    flight, and not settled yet."""
    counts = {"claimed", "prefetched", "in_flight", "unsettled"}
    for module in HOUSE.product:
        counting = module.path.stem in ("lane_set", "fair_slots")
        if counting or not module.path.is_relative_to("orchestratord/engine"):
            continue
        for node in module.nodes:
            stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if stored and node.attr in counts:
                yield Finding(node.attr, 1, f"{module.path}:{node.lineno}")


@rule
def several_daemons() -> Iterator[Finding]:
    """What the databases do differently stands behind their interface; nothing else asks whether
    others may work on the queue."""
    for module in HOUSE.product:
        for node in module.nodes:
            asked = isinstance(node, ast.Attribute) and node.attr == "several_daemons"
            if asked and not module.path.is_relative_to("orchestratord/queue"):
                yield Finding(module.path.name, 1, f"{module.path}:{node.lineno}")


# -- how much ------------------------------------------------------------------------------------


@rule
def sizes() -> Iterator[Finding]:
    """The product has no more lines than it was asked to have."""
    code = sum(module.code_lines for module in HOUSE.product)
    skips = sum(module.text.count("# fmt: skip") for module in HOUSE.product)
    for name, count, most in (
        ("code lines", code, CODE_LINES),
        ("fmt: skip", skips, FMT_SKIPS),
    ):
        if count > most:
            yield Finding(name, count, f"{count:,} {name}, and {most:,} were asked for")


@rule
def long_functions() -> Iterator[Finding]:
    """A function has at most 60 lines."""
    for module in HOUSE.product:
        for function in module.functions:
            lines = (function.end_lineno or 0) - function.lineno + 1
            if ast.get_docstring(function) is not None:
                doc = function.body[0]
                lines -= (doc.end_lineno or 0) - doc.lineno + 1
            if lines > LINES_OF_FUNCTION:
                yield Finding(
                    function.name, lines, f"{module.path}:{function.lineno}: {lines} lines"
                )


# -- the map -------------------------------------------------------------------------------------


@rule
def contributing_map() -> Iterator[Finding]:
    """What CONTRIBUTING says to look at is there, and holds what it says.

    A row is `| what | `path`: `Name`, `Class.method`; for that: `other/path`: `Name` |`, with the
    paths from the root. In a module a name is that of a class, function, method, attribute or
    constant; in a folder, that of a file or folder; in any other file, a word of it.
    """
    rows = list(rows_of_map())
    if len(rows) < 10:
        yield Finding(
            "the map", 1, f"CONTRIBUTING has a table of {len(rows)} rows that can be read"
        )
    for what, places in rows:
        wrong = list(wrong_places(places))
        if wrong:
            yield Finding(what, len(wrong), "; ".join(wrong))


def rows_of_map() -> Iterator[tuple[str, str]]:
    text = (HOUSE.root / "CONTRIBUTING.md").read_text()
    for what, places in re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE):
        if places != "look at":
            yield what, places


def wrong_places(places: str) -> Iterator[str]:
    for place in places.split("; "):
        form = re.fullmatch(r"(?:[^`]+: )?`([^`]+)`: ((?:`[^`]+`)(?:, `[^`]+`)*)", place)
        if form is None:
            yield f"{place} is not `path`: `Name`, `Name`"
        elif not (HOUSE.root / form[1]).exists():
            yield f"{form[1]} is not there"
        else:
            held = names_held(Path(form[1]))
            for name in re.findall(r"`([^`]+)`", form[2]):
                if name not in held:
                    yield f"{form[1]} holds no {name}"


def names_held(path: Path) -> set[str]:
    """The names that a row of the map may say of a file or folder."""
    whole = HOUSE.root / path
    if whole.is_dir():
        return {inner.relative_to(path).parts[0] for inner in HOUSE.files if path in inner.parents}
    if path.suffix != ".py":
        return set(re.findall(r"[\w-]+", whole.read_text()))
    module = HOUSE.module(path)
    kinds = {"class", "function", "attribute"}
    found = {name for kind, name, _ in names_in(module) if kind in kinds}
    for owner in module.classes:
        inside = {node.name for node in owner.body if isinstance(node, Function)}
        found.update(f"{owner.name}.{name}" for name in inside | set(_assigned(owner.body)))
    return found


# -- the ratchet ---------------------------------------------------------------------------------


@cache
def all_findings(name: str) -> list[Finding]:
    """What a rule finds, meant or not."""
    return list(RULES[name]())


@cache
def findings(name: str) -> dict[str, Finding]:
    """What a rule finds that is not meant, the worst of each name."""
    found: dict[str, Finding] = {}
    for finding in all_findings(name):
        known = found.get(finding.name)
        if finding.name not in EXCEPTIONS.get(name, {}) and (
            known is None or finding.size > known.size
        ):
            found[finding.name] = finding
    return found


@cache
def debts() -> dict[str, Any]:
    return tomllib.loads(DEBTS.read_text()) if DEBTS.exists() else {}


@pytest.mark.parametrize("name", RULES)
def test_house(name: str) -> None:
    owed = debts().get(name, {})
    worse = [
        f"{found.name}: {found.where}"
        for found in findings(name).values()
        if found.size > owed.get(found.name, 0)
    ]
    assert not worse, "\n".join([f"{RULES[name].__doc__}", *worse])
    paid = sorted(set(owed) - set(findings(name)))
    assert not paid, f"holds now; take it out of {DEBTS.name} [{name}]: {paid}"


def test_every_debt_and_every_exception_is_of_a_rule() -> None:
    assert set(debts()) | set(EXCEPTIONS) <= set(RULES)
    assert all(debts().values()), "a rule without debts has no place in the file"
    assert debts() or not DEBTS.exists(), f"nothing is owed: remove {DEBTS.name}"


def test_every_exception_is_needed() -> None:
    for name, meant in EXCEPTIONS.items():
        assert set(meant) <= {finding.name for finding in all_findings(name)}, name


def test_most_of_what_is_public_is_documented() -> None:
    known, public = documented(HOUSE.product)
    assert known / public >= DOCUMENTED, f"{known} of {public}"


def write_debts() -> None:
    """Write down what does not hold today; where nothing is owed there is no file."""
    lines = ["# What tests/test_house.py finds and bears for now; nothing may be added.", ""]
    for name in RULES:
        if found := findings(name):
            lines.append(f"[{name}]")
            lines += [f'"{owed}" = {found[owed].size}' for owed in sorted(found)]
            lines.append("")
    if len(lines) == 2:
        DEBTS.unlink(missing_ok=True)
    else:
        DEBTS.write_text("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write-debts"]:
        sys.exit(__doc__)
    write_debts()
