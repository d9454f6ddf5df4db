"""What a generated household brings along for the real engine: rules in PDDL, texts as a grammar.

Our own rules and texts for the original package's two formats. They say and allow what the official files
do (compared in ``tests/test_alfworld_real.py``); the native engine has both built in and reads neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product

from repro_rl.envs.alfworld.engine import HELP, WELCOME

DOMAIN = """\
; The rules of a household: go, open, take, put, wash, heat, cool, cut, switch on, and four ways to look.
(define (domain alfred)
  (:requirements :adl :typing)
  (:types agent location receptacle object rtype otype)
  (:predicates
    (atLocation ?a - agent ?l - location)
    (receptacleAtLocation ?r - receptacle ?l - location)
    (objectAtLocation ?o - object ?l - location)
    (receptacleType ?r - receptacle ?t - rtype)
    (objectType ?o - object ?t - otype)
    (canContain ?t - rtype ?u - otype)
    (washes ?t - rtype)
    (heats ?t - rtype)
    (cools ?t - rtype)
    (cuts ?u - otype)
    (openable ?r - receptacle)
    (opened ?r - receptacle)
    (inReceptacle ?o - object ?r - receptacle)
    (holds ?a - agent ?o - object)
    (holdsAny ?a - agent)
    (pickupable ?o - object)
    (isReceptacleObject ?o - object)
    (cleanable ?o - object)
    (heatable ?o - object)
    (coolable ?o - object)
    (sliceable ?o - object)
    (toggleable ?o - object)
    (isClean ?o - object)
    (isHot ?o - object)
    (isCool ?o - object)
    (isSliced ?o - object)
    (isToggled ?o - object)
    (looked ?a - agent))

  (:action GotoLocation
    :parameters (?a - agent ?from - location ?to - location ?r - receptacle)
    :precondition (and (atLocation ?a ?from) (receptacleAtLocation ?r ?to) (not (atLocation ?a ?to)))
    :effect (and (not (atLocation ?a ?from)) (atLocation ?a ?to)))

  (:action OpenObject
    :parameters (?a - agent ?l - location ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (openable ?r) (not (opened ?r)))
    :effect (and (opened ?r)))

  (:action CloseObject
    :parameters (?a - agent ?l - location ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (openable ?r) (opened ?r))
    :effect (and (not (opened ?r))))

  (:action PickupObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (inReceptacle ?o ?r) (pickupable ?o)
      (not (holdsAny ?a)) (or (not (openable ?r)) (opened ?r)))
    :effect (and (holds ?a ?o) (holdsAny ?a) (not (inReceptacle ?o ?r)) (not (objectAtLocation ?o ?l))))

  (:action PutObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle ?u - otype ?t - rtype)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (holds ?a ?o) (objectType ?o ?u)
      (receptacleType ?r ?t) (canContain ?t ?u) (or (not (openable ?r)) (opened ?r)))
    :effect (and (inReceptacle ?o ?r) (objectAtLocation ?o ?l) (not (holds ?a ?o)) (not (holdsAny ?a))))

  (:action CleanObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle ?t - rtype)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (receptacleType ?r ?t) (washes ?t)
      (holds ?a ?o) (cleanable ?o))
    :effect (and (isClean ?o)))

  (:action HeatObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle ?t - rtype)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (receptacleType ?r ?t) (heats ?t)
      (holds ?a ?o) (heatable ?o))
    :effect (and (isHot ?o) (not (isCool ?o))))

  (:action CoolObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle ?t - rtype)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (receptacleType ?r ?t) (cools ?t)
      (holds ?a ?o) (coolable ?o))
    :effect (and (isCool ?o) (not (isHot ?o))))

  (:action SliceObject
    :parameters (?a - agent ?l - location ?o - object ?knife - object ?u - otype)
    :precondition (and (atLocation ?a ?l) (objectAtLocation ?o ?l) (sliceable ?o) (holds ?a ?knife)
      (objectType ?knife ?u) (cuts ?u))
    :effect (and (isSliced ?o)))

  (:action ToggleObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (inReceptacle ?o ?r) (toggleable ?o))
    :effect (and (isToggled ?o)))

  (:action look
    :parameters (?a - agent ?l - location)
    :precondition (and (atLocation ?a ?l))
    :effect (and (looked ?a)))

  (:action inventory
    :parameters (?a - agent)
    :precondition ()
    :effect (and (looked ?a)))

  (:action examineReceptacle
    :parameters (?a - agent ?l - location ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l))
    :effect (and (looked ?a)))

  (:action examineObject
    :parameters (?a - agent ?o - object)
    :precondition (and (holds ?a ?o))
    :effect (and (looked ?a)))

  (:action help
    :parameters (?a - agent)
    :precondition ()
    :effect (and (looked ?a)))
)
"""

_LISTED = "{o.indefinite + ' ' + o.name | %s}"
_INSIDE = f"[{_LISTED % 'inreceptacle(o:object, r:receptacle)'}]"
_FACING = "atlocation(a:agent, l:location) & receptacleatlocation(r:receptacle, l:location)"
_BESIDE = f"{_FACING} & objectatlocation(o:object, l:location) & not_inreceptacle(o:object, r:receptacle)"

# What each action of DOMAIN is called by, and the rules for what it prints: (condition, text), the first
# whose condition holds. "" always holds; {..} is filled in, [..] is a list, #..# another rule.
Rules = tuple[tuple[str, str], ...]
_ACTIONS: dict[str, tuple[str, Rules]] = {
    "GotoLocation": ("go to {r}", (("", "You arrive at {r.name}. #inside#"),)),
    "OpenObject": ("open {r}", (("", "You open the {r.name}. #inside#"),)),
    "CloseObject": ("close {r}", (("", "You close the {r.name}."),)),
    "PickupObject": ("take {o} from {r}", (("", "You pick up the {o.name} from the {r.name}."),)),
    "PutObject": ("move {o} to {r}", (("", "You move the {o.name} to the {r.name}."),)),
    "CleanObject": ("clean {o} with {r}", (("", "You clean the {o.name} using the {r.name}."),)),
    "HeatObject": ("heat {o} with {r}", (("", "You heat the {o.name} using the {r.name}."),)),
    "CoolObject": ("cool {o} with {r}", (("", "You cool the {o.name} using the {r.name}."),)),
    "SliceObject": ("slice {o} with {knife}", (("", "You sliced the {o.name} with the {knife.name}."),)),
    "ToggleObject": ("use {o}", (("", "You turn on the {o.name}."),)),
    "look": (
        "look",
        (
            (_FACING, f"You are facing the [{{r.name | {_FACING}}}]. Next to it, you see #beside#."),
            ("", "You are in the middle of a room. Looking quickly around you, you see #around#."),
        ),
    ),
    "inventory": (
        "inventory",
        (
            ("holdsany(a:agent)", f"You are carrying: [{_LISTED % 'holds(a:agent, o:object)'}]."),
            ("", "You are not carrying anything."),
        ),
    ),
    "examineReceptacle": ("examine {r}", (("", "#inside#"),)),
    "examineObject": ("examine {o}", (("", "#object#"),)),
    "help": ("help", (("", HELP),)),
}
_PARTS: dict[str, Rules] = {
    "intro": (("", f"{WELCOME}\n\n#look.said#\n\n#task#"),),
    "inside": (
        (
            "openable(r:receptacle) & opened(r:receptacle)",
            f"The {{r.name}} is open. In it, you see {_INSIDE}.",
        ),
        ("openable(r:receptacle)", "The {r.name} is closed."),
        ("", f"On the {{r.name}}, you see {_INSIDE}."),
    ),
    "beside": ((_BESIDE, f"[{_LISTED % _BESIDE}]"), ("", "nothing")),
    "around": (("", "[{r.indefinite + ' ' + r.name | receptacleatlocation(r:receptacle, l:location)}]"),),
    "list_empty": (("", "nothing"),),
    "list_separator": (("", ", "),),
    "list_last_separator": (("", ", and "),),
}


def _object_rules() -> Iterator[tuple[str, str]]:
    """What is seen of an object in the hand."""
    yield (
        "isreceptacleobject(o:object)",
        "This is a normal {o.name}. In it, you see "
        "[{i.indefinite + ' ' + i.name | inreceptacleobject(i:object, o:object)}].",
    )
    for clean, heat, sliced in product(("clean", ""), ("hot", "cool", ""), ("sliced", "")):
        if not clean and not heat:
            continue
        facts = [f"is{word}(o:object)" for word in (clean, heat, sliced) if word]
        seen = " and ".join(word for word in (heat, clean) if word)
        if seen == "cool" and not sliced:
            seen = "cold"
        yield " & ".join(facts), f"This is a {seen}{' sliced' if sliced else ''} {{o.name}}."
    yield "toggleable(o:object) & istoggled(o:object)", "This {o.name} is on."
    yield "sliceable(o:object) & issliced(o:object)", "This is a sliced {o.name}."
    yield "", "There's nothing special about {o.name}."


def grammar(task: str) -> str:
    """The texts of a game as the real engine reads them; ``task`` is the sentence "Your task is to: ..."."""
    rules = {"task": (("", task),), **_PARTS, "object": tuple(_object_rules())}
    rules |= {f"{action}.said": said for action, (_, said) in _ACTIONS.items()}
    written = {
        name: [
            {"condition": condition, "rhs": text} if condition else {"rhs": text} for condition, text in rule
        ]
        for name, rule in rules.items()
    }
    parts = [f'grammar :: """\n{json.dumps(written, indent=1)}\n""";']
    parts += [
        f'action {action} {{\n  template :: "{template}";\n  feedback :: "#{action}.said#";\n}}'
        for action, (template, _) in _ACTIONS.items()
    ]
    return "\n\n".join(parts) + "\n"
