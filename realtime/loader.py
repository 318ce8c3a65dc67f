"""Plugins: found by name, imported only when the config names them, and checked before use.

A name is looked for in ``plugins/`` beside the config file, among the first-party plugins, and
among the entry points of group ``realtime`` of the installed packages. A broken plugin is
reported with its own lines and what it was wanted for, and hides no other's mistake.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pluggy
from pydantic import ConfigDict, ValidationError

from realtime import hookspecs
from realtime.blame import own_frames
from realtime.bus import Bus
from realtime.channel import Channel
from realtime.checks import (
    PluginProblem,
    check_call,
    check_defaults,
    check_hooks,
    check_type,
    deprecations,
    is_marked,
    line_of,
)
from realtime.config import Config
from realtime.errors import Problem
from realtime.modules import Found, Modules
from realtime.topic import TopicOptions
from realtime.values import Model

T = TypeVar("T")
#: Makes the settings of a plugin out of what the config has of them, by their model.
Validate = Callable[[type[Model]], Model]

log = logging.getLogger("realtime.loader")

_HOW_TO_OFFER = "a function register_channels, marked @hookimpl, returns them in a dict"


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
        self.types: dict[str, type[Channel]] = {}
        #: The settings of each plugin that has a class for them.
        self.settings: dict[str, Model] = {}
        self.modules: Modules = Modules(directory, before.modules if before else None, anew=anew)
        self._before = before
        self._origin: dict[type[Channel], str] = {}
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
            guarded(name, partial(self._collect_types, name))
        except PluginProblem as problem:
            self._broken[name] = problem
            raise

    def _made(self, name: str, module: object, validate: Validate | None) -> object:
        """The plugin itself: the module, or an instance of its class ``Plugin``."""
        kind = getattr(module, "Plugin", None)
        model = getattr(kind, "Settings", Model)
        if not isinstance(kind, type):
            if validate is not None:
                validate(Model)
            return module
        if not (isinstance(model, type) and issubclass(model, Model)):
            wrong = "is no subclass of Model: write class Settings(Model)"
            raise PluginProblem(f"{name}: Plugin.Settings {wrong}{line_of(kind, 'Settings')}")
        check_defaults(f"{name}: Plugin.Settings", model)
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
        was = self._before.manager.get_plugin(f"plugin:{name}") if self._before else None
        if self._before and type(was) is kind and self._before.settings[name] == settings:
            return was
        init = inspect.getattr_static(kind, "__init__")
        if init is object.__init__:
            wrong = "has no __init__: write def __init__(self, settings)"
            raise PluginProblem(f"{name}: Plugin {wrong}{line_of(kind)}")
        check_call(f"{name}: Plugin.__init__", init, "(settings)")
        return kind(settings)

    def channel_type(self, name: str) -> type[Channel]:
        """The channel type that ``plugin: name`` means. Raises :exc:`PluginProblem`."""
        if name not in self.types:
            self.load(name)
        if name not in self.types:
            offered = ", ".join(sorted(self.offered(name) or ())) or f"none ({_HOW_TO_OFFER})"
            where = self.line_of_hook(f"plugin:{name}", "register_channels")
            if not where and self.manager.get_hookcallers(self.manager.get_plugin(f"plugin:{name}")):
                wrong = "is no channel: it belongs under plugins:"
                raise PluginProblem(f"the plugin {name!r} {wrong}\n    {self.modules.location[name]}")
            raise PluginProblem(
                f"the plugin {name!r} offers no channel type of that name; it offers: {offered}"
                + (where or f"\n    {self.modules.location[name]}")
            )
        return self.types[name]

    def offered(self, name: str) -> list[str] | None:
        """The channel types of a plugin; None when it is not loaded."""
        if not self.manager.has_plugin(f"plugin:{name}") or name in self._broken:
            return None
        return [type_name for type_name, kind in self.types.items() if self._origin[kind] == name]

    def broken(self, name: str) -> str | None:
        """What is wrong with a plugin that could not be loaded."""
        return str(self._broken[name]) if name in self._broken else None

    @property
    def found(self) -> list[Found]:
        """Every plugin that a config could name; of one name the first counts."""
        return self.modules.found

    def source(self, kind: type[Channel]) -> Found | None:
        """The plugin that offers this channel type."""
        name = self._origin.get(kind, "")
        return next((found for found in self.found if found.matches(name)), None)

    def settle(self) -> None:
        """What was before is used no more."""
        self._before = None
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

    def _collect_types(self, name: str) -> None:
        offered = self.call(f"plugin:{name}", "register_channels")
        where = self.line_of_hook(f"plugin:{name}", "register_channels")
        if offered is None and not where:
            return
        how = f'return {{"{name}": …}} with the class'
        if not isinstance(offered, Mapping):
            wrong = f"returned {offered!r}, not a dict of channel types: {how}"
            raise PluginProblem(f"{name}: register_channels() {wrong}{where}")
        for type_name, kind in offered.items():
            if isinstance(kind, Channel):
                wrong = f"is an instance, and the host makes these: {how}"
                raise PluginProblem(f"{name}: {kind!r}, offered as {type_name!r}, {wrong}{where}")
            if not (isinstance(kind, type) and issubclass(kind, Channel)):
                wrong = "is no subclass of Channel"
                if isinstance(kind, type):
                    wrong, where = f"{wrong}: write class {kind.__name__}(Channel)", line_of(kind) or where
                raise PluginProblem(f"{name}: {kind!r}, offered as {type_name!r}, {wrong}{where}")
            check_type(f"{name}: {kind.__name__}", kind)
            other = self.types.get(str(type_name))
            if other is not None and other is not kind:
                both = " and ".join(
                    f"{plugin} ({self.modules.location[plugin]})" for plugin in (self._origin[other], name)
                )
                raise PluginProblem(
                    f"two plugins offer a channel type {type_name!r}: {both}; rename it in one of them"
                )
            self.types[str(type_name)] = kind
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
    for index, name in enumerate(config.plugins):
        at = ("plugins", index)
        asked: list[type[Model]] = [Model]

        def validate(model: type[Model], index: int = index, asked: list[type[Model]] = asked) -> Model:
            asked.append(model)
            return source.validate(model, config.plugin_settings[index], ("plugins", index))

        if name in config.plugins[:index]:
            wrong = f"the plugin {name!r} is there already: with all its settings it stands here once"
            problems.append(source.problem(wrong, at))
            continue
        try:
            plugins.load(name, validate)
        except ValidationError as error:
            problems.extend(source.explain(error, asked[-1], at))
        except PluginProblem as problem:
            problems.append(source.problem(str(problem), at))
    for name, values in config.channels.items():
        yield
        path = ("channels", name)
        if config.is_off(name):
            continue
        wanted = values.get("plugin")
        kind: type[Channel] = _Unknown
        try:
            if isinstance(wanted, str):
                kind = plugins.channel_type(wanted)
        except PluginProblem as problem:
            problems.append(source.problem(str(problem), (*path, "plugin")))
        label = f"the channel type {wanted!r} could not be made"
        checked = f"a validator of the channel type {wanted!r} is to raise ValueError, and raised another"
        try:
            settings = guarded(
                checked, partial(source.validate, kind.Settings, values, path), ValidationError
            )
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
        except ValidationError as error:
            problems.extend(source.explain(error, kind.Settings, path))
        except PluginProblem as problem:
            problems.append(source.problem(str(problem), path))


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
