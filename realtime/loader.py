"""Plugins: found by name, imported only when the config names them, and checked before use.

A name is looked for in ``plugins/`` beside the config file, among the first-party plugins, and
among the entry points of group ``realtime`` of the installed packages. A broken plugin is
reported with its own lines and what it was wanted for, and hides no other's mistake.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pluggy
from pydantic import BaseModel, ConfigDict, ValidationError

from realtime import hookspecs
from realtime.blame import own_frames
from realtime.bus import Bus
from realtime.changes import differences
from realtime.channel import Channel
from realtime.checks import (
    OFFERED,
    PluginProblem,
    check_hooks,
    check_made,
    check_offered,
    deprecations,
    is_marked,
    line_of,
    model_of,
    not_offered,
)
from realtime.config import BusSettings, Config
from realtime.engine import Engine
from realtime.errors import Problem
from realtime.modules import NEEDS_RESTART, Found, Modules
from realtime.source import KeyPath, Source
from realtime.topic import TopicOptions
from realtime.values import Model

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
#: Makes the settings of a plugin out of what the config has of them, by their model.
Validate = Callable[[type[Model]], Model]

log = logging.getLogger("realtime.loader")


class WantsSettings(PluginProblem):
    """A plugin that cannot be made without settings, and has none."""


class Plugins:
    """The plugins of one server: its own plugin manager, nothing shared with another server."""

    def __init__(
        self, directory: Path | None = None, before: Plugins | None = None, *, anew: bool = False
    ) -> None:
        """``directory`` is the one beside which a ``plugins/`` may stand: the config's.

        What ``before`` has, and has not changed, is the same here; see :class:`Modules`.
        """
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        #: What the plugins that are loaded offer, by name.
        self.types: dict[str, type[Channel]] = {}
        self.engines: dict[str, type[Engine]] = {"memory": Engine}
        #: The settings of each plugin that has a class for them.
        self.settings: dict[str, Model] = {}
        self.modules: Modules = Modules(directory, before.modules if before else None, anew=anew)
        #: What was served before, until this is.
        self.before = before
        self._origin: dict[type, str] = {Engine: "memory"}
        self._broken: dict[str, PluginProblem] = {}
        #: What was said of what is deprecated.
        self._told: set[str] = before._told if before else set()

    # Loading

    def load(self, name: str, validate: Validate | None = None) -> None:
        """Import and register the plugin of this name, once. Raises :exc:`PluginProblem`.

        A module that has a class ``Plugin`` is registered as an instance of it, made with its settings:
        what ``validate`` makes of its model, and raises, or else the defaults.
        """
        if name in self._broken:
            raise self._broken[name]
        if self.manager.has_plugin(f"plugin:{name}"):
            return
        try:
            module = guarded(name, partial(self.modules.get, name))
            plugin = guarded(name, partial(self._made, name, module, validate), ValidationError)
            guarded(name, partial(self._register, f"plugin:{name}", name, plugin))
            guarded(name, partial(self._collect, name, "register_channels", self.types))
            guarded(name, partial(self._collect, name, "register_engines", self.engines))
        except PluginProblem as problem:
            self._broken[name] = problem
            raise

    def _made(self, name: str, module: object, validate: Validate | None) -> object:
        """The plugin itself: the module, or an instance of its class ``Plugin``."""
        kind = getattr(module, "Plugin", None)
        if not isinstance(kind, type):
            if validate is not None:
                validate(Model)
            return module
        model = model_of(f"{name}: Plugin", kind)
        if beside := [key for key, value in vars(module).items() if is_marked(value)]:
            wrong = "is a hook beside the class Plugin, and would not be called: make it a method of that"
            raise PluginProblem(f"{name}.{beside[0]} {wrong}{line_of(getattr(module, beside[0]))}")
        try:
            settings = self.settings[name] = validate(model) if validate else model()
        except ValidationError:
            if validate is not None:
                raise
            wrong = f"it wants settings: let it stand under 'plugins' as {{plugin: {name}, …}}"
            raise WantsSettings(f"{name}: {wrong}") from None
        was = self.before.manager.get_plugin(f"plugin:{name}") if self.before else None
        if self.before and type(was) is kind and self.before.settings[name] == settings:
            return was
        check_made(f"{name}: Plugin", kind)
        return kind(settings)

    def channel_type(self, name: str) -> type[Channel]:
        """The channel type that ``plugin: name`` means. Raises :exc:`PluginProblem`."""
        return self._meant(name, "register_channels", self.types)

    def engine(self, name: str) -> type[Engine]:
        """The engine that ``engine: name`` means. Raises :exc:`PluginProblem`."""
        if name not in self.engines and not any(found.matches(name) for found in self.found):
            raise PluginProblem(f"there is no engine {name!r}" + self.modules.where(name, self.engines))
        return self._meant(name, "register_engines", self.engines)

    def _meant(self, name: str, hook: str, known: dict[str, type[T]]) -> type[T]:
        if name not in known:
            self.load(name)
        if name not in known:
            callers = self.manager.get_hookcallers(self.manager.get_plugin(f"plugin:{name}")) or ()
            hooks, where = [one.name for one in callers], self.line_of_hook(f"plugin:{name}", hook)
            where = where or f"\n    {self.modules.location[name]}"
            raise not_offered(name, hook, self.offered(name, known) or (), hooks, where)
        return known[name]

    def offered(self, name: str, known: Mapping[str, type] | None = None) -> list[str] | None:
        """The channel types of a plugin, or its ``engines``; None when it is not loaded."""
        if not self.manager.has_plugin(f"plugin:{name}") or name in self._broken:
            return None
        known = self.types if known is None else known
        return [type_name for type_name, kind in known.items() if self._origin[kind] == name]

    def broken(self, name: str) -> str | None:
        """What is wrong with a plugin that could not be loaded."""
        return str(self._broken[name]) if name in self._broken else None

    @property
    def found(self) -> list[Found]:
        """Every plugin that a config could name; of one name the first counts."""
        return self.modules.found

    def source(self, kind: type) -> Found | None:
        """The plugin that offers this channel type, or this engine."""
        name = self._origin.get(kind, "")
        return next((found for found in self.found if found.matches(name)), None)

    def settle(self) -> None:
        """What was before is used no more."""
        self.before = None
        self.modules.settle()

    # Registering

    def add_channel(self, channel: Channel) -> None:
        """Register a channel's instance, so that its hooks are called."""
        self._register(f"channel:{channel.name}", type(channel).__name__, channel)

    def _register(self, registered: str, label: str, plugin: object) -> None:
        if type(plugin) not in self._origin:  # else its type has been looked at
            check_hooks(label, plugin)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # pluggy's, which names no plugin
                self.manager.register(plugin, registered)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginProblem(f"{label}: {error}") from None
        of_type = self._origin.get(type(plugin)) if isinstance(plugin, Channel) else None
        name = of_type or registered.partition(":")[2]
        for use, file, line in deprecations(self.manager, plugin):
            sentence = f"plugin {name!r} {use}"
            if sentence not in self._told:  # one type may have many channels
                self._told.add(sentence)
                log.warning("%s (%s:%d)", sentence, file, line)  # who runs it hears of it, …
                try:
                    warnings.warn_explicit(sentence, DeprecationWarning, file, line)  # … and who tests it
                except DeprecationWarning:  # who has asked for warnings to be errors
                    self.manager.unregister(name=registered)
                    raise

    def _collect(self, name: str, hook: str, known: dict[str, type[T]]) -> None:
        offered = self.call(f"plugin:{name}", hook)
        where = self.line_of_hook(f"plugin:{name}", hook)
        if offered is None and not where:
            return
        for key, kind in check_offered(name, hook, offered, where).items():
            other = known.get(key)
            if other is not None and other is not kind:
                both = " and ".join(
                    f"{plugin} ({self.modules.location.get(plugin, 'built in')})"
                    for plugin in (self._origin[other], name)
                )
                wrong = f"{OFFERED[hook][1]} {key!r}: {both}; rename it in one of them"
                raise PluginProblem(f"two plugins offer {wrong}")
            known[key] = kind
            self._origin[kind] = name

    def line_of_hook(self, registered: str, hook: str) -> str:
        """Where a plugin implements a hook, to stand below a sentence."""
        plugin = self.manager.get_plugin(registered)
        found = [one for one in getattr(self.manager.hook, hook).get_hookimpls() if one.plugin is plugin]
        return line_of(found[0].function) if found else ""

    # Calling

    def names(self) -> list[str]:
        """What is registered, in order: ``plugin:NAME`` and ``channel:NAME``."""
        return [name for name, plugin in self.manager.list_name_plugin() if plugin is not None]

    def call(self, registered: str, hook: str, **arguments: object) -> Any:
        """What one plugin answers to one hook; None when it does not implement it.

        Raises :exc:`PluginProblem` with the plugin's own frames when it raises.
        """
        bare = registered.partition(":")[2]
        results = guarded(f"{bare}: {hook}()", partial(self._caller(registered, hook), **arguments))
        return results[0] if results else None

    def callers(self, hook: str) -> list[tuple[str, Callable[..., list[Any]]]]:
        """The plugins that implement a hook, in config order, each with what calls it alone."""
        implementing = {impl.plugin_name for impl in getattr(self.manager.hook, hook).get_hookimpls()}
        return [(name, self._caller(name, hook)) for name in self.names() if name in implementing]

    def _caller(self, registered: str, hook: str) -> Callable[..., list[Any]]:
        plugin = self.manager.get_plugin(registered)
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        return self.manager.subset_hook_caller(hook, others)


class _Unknown(Channel):
    """Stands for a type that cannot be had: the keys that all channels have can still be checked."""

    class Settings(Channel.Settings):
        model_config = ConfigDict(extra="ignore")


class Built(NamedTuple):
    """What a config names: its plugins, its channels, and everything that is wrong with them."""

    plugins: Plugins
    channels: dict[str, Channel]
    #: What the config says of each channel, and what the bus is to keep for it.
    settings: dict[str, Channel.Settings]
    options: dict[str, TopicOptions]
    problems: list[Problem]


def build(config: Config, bus: Bus) -> Built:
    """Load every plugin that a config names and make its channels; each problem has its place."""
    built = Built(Plugins(config.directory), {}, {}, {}, [])
    for _ in building(config, bus, built):
        pass
    return built


def building(
    config: Config,
    bus: Bus,
    built: Built,
    kept: Callable[[str, type[Channel], Channel.Settings], Channel | None] = lambda *_: None,
) -> Iterator[None]:
    """The same step by step, so that others have their turn in between.

    A channel that is ``kept`` is not made; it is to have these settings.
    """
    plugins, problems = built.plugins, built.problems
    source = config.source

    @contextmanager
    def telling(asked: list[type[BaseModel]], at: KeyPath, key: KeyPath = ()) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            problems.extend(source.explain(error, asked[-1], at))
        except PluginProblem as problem:
            problems.append(source.problem(str(problem), (*at, *key)))

    for index, name in enumerate(config.plugins):
        at = ("plugins", index)
        asked: list[type[BaseModel]] = [Model]

        def validate(model: type[Model], index: int = index, asked: list[type[BaseModel]] = asked) -> Model:
            asked.append(model)
            return source.validate(model, config.plugin_settings[index], ("plugins", index))

        if name in config.plugins[:index]:
            wrong = f"the plugin {name!r} is there already: with all its settings it stands here once"
            problems.append(source.problem(wrong, at))
            continue
        with telling(asked, at):
            plugins.load(name, validate)
    models: list[type[BaseModel]] = [BusSettings]  # whose key is what one without any others has
    with telling(models, ("bus",), ("engine",)):
        name, was = config.bus.engine, bus.engine
        of = plugins.engine(name)
        models.append(getattr(of, "Settings", BusSettings))
        model = getattr(of, "Settings", Model)
        chosen = _checked(f"engine {name!r}", source, model, config.bus.model_extra, ("bus",))
        if plugins.before is None:
            label = f"the engine {name!r} could not be made"
            bus.engine = guarded(label, partial(of, chosen, bus))
            if not hasattr(bus.engine, "trouble"):
                wrong = "__init__ is to begin with super().__init__(settings, bus)"
                raise PluginProblem(f"{label}: {wrong}{line_of(of, '__init__')}")
        else:
            keys = differences(was.settings, chosen) if type(was) is of else ("engine",)
            new = f"this is new, and {NEEDS_RESTART}"
            problems.extend(source.problem(new, ("bus", *key.split("."))) for key in keys)
    for name, values in config.channels.items():
        yield
        path = ("channels", name)
        if config.is_off(name):
            continue
        wanted = values.get("plugin")
        kind: type[Channel] = _Unknown
        with telling([], path, ("plugin",)):
            if isinstance(wanted, str):
                kind = plugins.channel_type(wanted)
        label = f"the channel type {wanted!r} could not be made"
        with telling([kind.Settings], path):
            settings = _checked(f"channel type {wanted!r}", source, kind.Settings, values, path)
            if kind is not _Unknown:
                old = kept(name, kind, settings)
                # For what it says of topics by other settings; nobody else sees this one.
                channel = copy.copy(old) if old else guarded(label, partial(kind, name, settings, bus))
                if old:
                    channel.settings = settings
                if not hasattr(channel, "settings") or not hasattr(channel, "_clients"):
                    wrong = "__init__ is to begin with super().__init__(name, settings, bus)"
                    raise PluginProblem(f"{label}: {wrong}{line_of(kind, '__init__')}")
                largest = channel.settings.limits.max_message or config.server.limits.max_message
                built.settings[name] = channel.settings
                built.options[name] = guarded(label, partial(_options, channel, largest))
                guarded(label, partial(plugins.add_channel, old or channel))
                built.channels[name] = old or channel


def _checked(what: str, source: Source, model: type[M], values: Any, at: KeyPath) -> M:
    """Settings, made by a model that may be wrong itself."""
    wrong = f"a validator of the {what} is to raise ValueError, and raised another"
    return guarded(wrong, partial(source.validate, model, values, at), ValidationError)


def _options(channel: Channel, largest: int) -> TopicOptions:
    options: object = channel.topic_options()
    if not isinstance(options, TopicOptions):
        raise PluginProblem(f"topic_options() returned {options!r}, which is no TopicOptions")
    return options.holding(largest)


def guarded(label: str, action: Callable[[], T], passing: type[BaseException] = PluginProblem) -> T:
    """Run a plugin's code; whatever it raises becomes a problem with its own frames.

    Not what is ``passing``, nor Ctrl-C, which is not the plugin's.
    """
    try:
        return action()
    except (passing, PluginProblem, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginProblem(f"{label}: {own_frames(error)}") from error
