"""The ledger of the test that torments a Redis: it notices what must not be."""

from __future__ import annotations

import re
from typing import Any

import pytest

from acceptance.ledger import Ledger, Position, Said, Violation, Witness

Item = dict[str, Any]


def welcome(outcome: str, id: str = "", **more: int) -> Item:
    """The first event of a stream."""
    return {
        "event": "realtime:welcome",
        "data": {"outcome": outcome, **more},
        **({"id": id} if id else {}),
    }


def message(id: str, text: str = "") -> Item:
    """A message; its text is that of its position unless it is another."""
    return {"event": "message", "data": text or f"at {id}", "id": id}


def gap(id: str, missed: int) -> Item:
    """The mark of a gap."""
    return {"event": "realtime:gap", "data": {"missed": missed}, "id": id}


def reset(id: str) -> Item:
    """The mark of a reset."""
    return {"event": "realtime:reset", "data": {}, "id": id}


def ledger_of(*clients: list[list[Item]], kept: bool = False) -> Ledger:
    """A ledger of what these saw, each on some connections; what they saw was said once."""
    ledger = Ledger("news", kept)
    for number, connections in enumerate(clients):
        witness = Witness(f"client {number}", lambda: 0.0, kept)
        ledger.witnesses.append(witness)
        for items in connections:
            witness.connects("A")
            for item in items:
                witness.sees(item)
                if item["event"] == "message":
                    said = Said("alice", 1, f'message "{item["data"]}"')
                    ledger.said[said.value] = said
    return ledger


BEGIN = [welcome("new", "e-0"), message("e-1"), message("e-2")]
RIGHT = {
    "nothing but messages": [BEGIN],
    "another connection": [BEGIN, [welcome("recovered", "e-2"), message("e-3")]],
    "a gap": [BEGIN, [welcome("gap", missed=3), gap("e-5", 3), message("e-6")]],
    "a gap between": [[*BEGIN, gap("e-4", 2), message("e-5")]],
    "a reset": [BEGIN, [welcome("reset"), reset("f-0"), message("f-1")]],
    "a reset between": [[*BEGIN, reset("f-0"), message("f-1")]],
    "a mark that did not come": [BEGIN, [welcome("gap", missed=3)], [welcome("recovered", "e-2")]],
}
WRONG = {
    "a message is skipped": [[*BEGIN, message("e-4")]],
    "a message comes twice": [[*BEGIN, message("e-2")]],
    "another epoch without a mark": [[*BEGIN, message("f-3")]],
    "skipped between connections": [BEGIN, [welcome("recovered", "e-3")]],
    "twice on another connection": [BEGIN, [welcome("recovered", "e-1"), message("e-2")]],
    "forgotten where it was": [BEGIN, [welcome("new", "e-2")]],
    "a gap that is too small": [BEGIN, [welcome("gap", missed=2), gap("e-5", 2)]],
    "a gap that is not the one of the welcome": [BEGIN, [welcome("gap", missed=2), gap("e-5", 3)]],
    "a gap of nothing": [[*BEGIN, gap("e-2", 0)]],
    "a gap into another epoch": [[*BEGIN, gap("f-4", 2)]],
    "no mark after the welcome": [BEGIN, [welcome("reset"), message("f-1")]],
    "no welcome": [[message("e-1")]],
    "restored from nothing": [[*BEGIN, {"event": "realtime:restored", "data": {}}]],
}


@pytest.mark.parametrize("connections", RIGHT.values(), ids=RIGHT)
def test_right(connections: list[list[Item]]) -> None:
    """A stream without a hole, or with a mark in its place, is right."""
    ledger = ledger_of(connections)
    end = ledger.witnesses[0].cursor
    assert end is not None
    ledger.check(1, 0, end)


@pytest.mark.parametrize("connections", WRONG.values(), ids=WRONG)
def test_wrong(connections: list[list[Item]]) -> None:
    """A stream that skips, repeats, or marks what is not so, is wrong."""
    with pytest.raises(Violation, match="what it saw"):
        ledger_of(connections)


def test_reset_of_what_is_kept() -> None:
    """Where everything is kept a reset begins with the first message."""
    with pytest.raises(Violation, match="does not begin with the first"):
        ledger_of([[*BEGIN, reset("f-1")]], kept=True)


def told(ledger: Ledger, losses: int = 0, rollbacks: int = 0, end: str = "e-2") -> str:
    """What the ledger finds wrong."""
    with pytest.raises(Violation) as violation:
        ledger.check(losses, rollbacks, Position.parse(end))
    return re.sub(r"\n.*", "", str(violation.value), flags=re.DOTALL)


def test_two_messages_at_one_place() -> None:
    """No two see another message at one position."""
    ledger = ledger_of([BEGIN], [[welcome("new", "e-0"), message("e-1", "odd")]])
    assert told(ledger) == 'news: two messages at e-1: message "at e-1" and message "odd"'


def test_parted_and_joined() -> None:
    """When an epoch went back, who saw what is no longer there sees nothing of what is without a mark."""
    other = [welcome("new", "e-0"), message("e-1", "odd"), message("e-2")]
    assert "saw another message at e-1, and not at e-2" in told(ledger_of([BEGIN], [other]), 1, 1)


def test_twice_in_the_log() -> None:
    """What was said once stands at one place."""
    ledger = ledger_of([[welcome("new", "e-0"), message("e-1", "x"), message("e-2", "x")]])
    assert told(ledger).startswith('news: message "x" is in the log twice')


def test_in_two_epochs() -> None:
    """Where nothing was lost, nothing is said anew."""
    ledger = ledger_of([BEGIN], [[welcome("new", "f-0"), message("f-1", "at e-1")]])
    assert told(ledger).startswith('news: message "at e-1" is in two epochs')


def test_nobody_said_it() -> None:
    """What is seen was said."""
    ledger = ledger_of([BEGIN])
    del ledger.said['message "at e-1"']
    assert told(ledger) == 'news: nobody said message "at e-1"'


def test_acknowledged_elsewhere() -> None:
    """What was acknowledged stands where it was said to."""
    ledger = ledger_of([BEGIN])
    ledger.said['message "at e-1"'].acknowledged = Position("e", 2)
    assert told(ledger).startswith('news: message "at e-1" was acknowledged as e-2, where client 0 saw')


def test_acknowledged_and_never_seen() -> None:
    """What was acknowledged comes to all who were there."""
    ledger = ledger_of([BEGIN], kept=True)
    ledger.said["message x"] = Said("bob", 1, "message x", Position("e", 3))
    assert told(ledger, end="e-3") == "news: message x at e-3 never came to client 0"
    assert told(ledger) == "news: acknowledged, and beyond the end e-2: [3]"


def test_out_of_order() -> None:
    """What a publisher says later stands behind."""
    ledger = ledger_of([BEGIN])
    for wave, offset in ((1, 2), (2, 1)):
        said = ledger.said[f'message "at e-{offset}"']
        said.wave, said.acknowledged = wave, Position("e", offset)
    assert told(ledger) == 'news: message "at e-1" was said later, and stands at e-1'


def test_needless_reset() -> None:
    """Where nothing was lost, nothing begins anew."""
    ledger = ledger_of([[*BEGIN, reset("f-0")]])
    assert told(ledger, end="f-0") == "news: client 0: 1 resets for 0 losses"


def test_late() -> None:
    """What came, though nobody acknowledged it, is found."""
    ledger = ledger_of([BEGIN])
    ledger.said['message "at e-1"'].acknowledged = Position("e", 1)
    assert [said.value for said in ledger.late()] == ['message "at e-2"']
