"""What is checked of a plugin before it is used, so that a mistake is told where it was made.

Nothing here runs a plugin's code: its source is read, and its classes and functions are looked at.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.abc
import importlib.machinery
import inspect
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import pluggy
from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticSerializationError

from realtime import hookspecs
from realtime.blame import defined, own_frames
from realtime.channel import TRANSPORTS, Channel
from realtime.engine import Engine
from realtime.errors import did_you_mean
from realtime.paths import is_reserved
from realtime.transports.page import files as page_files
from realtime.values import Model
from realtime.version import API_VERSION
from realtime.wording import nearest, wanted

#: The methods of a channel that the host awaits.
_AWAITED = ("on_connect", "on_join", "on_message", "on_leave")
#: The methods that a channel type may have of its own, and what the host calls them with.
_CALLED = dict.fromkeys((*_AWAITED, "member"), "(client)") | {
    "__init__": "(name, settings, bus)",
    "on_message": "(client, message)",
    "as_text": "(message)",
    "lifespan": "()",
    "topic_options": "()",
}
#: What others call such a method.
_ELSEWHERE = {"on_open": "on_connect", "on_receive": "on_message", "on_text": "on_message"} | dict.fromkeys(
    ("on_close", "on_disconnect"), "on_leave"
)
#: What the host has in every channel for itself, and the keys of every channel that it reads.
_HOSTS = ("clients", "joined", "left", "members", "methods", "respond", "serve_with", "topics", "url_on")
_KEYS = ("plugin", "path", "enabled")

#: The hooks by which a plugin offers classes: of what, and what one is called.
OFFERED: dict[str, tuple[type, str]] = {
    "register_channels": (Channel, "a channel type"),
    "register_engines": (Engine, "an engine"),
}
#: The methods of an engine that the host awaits, and what all of them are called with.
_ENGINES = {
    "open": "(topic)",
    "publish": "(topic, message, once)",
    "arrive": "(topic, id, told, joining)",
    "depart": "(topic, id, leaving)",
}

HOOKS: dict[str, Callable[..., Any]] = {
    name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}


class PluginProblem(Exception):
    """What is wrong with one plugin, for the person who wrote or enabled it."""

    def __init__(self, text: str) -> None:
        # The package that a plugins directory is imported as has a name of ours only.
        super().__init__(re.sub(r"\brealtime_plugins_[0-9a-f]{12}(_[0-9]+)?\.", "", text))


def line_of(thing: object, name: str = "") -> str:
    """Where a function, a class or an attribute of one begins, to stand below a sentence."""
    place = defined(thing, name)
    return f"\n    {place}" if place else ""


def check_api_version(name: str, spec: importlib.machinery.ModuleSpec | None) -> None:
    """Refuse a plugin for another API before any of it runs: its source is read, not executed."""
    if spec is None or not isinstance(spec.loader, importlib.abc.InspectLoader):
        return
    source = spec.loader.get_source(spec.name)
    if not source:
        return
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return  # the import says it better
    for node in body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "API_VERSION" for target in targets):
            wanted = node.value.value if isinstance(node.value, ast.Constant) else None
            if wanted != API_VERSION:
                wrong = f" is written for API version {wanted!r} of Realtime, which is {API_VERSION} here"
                wrong += "; install a release of one that is for the other"
                if isinstance(wanted, str):
                    wrong = f": API_VERSION is the text {wanted!r} and is to be a number"
                    wrong += f": write API_VERSION = {API_VERSION}"
                line = source.splitlines()[node.lineno - 1]
                raise PluginProblem(f"{name}{wrong}\n    {spec.origin}:{node.lineno}: {line}")


def not_installed(name: str, beside: Path | None) -> str:
    """What to do where a plugin is that of a package which stands here, and is not installed.

    It is looked for in the working directory, and where the config is.
    """
    for directory in filter(None, (Path(), beside)):
        file = directory / "pyproject.toml"
        try:
            project = tomllib.loads(file.read_text(encoding="utf-8"))
            offered = project["project"]["entry-points"][hookspecs.PROJECT]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(offered, dict) and name in offered:
            return f": {file} offers it, and is not installed: python -m pip install -e {directory}"
    return ""


def check_offered(name: str, hook: str, offered: object, where: str) -> dict[str, Any]:
    """What a hook has returned: names and classes. Refuse what is none, and a class that is wrong."""
    base, what = OFFERED[hook]
    how = f'return {{"{name}": …}} with the class'
    if not isinstance(offered, Mapping):
        wrong = f"returned {offered!r}, not a dict of {what.partition(' ')[2]}s: {how}"
        raise PluginProblem(f"{name}: {hook}() {wrong}{where}")
    for key, kind in offered.items():
        if isinstance(kind, base):
            wrong = f"is an instance, and the host makes these: {how}"
            raise PluginProblem(f"{name}: {kind!r}, offered as {key!r}, {wrong}{where}")
        if not (isinstance(kind, type) and issubclass(kind, base)):
            wrong = f"is no subclass of {base.__name__}"
            if isinstance(kind, type):
                wrong = f"{wrong}: write class {kind.__name__}({base.__name__})"
                where = line_of(kind) or where
            raise PluginProblem(f"{name}: {kind!r}, offered as {key!r}, {wrong}{where}")
        check: Callable[[str, Any], None] = check_engine if base is Engine else check_type
        check(f"{name}: {kind.__name__}", kind)
    return {str(key): kind for key, kind in offered.items()}


def not_offered(
    name: str, hook: str, offered: Collection[str], hooks: Collection[str], where: str
) -> PluginProblem:
    """What is wrong where a plugin with these hooks is to offer a class of its name, and does not."""
    noun = OFFERED[hook][1].partition(" ")[2]
    wrong = f"offers no {noun} of that name; it offers: {', '.join(sorted(offered))}"
    if not offered:
        wrong += f"none (a function {hook}, marked @hookimpl, returns them in a dict)"
    if hook == "register_channels" and hooks and hook not in hooks:
        section = "bus" if [*hooks] == ["register_engines"] else "plugins"
        wrong = f"is no channel: it belongs under {section}:"
    return PluginProblem(f"the plugin {name!r} {wrong}{where}")


def check_engine(label: str, kind: type[Engine]) -> None:
    """Refuse an engine whose methods could not be called."""
    model_of(label, kind)
    _check_lifespan(label, kind)
    for name in (*_ENGINES, "close"):
        awaited, method = name != "close", getattr(kind, name)
        if inspect.iscoroutinefunction(method) is not awaited:
            how = "an 'async def'" if awaited else "a plain 'def'"
            raise PluginProblem(f"{label}.{name} must be {how}{line_of(kind, name)}")
        check_call(f"{label}.{name}", method, _ENGINES.get(name, "(topic)"))
    check_call(f"{label}.__init__", inspect.getattr_static(kind, "__init__"), "(settings, bus)")


def model_of(label: str, kind: type) -> type[Model]:
    """The model of the settings of a plugin or of an engine. Refuse one that is none."""
    model = getattr(kind, "Settings", Model)
    if not (isinstance(model, type) and issubclass(model, Model)):
        wrong = "is no subclass of Model: write class Settings(Model)"
        raise PluginProblem(f"{label}.Settings {wrong}{line_of(kind, 'Settings')}")
    check_defaults(f"{label}.Settings", model)
    return model


def check_made(label: str, kind: type) -> None:
    """Refuse a class ``Plugin`` that could not be made with its settings."""
    init = inspect.getattr_static(kind, "__init__")
    if init is object.__init__:
        wrong = "has no __init__: write def __init__(self, settings)"
        raise PluginProblem(f"{label} {wrong}{line_of(kind)}")
    check_call(f"{label}.__init__", init, "(settings)")


def check_type(label: str, kind: type[Channel]) -> None:
    """Refuse a channel type with a method that nobody would call, or that would be called wrongly."""
    check_hooks(label, kind)
    _check_settings(label, kind)
    _check_transports(label, kind)
    _check_page(label, kind)
    for name in vars(kind):
        if name in _HOSTS and kind is not Channel:  # which may be offered as it is
            wrong = "is the host's own in every channel: give yours another name"
            raise PluginProblem(f"{label}.{name} {wrong}{line_of(kind, name)}")
        if name.startswith("on_") and name not in _AWAITED:
            near = _ELSEWHERE.get(name)
            hint = f", did you mean {near!r}?" if near else did_you_mean(name, _AWAITED)
            if hint:  # nobody would ever call it
                raise PluginProblem(f"{label}.{name} is no method of a channel{hint}{line_of(kind, name)}")
    for name in _AWAITED:
        if not inspect.iscoroutinefunction(getattr(kind, name)):
            raise PluginProblem(f"{label}.{name} must be an 'async def'{line_of(kind, name)}")
    for name in ("as_text", "member", "__init__", "topic_options"):
        if inspect.iscoroutinefunction(getattr(kind, name)):
            more = ": what it awaits belongs into lifespan()" if name == "__init__" else ""
            raise PluginProblem(f"{label}.{name} must be a plain 'def'{more}{line_of(kind, name)}")
    _check_lifespan(label, kind)
    for name, arguments in _CALLED.items():
        check_call(f"{label}.{name}", getattr(kind, name), arguments)


def _check_settings(label: str, kind: type[Channel]) -> None:
    model = kind.Settings
    if not (isinstance(model, type) and issubclass(model, Channel.Settings)):
        wrong = "is no subclass of Channel.Settings: write class Settings(Channel.Settings)"
        raise PluginProblem(f"{label}.Settings {wrong}{line_of(kind, 'Settings')}")
    for key in _KEYS:
        if model.model_fields[key].annotation is not Channel.Settings.model_fields[key].annotation:
            wrong = "is a key of every channel, which the host reads: give yours another name"
            raise PluginProblem(f"{label}.Settings.{key} {wrong}{line_of(model, key)}")
    check_defaults(f"{label}.Settings", model)
    # A key that the host reads has a value of its own, however a subclass may have annotated it.
    check_defaults(f"{label}.Settings", model, Channel.Settings)


def check_defaults(label: str, settings: type[Model], model: type[Model] | None = None) -> None:
    """Refuse a default that its setting could not have: pydantic takes defaults as they are.

    ``model``: what they are checked by, if not by the settings themselves.
    """
    model = model or settings
    _check_sections(label, settings)
    made = settings.model_construct()
    defaults = {
        key: getattr(made, key)
        for key, field in settings.model_fields.items()
        if key in model.model_fields and not (field.is_required() or _validates(settings, field))
    }
    # In a config it would stand as it is written there, which is text for some.
    made = model.model_construct(**defaults)
    written: dict[str, object] = {}
    for key in defaults:
        with contextlib.suppress(PydanticSerializationError):
            written |= made.model_dump(mode="json", include={key}, warnings=False)
    try:
        as_it_is, as_written = _refused(model, defaults), _refused(model, defaults | written)
    except Exception:  # a validator of the plugin's own that wants more than defaults
        return
    for key, default in defaults.items():
        field, said = model.model_fields[key], ""
        item = as_written.get(key) if key in as_it_is else None
        if item is None and (key not in written or isinstance(default, str)):
            meant = _meant(field, default)
            if type(meant) is not type(default) or (key not in written and meant != default):
                said = f"{default!r} is how a config has it; a default is what that means: {meant!r}"
        elif item is not None:
            at = "".join(f"[{part}]" for part in item["loc"][1:] if isinstance(part, int))
            value = item["input"] if at else default
            near = nearest(item, str(value))
            said = f"its default is refused{at and f' at {at}'}: {wanted(item)}, not {value!r}{near}"
        if said:
            raise PluginProblem(f"{label}.{key}: {said}{line_of(settings, key)}")


def _check_sections(label: str, settings: type[Model]) -> None:
    """Refuse a section that would take any key: of what is mistyped nobody would hear."""
    for key, field in settings.model_fields.items():
        found: list[Any] = [field.annotation]
        for one in found:  # what is in it is looked at, too
            if (
                isinstance(one, type)
                and issubclass(one, BaseModel)
                and one.model_config.get("extra") != "forbid"
            ):
                name = one.__name__
                wrong = f"would take any key in a {name}: write class {name}(Model), of realtime"
                raise PluginProblem(f"{label}.{key} {wrong}{line_of(one)}")
            found += get_args(one)


def _validates(settings: type[Model], field: FieldInfo) -> bool:
    """Whether pydantic looks at the default itself."""
    return bool(
        settings.model_config.get("validate_default")
        if field.validate_default is None
        else field.validate_default
    )


def _refused(model: type[Model], values: Mapping[str, object]) -> dict[str, ErrorDetails]:
    """What is wrong with some values of a model, by their fields; that others are missing is nothing."""
    names = {str(field.validation_alias or key): key for key, field in model.model_fields.items()}
    try:
        model.model_validate({alias: values[key] for alias, key in names.items() if key in values})
    except ValidationError as error:
        items = [item for item in error.errors() if item["loc"] and item["type"] != "missing"]
        return {names[key]: item for item in reversed(items) if (key := str(item["loc"][0])) in names}
    return {}


def _meant(field: FieldInfo, value: object) -> object:
    """What a config means by a value; the value itself, where nobody can tell."""
    if value is None or field.annotation is str:
        return value
    try:
        annotation: Any = field.annotation
        for more in field.metadata:
            annotation = Annotated[annotation, more]
        return TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
    except Exception:
        return value


def _check_transports(label: str, kind: type[Channel]) -> None:
    offered, there = kind.transports, ", ".join(TRANSPORTS)
    where = line_of(kind, "transports")
    if isinstance(offered, str):
        wrong = f"is a text, and is to be a tuple: transports = ({offered!r},)"
        raise PluginProblem(f"{label}.transports {wrong}{where}")
    if not isinstance(offered, Collection) or not offered:
        wrong = f"is {offered!r}, and is to be a tuple of some of {there}"
        raise PluginProblem(f"{label}.transports {wrong}{where}")
    if unknown := [name for name in offered if name not in TRANSPORTS]:
        near = did_you_mean(str(unknown[0]), TRANSPORTS)
        raise PluginProblem(f"{label}.transports has {unknown[0]!r}{near}; there are {there}{where}")


def _check_page(label: str, kind: type[Channel]) -> None:
    name: object = kind.page
    wrong = ""
    if name is None or inspect.isfunction(name):  # which a plugin of before has for itself
        return
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+\.js", name):
        wrong = f"is {name!r}, and is to be the name of a file beside the plugin's own: page = 'chat.js'"
    elif not (files := page_files(kind)):
        wrong = f"is {name!r}, and the class was made in no file beside which that could stand"
    elif not (file := files[0]).is_file():
        near = did_you_mean(name, [other.name for other in file.parent.glob("*.js")])
        wrong = f"is {name!r}, and there is no {file}{near}; write it there, or leave page out"
    if wrong:
        raise PluginProblem(f"{label}.page {wrong}{line_of(kind, 'page')}")


def _check_lifespan(label: str, kind: type[Channel] | type[Engine]) -> None:
    wrong, lifespan = "", kind.lifespan
    inner = inspect.unwrap(lifespan)
    if inspect.isasyncgenfunction(lifespan):
        wrong = "is not marked: put @asynccontextmanager above it"
    elif inspect.iscoroutinefunction(inner):
        wrong = "never yields: it is to be an 'async def' that yields once, marked @asynccontextmanager"
    elif inspect.isgeneratorfunction(inner):
        wrong = "must be an 'async def', marked @asynccontextmanager"
    if wrong:
        raise PluginProblem(f"{label}.lifespan {wrong}{line_of(kind, 'lifespan')}")


def check_call(label: str, function: Callable[..., Any], arguments: str) -> None:
    """Whether a method can be called as the host calls it."""
    given = [word for word in arguments.strip("()").split(", ") if word]
    signature = inspect.signature(function)
    try:
        signature.bind("self", *given)
    except TypeError as error:
        wanted = ", ".join(["self", *given])
        wrong = f"takes {signature}, and is called with {arguments}: {error}"
        raise PluginProblem(f"{label} {wrong}; write ({wanted}){line_of(function)}") from None


def check_hooks(label: str, plugin: object) -> None:
    """Tell what pluggy leaves silent: hooks misspelt, unmarked, asynchronous, with wrong arguments."""
    of_channel = isinstance(plugin, Channel) or (isinstance(plugin, type) and issubclass(plugin, Channel))
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if not inspect.isfunction(function) or (marked is None and name not in HOOKS):
            continue
        where = line_of(function)
        if marked is None:
            how = "put @hookimpl above it (from realtime import hookimpl)"
            if others := [key.removesuffix("_impl") for key in vars(function) if key.endswith("_impl")]:
                how = f"its mark is one of {others[0]!r}: from realtime import hookimpl"
            wrong = f"has the name of a hook but is not marked @hookimpl; {how}"
            raise PluginProblem(f"{label}.{name} {wrong}{where}")
        hook = marked.get("specname") or name
        if hook not in HOOKS:
            near = did_you_mean(hook, HOOKS) or f"; they are {', '.join(HOOKS)}"
            if of_channel and name in _CALLED:
                near = "; a method of a channel is not marked"
            raise PluginProblem(f"{label}.{name} is no hook{near}{where}")
        if inspect.iscoroutinefunction(function) and hook != "authenticate":
            raise PluginProblem(
                f"{label}.{name} is an 'async def', but this hook returns objects, not awaitables; "
                f"write 'def', and await in the methods of what it returns{where}"
            )
        known = set(inspect.signature(HOOKS[hook]).parameters)
        for argument in inspect.signature(function).parameters:
            if argument not in known and argument != "self":
                near = did_you_mean(argument, known) or f"; it has: {', '.join(known) or 'no arguments'}"
                wrong = f"takes {argument!r}, which this hook does not have{near}"
                raise PluginProblem(f"{label}.{name} {wrong}{where}")


def mistake_in(definition: web.RouteDef, beside: web.UrlDispatcher | None = None) -> str:
    """Why a plugin's route cannot be served, beside those that there are; nothing if it can."""
    if is_reserved(definition.path):
        where = line_of(definition.handler)
        return f"{definition.path}: paths under /-/ are the server's own; choose another{where}"
    handler = definition.handler
    plain = inspect.isfunction(handler) or inspect.ismethod(handler)
    if plain and not inspect.iscoroutinefunction(handler):
        return f"{definition.path}: its handler must be an 'async def'{line_of(handler)}"
    if not definition.path.startswith("/") and definition.path:
        wrong = f"a path begins with a slash: write {f'/{definition.path}'!r}"
        return f"{definition.path!r} cannot be served: {wrong}{line_of(handler)}"
    try:
        (web.UrlDispatcher() if beside is None else beside).add_routes([definition])
    except Exception as error:
        return f"{definition.path!r} cannot be served: {own_frames(error)}{line_of(definition.handler)}"
    return ""


def deprecations(manager: pluggy.PluginManager, plugin: object) -> list[tuple[str, str, int]]:
    """Each hook, and each argument of one, that a plugin still uses and that will go: what, file and line.

    What is to be used instead is the warning in its specification: ``warn_on_impl``, or one of
    ``warn_on_impl_args``.
    """
    told = []
    for caller in manager.get_hookcallers(plugin) or ():
        spec = caller.spec
        for implementation in caller.get_hookimpls():
            if spec is None or implementation.plugin is not plugin:
                continue
            uses: list[tuple[str, object]] = [(f"implements {caller.name}", spec.warn_on_impl)]
            for argument in (*implementation.argnames, *implementation.kwargnames):
                instead = (spec.warn_on_impl_args or {}).get(argument)
                uses.append((f"takes the argument {argument!r} of {caller.name}", instead))
            code = inspect.unwrap(implementation.function).__code__
            place = code.co_filename, code.co_firstlineno
            told += [(f"{use}, which is deprecated: {instead}", *place) for use, instead in uses if instead]
    return told


def is_marked(value: object) -> bool:
    """Whether it is a function marked ``@hookimpl``."""
    return inspect.isfunction(value) and hasattr(value, f"{hookspecs.PROJECT}_impl")
