"""The config: what may stand in ``config.yaml``, checked and typed.

Every mistake is reported at once as ``file:line:column: path: what is wrong``; the source knows the
places. A channel's own settings are checked by its type's model, which the loader finds.

The docstring below each key is its description: in the reference, and in an editor that knows the
schema.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field as PydanticField,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationError,
    WithJsonSchema,
)

from realtime.errors import Problem, did_you_mean
from realtime.loops import Choice, chosen
from realtime.origins import HOST, WILDCARD, parse_origin
from realtime.permissions import Permission
from realtime.source import Source
from realtime.values import (
    DURATION,
    Address,
    Duration,
    Model,
    Secret,
    Size,
    read_duration,
    write_duration,
    written,
)

#: What the kernel has room for: 108 bytes, the last of which is zero (unix(7)).
MAX_UNIX_PATH = 107
#: Less could not be told from what a busy server does, in seconds.
MIN_WATCHDOG = 0.02
#: The most by which clocks may differ, in seconds.
MAX_LEEWAY = 60.0
#: What is served where there is no config.
BUILT_IN = Path(__file__).with_name("config.yaml")

_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _without_doubles(addresses: list[Address]) -> list[Address]:
    seen: set[Address] = set()
    for address in addresses:
        if address in seen and (address.path or address.port):
            raise ValueError(f"{address} is there twice")
        seen.add(address)
    return addresses


def _origin(value: str) -> str:
    if value != "same" and parse_origin(value.replace(WILDCARD, "://", 1)) is None:
        raise ValueError(
            "expected an origin, a scheme and a host with no slash behind: https://app.example"
        )
    return value.lower()


def _origins_word(value: object) -> object:
    if value not in ("same", "any"):
        raise ValueError("expected same, any or a list such as [https://app.example]")
    return value


#: Which pages may connect. The tags tell the two apart, so that a mistake is told once.
Origins = Annotated[
    Annotated[Literal["same", "any"], BeforeValidator(_origins_word), Tag("word")]
    | Annotated[
        list[Annotated[str, AfterValidator(_origin), *written(str, "an origin", "same|https?://[^/]+")]],
        Tag("list"),
    ],
    Discriminator(lambda value: "list" if isinstance(value, list) else "word"),
]
_ListenAddress = Annotated[
    Address, BeforeValidator(Address.parse), *written(str, "an address", "unix:.+|.+:[0-9]+")
]


def _host(value: str) -> str:
    if not HOST.fullmatch(value):
        raise ValueError("expected a host, perhaps with a port: rt.example, or rt.example:8443 in quotes")
    return value.lower()


def _mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError('expected a mode in quotes such as "0660"')
    return int(value, 8)


def _proxy(value: str) -> str:
    if value == "unix":
        return value
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError("expected an address, a network such as 10.0.0.0/8, or unix") from None
    if mapped := getattr(interface.ip, "ipv4_mapped", None):
        raise ValueError(f"expected {mapped}: an IPv4 address is written as such")
    if interface.ip != interface.network.network_address:
        raise ValueError(f"expected {interface.network}, a network by its first address")
    return value


def _url(value: str) -> str:
    match = re.fullmatch(r"(https?://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\]))(:[0-9]{1,5})?/?", value.lower())
    if match is None or not 0 < int((match[2] or ":1")[1:]) < 65536:
        raise ValueError("expected https://HOST or http://HOST; the paths are those of the channels")
    return match[1] + (match[2] or "")


class ServerLimits(Model):
    """Bounds of the whole server; the first four also of a channel."""

    max_message: Size = 64 * 1024
    """the largest message that a client may send; a larger one closes it with 1009"""

    max_clients: NonNegativeInt = 20_000
    """the most connections at once; further ones get 503. The limit of open files may allow fewer"""

    inbound_rate: PositiveInt = 100
    """how many messages a client may send in a second; more close a WebSocket with 4529, a POST gets 429"""

    inbound_burst: PositiveInt = 200
    """how many it may send at once, after it has sent none for a while"""

    max_clients_per_user: NonNegativeInt | None = 100
    """the most connections of one identity, on all channels; further ones get 429. `null`: any number"""

    max_clients_per_address: NonNegativeInt | None = None
    """the same for one address; an office or a proxy is one, so there is no bound unless it is set"""

    connect_rate: PositiveInt = 1000
    """how many WebSockets and streams may begin in a second; further ones get 503"""

    connect_burst: PositiveInt = 2000
    """how many may begin at once"""

    unfinished: Size = 64 * 1024 * 1024
    """the most that all messages may take that have not come whole; who sends more gets 1013 or 503"""

    max_waiting: PositiveInt = 1000
    """the most connections that wait without a request; beyond it those that waited longest are closed"""

    topics: NonNegativeInt = 10_000
    """the most topics at once; a request that needs another gets 503"""

    memory: Size = 256 * 1024 * 1024
    """the most that all kept messages may take; beyond it the largest topics give up their oldest"""


class TLS(Model):
    """``server.tls``: the certificate of every TCP listener. Paths are relative to the config file."""

    cert: str
    """the PEM file of the certificate, followed by those between it and its root"""

    key: str | None = None
    """the PEM file of its private key; may be left out if it is in the file of the certificate"""

    password: Secret | None = None
    """what opens the key, if it is encrypted"""


def _watchdog(value: object) -> float:
    if value in (False, "off"):  # YAML 1.1 reads a bare off as false
        return 0.0
    try:
        seconds = read_duration(value)
    except ValueError:
        seconds = 0.0
    if seconds < MIN_WATCHDOG:
        raise ValueError(f"expected off, or a duration from {write_duration(MIN_WATCHDOG)} on")
    return seconds


def _write_watchdog(seconds: float) -> str:
    return write_duration(seconds) if seconds else "off"


def _loop(choice: Choice) -> Choice:
    chosen(choice)
    return choice


class ServerSettings(Model):
    """The ``server`` section."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    listen: Annotated[list[_ListenAddress], AfterValidator(_without_doubles)] = PydanticField(
        default=[Address("127.0.0.1", 8080)], min_length=1
    )
    """where to listen: `HOST:PORT`, `"[IPV6]:PORT"` or `unix:/PATH`; port 0 is any that is free"""

    socket_mode: Annotated[
        int, BeforeValidator(_mode), *written(lambda mode: f"{mode:04o}", "a mode, in quotes", "0?[0-7]{3}")
    ] = 0o660
    """the mode of a unix socket's file: who may connect must be allowed to write"""

    origins: Origins = "same"
    """which web pages may connect: `same`, `any`, or a list such as `[same, https://*.app.example]`"""

    hosts: list[Annotated[str, AfterValidator(_host), *written(str, "a host", HOST.pattern)]] = []
    """the names it may be asked for, `rt.example` at any port or `"rt.example:8443"`; with none, any"""

    drain: Duration = 10.0
    """how long a shutdown may take before what is left is cut"""

    limits: ServerLimits = ServerLimits()
    """bounds of the whole server"""

    trusted_proxies: list[Annotated[str, AfterValidator(_proxy), *written(str, "a network", ".+")]] = []
    """whose `X-Forwarded-` headers are believed: addresses, networks, `unix` for unix sockets"""

    url: Annotated[str, AfterValidator(_url), *written(str, "a URL", "https?://[^/]+/?")] | None = None
    """the scheme and host by which it is reached from outside: for links, and as an origin of its own"""

    loop: Annotated[Choice, AfterValidator(_loop)] = "auto"
    """the event loop: `uvloop`, `asyncio`, or `auto`, which is uvloop where that is installed"""

    inspect: Permission = "local"
    """who may watch: the dashboard, `/-/stats`, `/-/metrics`, `/-/clients`, and all of `/-/channels`"""

    watchdog: Annotated[
        float,
        BeforeValidator(_watchdog),
        *written(_write_watchdog, "a duration, or off", f"off|{DURATION.pattern}"),
    ] = 0.1
    """how long the event loop may be held before the log names what holds it; `off`: it is not watched"""

    tls: TLS | None = None
    """its own TLS: every TCP listener then speaks `https://` and `wss://`, and nothing else"""


Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
]  # fmt: skip


def _one_family(algorithms: list[Algorithm]) -> list[Algorithm]:
    if len({name[:2] for name in algorithms}) != 1:
        raise ValueError(
            "expected algorithms of one family, for there is one key: HS…, RS…, PS…, ES… or EdDSA"
        )
    return algorithms


def _leeway(seconds: float) -> float:
    if seconds > MAX_LEEWAY:
        raise ValueError(f"expected a duration of at most {write_duration(MAX_LEEWAY)}")
    return seconds


class JWT(Model):
    """``auth.jwt``: which tokens are believed (RFC 7519). The key is here, and never in a token."""

    key: Secret | None = None
    """the secret of HS…, at least 32 random bytes; or the public key of RS…, PS…, ES…, EdDSA (PEM)"""

    key_file: str | None = None
    """the file of the key, relative to the config file, instead of `key`"""

    algorithms: Annotated[list[Algorithm], AfterValidator(_one_family)] = ["HS256"]
    """which are believed, of one family: `HS256`, `RS256`, `PS256`, `ES256` and so on, `EdDSA`"""

    audience: Annotated[str, PydanticField(min_length=1)] = "realtime"
    """what a token must have as `aud`, as one text: for whom it was made"""

    issuer: Annotated[str, PydanticField(min_length=1)] | None = None
    """what a token must have as `iss`: who made it; if it is not set, anybody who has the key may"""

    leeway: Annotated[Duration, AfterValidator(_leeway)] = 10.0
    """by how much the clocks of whoever makes tokens and of this server may differ, at most 1m"""


def _cookie(value: str) -> str:
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]{1,100}", value, re.ASCII):
        raise ValueError("expected the name of a cookie, such as realtime_token")
    return value


class Auth(Model):
    """The ``auth`` section: how the server finds out who a client is."""

    jwt: JWT | None = None
    """the tokens that are believed; without it, what the plugins say"""

    cookie: Annotated[str, AfterValidator(_cookie)] | None = "realtime_token"
    """the cookie in which a page of the server's own, or of `server.origins`, may have its token"""


def _entry(value: object) -> object:
    if isinstance(value, dict) and not isinstance(value.get("plugin"), str):
        raise ValueError("expected the name of a plugin, or its settings with the key 'plugin'")
    if not isinstance(value, str | dict):
        raise ValueError("expected text")
    return value


class BusSettings(Model):
    """The ``bus`` section: which engine, and what its own model says of it."""

    model_config = ConfigDict(extra="allow")

    engine: str = "memory"
    """where the messages are kept: `memory`, this process alone, or an engine of a plugin"""


def _named(value: object) -> object:
    if isinstance(value, dict) and value and not did_you_mean("engine", map(str, value)):
        raise ValueError("the key 'engine' is missing: which one these settings are of, such as `redis`")
    return value


class Document(Model):
    """The whole config; what stands under a channel is checked by its type's own model."""

    server: ServerSettings = ServerSettings()
    """where and how to serve"""

    bus: Annotated[BusSettings, BeforeValidator(_named)] = BusSettings()
    """where the messages are kept: the engine, and its own settings"""

    auth: Auth = Auth()
    """how it is found out who a client is"""

    plugins: list[
        Annotated[
            Any,
            BeforeValidator(_entry),
            WithJsonSchema(
                {
                    "title": "a plugin",
                    "anyOf": [{"type": "string"}, {"type": "object", "required": ["plugin"]}],
                }
            ),
        ]
    ] = []
    """plugins that are no channels (authentication, services, routes of their own), by name"""

    channels: dict[str, dict[str, Any]] = {}
    """each channel by its name"""


@dataclass(frozen=True)
class Config:
    """A config as far as it could be read; channels' own settings are still as they were written.

    Where ``source.problems`` has any, what they are about has its default or is left out, and the
    server does not start.
    """

    source: Source
    server: ServerSettings
    #: By name, and the settings of each; plugins and channels have secrets in them.
    plugins: list[str]
    plugin_settings: list[dict[str, Any]] = field(repr=False)
    channels: dict[str, dict[str, Any]] = field(repr=False)
    auth: Auth = field(default_factory=Auth)
    #: The settings of the engine are beside its name, as they were written; there are secrets in them.
    bus: BusSettings = field(default=BusSettings(), repr=False)

    def is_off(self, channel: str) -> bool:
        """Whether a channel is as if it were not there."""
        # What the environment brings is text until the channel's type is known.
        word = "false" if ("channels", channel, "enabled") in self.source.variables else False
        return self.channels[channel].get("enabled") == word

    def listening_on(self, addresses: list[Address]) -> Config:
        """The same config, listening elsewhere."""
        return replace(self, server=self.server.model_copy(update={"listen": addresses}))

    @property
    def directory(self) -> Path | None:
        """The directory of the config file, beside which plugins may stand."""
        return self.source.file.parent if self.source.file else None


def load(file: Path | None = None) -> Config:
    """Read a config file, or the built-in one. Raises :exc:`ConfigError` when it cannot be read."""
    source = Source(str(file), file.absolute()) if file else Source("the built-in config")
    return parse(source.read(file or BUILT_IN), source)


def parse(text: str, source: Source | None = None) -> Config:
    """Read a config from a text; what is wrong with it is in the ``problems`` of its source.

    A server made from it raises them, together with all that is wrong with channels and plugins.
    """
    source = source or Source("config")
    values, problems = source.load(text), source.problems
    if values is None and not problems:
        problems.append(Problem("it is empty: it needs a section 'channels'", "", source.name))
    elif not isinstance(values, dict) and not problems:
        problems.append(source.problem("the top is a mapping with 'server' and 'channels'"))
    values = values if isinstance(values, dict) else {}
    for section in ("server", "bus", "channels"):
        if section in values and values[section] is None:
            values[section] = {}  # with nothing under it it is empty, not a mistake
    try:
        document = source.validate(Document, values)
    except ValidationError as error:
        problems.extend(source.explain(error, Document, ()))
        for item in error.errors():
            section, *below = map(str, item["loc"])
            if section == "channels" and below:
                values["channels"].pop(below[0], None)
            elif section == "plugins" and below:
                values["plugins"] = [name for name in values["plugins"] if isinstance(name, str)]
            else:
                values.pop(section, None)
        document = source.validate(Document, values)
    for index, address in enumerate(document.server.listen):
        if address.path:
            path = str(source.file.parent / address.path) if source.file else address.path
            document.server.listen[index] = replace(address, path=path)
            if len(os.fsencode(path)) > MAX_UNIX_PATH:
                wrong = f"the path of a unix socket has at most {MAX_UNIX_PATH} bytes: {path}"
                problems.append(source.problem(wrong, ("server", "listen", index)))
    for name in document.channels:
        if not _CHANNEL_NAME.fullmatch(name):
            wrong = "a channel's name is letters, digits, '-', '_' and '.', at most 64"
            problems.append(source.problem(wrong, ("channels", name), key=True))
    entries = [{"plugin": entry} if isinstance(entry, str) else entry for entry in document.plugins]
    names = [entry["plugin"] for entry in entries]
    settings = [{key: entry[key] for key in entry if key != "plugin"} for entry in entries]
    return Config(source, document.server, names, settings, document.channels, document.auth, document.bus)
