"""A TOML file whose values know their lines: tomllib says what a file means, not where it says so, and people correct lines."""

from __future__ import annotations

import difflib
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from heartbeat.display import visible

Place = tuple[str | int, ...]
"""Where a value stands: ``("rule", 1, "grace_s")`` is a key of the second ``[[rule]]``."""
Stamp = tuple[int, int, int] | None
"""What tells that a file has changed: time, size, inode; None where there is none."""
Kind = TypeVar("Kind", bound=msgspec.Struct)

_MOST_BYTES: Final = 1 << 20
_INSERT: Final = re.compile(r"\$\$\{|\$\{(?:(?P<kind>env|file):(?P<name>[^}]+)\})?")
_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_ELEMENT: Final = re.compile(r" - at `\$\[(\d+)\]`$")

_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_TEXT: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # up to two quotes more belong to the text
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE: Final = re.compile(r"[^,\]}#\n]*")
"""A number, a boolean or a time, which may hold a space."""


class Document:
    """A file's tables with every ``${...}`` put in, and what is found wrong with them: everything, not the first fault.

    ``stamps`` has each file that was looked at, as it was before it was read.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.tables: dict[str, Any] = {}
        self.stamps: dict[Path, Stamp] = {}
        self._path = path
        self._environment = environment
        self._lines: dict[Place, int] = {}
        self._wrong: list[tuple[int, str]] = []
        self._faulty: set[Place] = set()
        self._parse()

    @property
    def errors(self) -> list[str]:
        """What is wrong, each with file and line, in reading order."""
        return [text for _, text in sorted(self._wrong, key=lambda wrong: wrong[0])]

    def line(self, *place: str | int) -> int:
        """Return the line, from one, of a table, key or element; of what it is in, if it is not there itself."""
        return next((self._lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self._lines), 1)

    def at(self, place: Place, text: str) -> str:
        """Return what is said of a place, with file and line; without a line where the file has nothing of it."""
        where = f", line {self.line(*place)}" if place[:1] in self._lines else ""
        return f"{self._path}{where}: {text}"

    def wrong(self, place: Place, text: str) -> None:
        """Note what is wrong there. ``text`` must quote nothing that may be a secret."""
        self._wrong.append((self.line(*place), self.at(place, text)))
        self._faulty.add(place)

    def sound(self, *place: str | int) -> bool:
        """Tell whether nothing has been found wrong there, or in it, so far."""
        return all(faulty[: len(place)] != place for faulty in self._faulty)

    def struct(self, kind: type[Kind], *place: str | int) -> Kind:
        """Return the table at this place as a value.

        What is missing or wrong is noted, and stands in it as its default, or as "": what is required must be a string.
        """
        given: Any = self.tables
        for step in place:
            given = given.get(step, {}) if isinstance(given, dict) else given[step]
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {name: "" for name, field in fields.items() if field.required}
        if not isinstance(given, dict):
            self.wrong(place, f"{titled(place)} must be a table")
            return kind(**values)
        for name in (name for name in given if name not in fields):
            self.wrong((*place, name), f"unknown key `{visible(name)}` in {titled(place)}. {nearest(name, fields)}")
        for name, field in fields.items():
            if name in given:
                self._convert(values, given[name], field.type, (*place, name))
            elif field.required:
                self.wrong((*place, name), f"{titled(place)} needs a `{name}`")
        return kind(**values)

    def _convert(self, values: dict[str, Any], value: Any, kind: Any, place: Place) -> None:
        if not self.sound(*place):
            return  # its ${...} could not be put in
        try:
            values[str(place[-1])] = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            reason = str(error).replace(" | null", "")  # TOML has none
            element = _ELEMENT.search(reason)
            if element is not None:
                reason, place = reason[: element.start()], (*place, int(element[1]))
            name = next(step for step in reversed(place) if isinstance(step, str))
            self.wrong(place, f"`{name}` in {titled(place[: place.index(name)])}: {reason[0].lower()}{reason[1:]}")

    def _parse(self) -> None:
        text = ""
        try:
            text = self._read(self._path).decode("utf-8-sig").replace("\r\n", "\n")
            tables = tomllib.loads(text)
            self._lines = lines(text)
            self.tables = {name: self._expanded(table, (name,)) for name, table in tables.items()}
        except OSError as error:
            self._wrong.append((0, f"{self._path} cannot be read: {error.strerror or error}"))
        except UnicodeDecodeError as error:
            self._wrong.append((0, f"{self._path}, line {error.object.count(10, 0, error.start) + 1}: not UTF-8"))
        except RecursionError:
            self._wrong.append((0, f"{self._path}: nested too deeply"))
        except ValueError as error:  # a TOMLDecodeError, or what int() says of thousands of digits
            self._wrong.append((0, _syntax(self._path, str(error), text)))

    def _expanded(self, value: Any, place: Place) -> Any:
        match value:
            case dict():
                return {name: self._expanded(member, (*place, name)) for name, member in value.items()}
            case list():
                return [self._expanded(element, (*place, index)) for index, element in enumerate(value)]
            case str():
                return _INSERT.sub(lambda found: self._inserted(found, place), value)
        return value

    def _inserted(self, found: re.Match[str], place: Place) -> str:
        if found[0] == "$${":
            return "${"
        reason = "${ begins ${env:NAME} or ${file:PATH}; for the two characters themselves write $${"
        try:
            if found["kind"] == "env":
                reason = f"{visible(found[0])} is not set"
                value = self._environment[found["name"]]
                reason = f"{visible(found[0])} is not UTF-8"
                value.encode()
                reason = f"{visible(found[0])} is set, but empty"
                if value:
                    return value
            if found["kind"] == "file":
                reason = f"{visible(found[0])} is not UTF-8"
                text = self._read(self._path.parent / found["name"]).decode()
                reason = f"{visible(found[0])} is empty"
                if text := text.removesuffix("\n").removesuffix("\r"):
                    return text
        except OSError as error:
            reason = f"{visible(found[0])} cannot be read: {error.strerror or error}"
        except (KeyError, ValueError):
            pass  # and not what Python says: it quotes the value
        self.wrong(place, reason)
        return ""

    def _read(self, path: Path) -> bytes:
        self.stamps[path] = stamp(path)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file")  # a pipe could make us wait for ever
        if found.st_size > _MOST_BYTES:
            raise OSError(f"it is larger than {_MOST_BYTES} bytes")
        return path.read_bytes()


def unreadable(file: str) -> str:
    """Return why a file cannot be read; empty if it can."""
    try:
        with Path(file).open("rb"):
            return ""
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        return getattr(error, "strerror", None) or str(error)


def stamp(path: Path) -> Stamp:
    """Return what tells that a file has changed since."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # the latter for a name that no file can have
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def titled(place: Place) -> str:
    """Return a table as its header stands in the file."""
    name = ".".join(visible(step) for step in place if isinstance(step, str))
    return f"[[{name}]]" if isinstance(place[-1], int) else f"[{name}]"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return which of the known names was probably meant, or all of them.

    >>> nearest("grace", ["match", "grace_s"]), nearest("x", ["match", "grace_s"])
    ('Did you mean `grace_s`?', 'Known: match, grace_s')
    """
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, 1)
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names)}"


def _syntax(path: Path, reason: str, text: str) -> str:
    found = _POSITION.search(reason)
    if found is None:
        return f"{path}: {reason}"
    end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
    line, column = (found[1], found[2]) if found[1] else end
    return f"{path}, line {line}, column {column}: {reason[: found.start()]}"


def lines(text: str) -> dict[Place, int]:
    """Return the line, from one, of every table, key and element of valid TOML with plain newlines.

    What is named several times, as a table is by its members' headers, stands at the first.
    """
    return _Scanner(text).scan()


class _Scanner:
    """Walks through valid TOML. It knows where strings, arrays and tables end, and nothing of what values mean."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)
        self._lines: dict[Place, int] = {}
        self._newest: dict[Place, int] = {}
        """Per array of tables, the index of its newest element: a later header speaks of that one."""

    def scan(self) -> dict[Place, int]:
        table: Place = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> Place:
        """Pass ``[a.b]`` or ``[[a.b]]``; return the place of the table it opens."""
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        place: Place = ()
        for key in self._keys():
            if place in self._newest:
                place += (self._newest[place],)
            place += (key,)
            self._note(place)
        if brackets == 2:
            self._newest[place] = self._newest.get(place, -1) + 1
            place += (self._newest[place],)
            self._note(place)
        self._at += brackets
        return place

    def _pair(self, table: Place) -> None:
        """Pass ``a.b = value``."""
        place = table
        for key in self._keys():
            place += (key,)
            self._note(place)
        self._at += 1
        self._skip(_SPACE)
        self._value(place)

    def _keys(self) -> list[str]:
        """Pass a dotted key and the space around it; return its parts."""
        parts: list[str] = []
        while not parts or self._text[self._at] == ".":
            self._at += bool(parts)
            self._skip(_SPACE)
            parts.append(_unquoted(self._skip(_KEY)))
            self._skip(_SPACE)
        return parts

    def _value(self, place: Place) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            index = 0
            while self._goes_on("]"):
                self._note((*place, index))
                self._value((*place, index))
                index += 1
        elif opening == "{":
            self._at += 1
            while self._goes_on("}"):
                self._pair(place)
        else:
            self._skip(_TEXT if opening in "\"'" else _BARE)

    def _goes_on(self, end: str) -> bool:
        """Pass a comma and what is blank; tell whether an element follows, and pass the end if none does."""
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)
        ended = self._text[self._at] == end
        self._at += ended
        return not ended

    def _note(self, place: Place) -> None:
        start, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", start, self._at))
        self._lines.setdefault(place, self._counted[1])

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError("its lines cannot be told")
        self._at = found.end()
        return found[0]


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key
