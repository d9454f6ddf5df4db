"""The ``words`` style: the household as few, closed words for tiny models, and short names for commands.

A tiny model cannot learn to keep a list of places and to tell "apple 2" from "apple 3" out of long texts in
minutes, so the list is kept for it. Only what the game has printed in this episode is used, never where
hidden things are. An observation is one line of

- the task: ``do:<place|two|clean|heat|cool|look>``, ``want:<object type>``, ``to <receptacle or lamp type>``
- the hand: ``hold:nothing``, ``hold:other``, ``hold:wanted`` (still to be changed as the task asks) or
  ``hold:ready``
- the place: ``at:middle``, or ``at:<type>``, with ``closed`` when it is; ``here:target`` (where the task
  ends), ``here:wanted`` (an object still to be brought), ``here:other`` (anything else one can take),
  ``here:lamp``
- ``done1`` when one of two has been brought
- ``failed`` before all that, when the last command was not possible
- memory: ``known:<type>`` where a wanted object was seen, ``lamp:<type>`` where the lamp was seen, ``new``
  and each type of which some receptacle has not been looked into; in commands these are the same words, so
  that a model with tied embeddings has only to copy

Commands are one word, relative to the place: a receptacle type goes to the first of that type not looked
into, else to the next one (or to the one with the first of two objects, while the second is in the hand);
``wanted`` and ``lamp`` go to where memory has one; ``open``, ``close``, ``take`` (what is wanted), ``grab``
(anything else), ``put``, ``heat``, ``cool``, ``clean``, ``use`` (the lamp). The real commands are understood
too.
"""

from __future__ import annotations

from collections.abc import Iterator

from repro_rl.envs.alfworld.engine import APPLIANCES, Play

_PICKUPABLE = (
    "AlarmClock Apple BaseballBat BasketBall Book Boots Bowl Box Bread ButterKnife CD Candle CellPhone Cloth "
    "CreditCard Cup DishSponge Egg Fork Glassbottle HandTowel Kettle KeyChain Knife Ladle Laptop Lettuce Mug "
    "Newspaper Pan PaperTowel PaperTowelRoll Pen Pencil PepperShaker Pillow Plate Plunger Pot Potato "
    "RemoteControl SaltShaker ScrubBrush SoapBar SoapBottle Spatula Spoon SprayBottle Statue TeddyBear "
    "TennisRacket TissueBox ToiletPaper ToiletPaperRoll Tomato Towel Vase Watch WateringCan WineBottle"
)
_RECEPTACLES = (
    "ArmChair BathtubBasin Bed Cabinet Cart CoffeeMachine CoffeeTable CounterTop Desk DiningTable Drawer "
    "Dresser Fridge GarbageCan HandTowelHolder LaundryHamper Microwave Ottoman PaintingHanger Safe Shelf "
    "SideTable SinkBasin Sofa StoveBurner TVStand Toaster Toilet ToiletPaperHanger TowelHolder"
)
_LAMPS = ("DeskLamp", "FloorLamp")
_KINDS = ("place", "two", "look", *APPLIANCES)
VERBS = ("open", "close", "put", *APPLIANCES)
_FIXED = (
    *("hold:nothing", "hold:other", "hold:wanted", "hold:ready", "at:middle", "closed", "failed"),
    *("here:target", "here:wanted", "here:other", "here:lamp", "done1", "to", "new"),
    *("wanted", "lamp", "take", "grab", "use"),
    *VERBS,
)


def vocabulary() -> Iterator[str]:
    """Every word of the style, commands included. Types that no official game has are read as unknown."""
    yield from _FIXED
    yield from (f"do:{kind}" for kind in _KINDS)
    yield from (f"want:{kind.lower()}" for kind in _PICKUPABLE.split())
    yield from map(str.lower, _LAMPS)
    for kind in _RECEPTACLES.split():
        name = kind.lower()
        yield from (name, f"at:{name}", f"known:{name}", f"lamp:{name}")


class Words:
    """The codec of one episode; it remembers what the game has shown."""

    def __init__(self, play: Play):
        self._play = play
        game = play.game
        self._types = [kind.lower() for kind in game.receptacle_types]
        # Printed numbers count up while raw ids count down: "cabinet 1" is the last of its type.
        self._order = sorted(range(len(game.receptacles)), key=lambda r: int(game.receptacles[r].split()[-1]))
        self._same: dict[str, list[int]] = {}  # type: its receptacles, in order
        for r in self._order:
            self._same.setdefault(self._types[r], []).append(r)
        self._wanted = {o for o, kind in enumerate(game.object_types) if kind == game.goal.object_type}
        self._target = "" if game.goal.kind == "look" else game.goal.receptacle_type.lower()
        self._lamps = {
            o
            for o, kind in enumerate(game.object_types)
            if game.goal.kind == "look" and kind == game.goal.receptacle_type
        }
        self._focus = -1  # the receptacle the agent turned to last
        self._shown: dict[int, set[int]] = {}  # receptacle: what it was seen to hold
        self._failed = False

    # What is remembered

    def note(self, move: tuple[str, int, int] | None) -> None:
        """Take in what the game printed for a command (as ``Play.moves`` names it; None: not possible).

        Call once after every step.
        """
        self._failed = move is None
        if move is not None and move[0] != "slice" and move[2] >= 0:
            self._focus = move[2]
        r = self._focus
        if move is not None and r >= 0 and self._play.is_open(r):
            self._shown[r] = set(self._play.contents(r))

    def _brought(self) -> dict[int, set[int]]:
        """Target receptacles with the wanted objects seen in them (tasks that change nothing)."""
        if self._play.game.goal.kind not in ("place", "two"):
            return {}
        return {
            r: found
            for r, items in self._shown.items()
            if self._types[r] == self._target and (found := items & self._wanted)
        }

    def _known(self) -> list[int]:
        """Receptacles where a wanted object was seen that is still to be brought, in order."""
        brought = self._brought()
        return [
            r
            for r in self._order
            if r not in brought and (self._shown.get(r, set()) & self._wanted) - {self._play.held}
        ]

    def _lit(self) -> list[int]:
        return [r for r in self._order if self._shown.get(r, set()) & self._lamps]

    def _resolve(self, place: str) -> int:
        """The receptacle that going to ``place`` means; -1 when there is none."""
        if place in ("wanted", "lamp"):
            found = self._known() if place == "wanted" else self._lit()
            return next((r for r in found if r != self._focus), -1)
        same = self._same.get(place, [])
        if place == self._target and self._play.held in self._wanted:
            brought = self._brought()
            for r in same:
                if r in brought:
                    return -1 if r == self._focus else r
        fresh = [r for r in same if r not in self._shown and r != self._focus]
        if fresh:
            return fresh[0]
        if self._focus in same:  # the next one, round and round
            start = same.index(self._focus) + 1
            same = same[start:] + same[: start - 1]
        return same[0] if same else -1

    # Commands

    def real(self, action: str) -> str:
        """The command a short name stands for; what is no short name comes back as it is."""
        play, game, r = self._play, self._play.game, self._focus
        if action in self._types or action in ("wanted", "lamp"):
            return self._way(self._resolve(action))
        if action in ("take", "grab"):
            choice = self._here(action == "take")
            return f"take {game.objects[choice[0]]} from {game.receptacles[r]}" if choice else ""
        if action == "use":
            lamps = self._lamps & set(play.contents(r))
            return f"use {game.objects[min(lamps)]}" if lamps else ""
        if action not in VERBS:
            return action
        if r < 0 or (play.held < 0 and action not in ("open", "close")):
            return ""
        name = game.receptacles[r]
        if action in ("open", "close"):
            return f"{action} {name}"
        held = game.objects[play.held]
        return f"move {held} to {name}" if action == "put" else f"{action} {held} with {name}"

    def _way(self, r: int) -> str:
        """The command that turns to receptacle ``r``: one at this location cannot be walked to."""
        if r < 0:
            return ""
        game = self._play.game
        return f"{'examine' if game.places[r] == self._play.at else 'go to'} {game.receptacles[r]}"

    def _here(self, wanted: bool) -> list[int]:
        """What can be taken from the receptacle in front: wanted objects, or the others."""
        play, r = self._play, self._focus
        if r < 0 or not play.is_open(r):
            return []
        return [o for o in play.contents(r) if (o in self._wanted) == wanted and play.has("pickupable", o)]

    def admissible(self) -> list[str]:
        """Short names of what can be done here."""
        moves = self._play.moves()
        # One can always turn to a receptacle that there is, so those need no look into the list of moves.
        places = [name for name in (*self._same, "wanted", "lamp") if self._resolve(name) >= 0]
        return places + [name for name in (*VERBS, "take", "grab", "use") if self.real(name) in moves]

    def short(self, command: str) -> str:
        """The short name that serves a planner's command best from here: when the receptacle is not the one
        in front, a step of the search for it."""
        focus = self._focus
        verb, item, r = self._play.moves()[command]
        if r >= 0 and r != focus:
            for place in ("wanted", "lamp"):
                if self._resolve(place) == r:
                    return place
            if focus >= 0 and self._types[focus] == self._types[r] and not self._play.is_open(focus):
                return "open"
            return self._types[r]
        if verb == "take":
            return "take" if item in self._wanted else "grab"
        if verb == "use":
            return "use" if item in self._lamps else command
        return "put" if verb == "move" else verb

    # Observations

    def _hand(self) -> str:
        play, kind = self._play, self._play.game.goal.kind
        if play.held < 0:
            return "nothing"
        if play.held not in self._wanted:
            return "other"
        return "wanted" if kind in APPLIANCES and not play.has(APPLIANCES[kind][2], play.held) else "ready"

    def observe(self) -> tuple[str, str]:
        """(observation, its short form): the short form leaves task and memory out."""
        goal, play = self._play.game.goal, self._play
        task = [f"do:{goal.kind}", f"want:{goal.object_type.lower()}", "to", goal.receptacle_type.lower()]
        now = ["failed"] if self._failed else []
        now.append(f"hold:{self._hand()}")
        r = self._focus
        now.append("at:middle" if r < 0 else f"at:{self._types[r]}")
        if r >= 0 and not play.is_open(r):
            now.append("closed")
        if r >= 0 and self._types[r] == self._target:
            now.append("here:target")
        if self._here(True) and r not in self._brought():
            now.append("here:wanted")
        if self._here(False):
            now.append("here:other")
        if self._lamps & self._shown.get(r, set()):
            now.append("here:lamp")
        if goal.kind == "two" and self._brought():
            now.append("done1")
        memory = [f"known:{self._types[r]}" for r in self._known()[:1]]
        memory += [f"lamp:{self._types[r]}" for r in self._lit()[:1]]
        fresh = {kind for r, kind in enumerate(self._types) if r not in self._shown}
        memory += ["new", *sorted(fresh)] if fresh else []
        return " ".join(task + now + memory), " ".join(now)
