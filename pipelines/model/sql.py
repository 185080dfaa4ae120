"""Pieces of SQL text. One text is one call into the JVM, where an expression built of Columns is a call for each of its nodes:
the parser of a stream has some 5,000, three seconds of a start."""

from collections.abc import Callable
from itertools import count

_variables = count()


def quoted(text: str) -> str:
    """A text as a literal. The dollar is escaped where the parser would take it for a variable of its own."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\u0024{")
    return f"'{escaped}'"


def let(value: str, then: Callable[[str], str]) -> str:
    """`then` of a value that is computed once, however often it is used."""
    return f"get({each(f'array({value})', then)}, 0)"


def each(items: str, then: Callable[[str], str]) -> str:
    """The list of `then` of each item."""
    name = f"v{next(_variables)}"
    return f"transform({items}, {name} -> {then(name)})"


def first_of(values: list[str]) -> str:
    """The first that is not null."""
    return f"coalesce({', '.join(values)})" if len(values) > 1 else values[0]


def struct(**fields: str) -> str:
    return f"named_struct({', '.join(f'{quoted(name)}, {value}' for name, value in fields.items())})"


def when(*cases: tuple[str, str], otherwise: str = "NULL") -> str:
    """The value of the first condition that holds."""
    return f"CASE {' '.join(f'WHEN {condition} THEN {value}' for condition, value in cases)} ELSE {otherwise} END"
