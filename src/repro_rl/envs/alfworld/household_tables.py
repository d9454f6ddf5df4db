"""What the generated households are made of: rooms, furniture and objects. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Furniture:
    """A receptacle type."""

    low: int  # height above the floor in cm, from
    high: int  # to
    openable: bool = False
    together: int = 0  # percent that stand where the one before of this type stands
    single: bool = False  # holds one object at the start


@dataclass(slots=True, frozen=True)
class Task:
    """An official task type; {o} and {r} stand for the types of what is asked for."""

    sentences: tuple[str, str]  # in lower case
    goal: str  # PDDL
    verb: str = ""  # what has to be done to the object


@dataclass(slots=True, frozen=True)
class Room:
    """A kind of room. Counts are (least, most)."""

    base: int  # room numbers are base + 1 .. base + 99
    furniture: dict[str, tuple[int, int]]
    objects: dict[str, tuple[int, int]]
    fixtures: dict[str, tuple[int, int]]  # cannot be taken and lie in no receptacle


_IN = "(objectType ?o {o}Type) (receptacleType ?r {r}Type) (inReceptacle ?o ?r)"
_LIT = "(objectType ?lamp {r}Type) (toggleable ?lamp) (isToggled ?lamp)"
_THERE = "(receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?lamp ?r)"
_SOME = "(exists (?r - receptacle) (exists (?o - object) (and "
TASKS = {
    "pick_and_place_simple": Task(("put a {o} in {r}.", "put some {o} on {r}."), f"{_SOME}{_IN})))"),
    "look_at_obj_in_light": Task(
        ("look at {o} under the {r}.", "examine the {o} with the {r}."),
        "(exists (?lamp - object ?r - receptacle ?a - agent ?l - location) "
        f"(and {_LIT} {_THERE}))\n    "
        "(exists (?o - object ?a - agent) (and (objectType ?o {o}Type) (holds ?a ?o)))",
    ),
    "pick_clean_then_place_in_recep": Task(
        ("put a clean {o} in {r}.", "clean some {o} and put it in {r}."),
        f"{_SOME}{_IN} (cleanable ?o) (isClean ?o))))",
        "clean",
    ),
    "pick_heat_then_place_in_recep": Task(
        ("put a hot {o} in {r}.", "heat some {o} and put it in {r}."),
        f"{_SOME}{_IN} (heatable ?o) (isHot ?o))))",
        "heat",
    ),
    "pick_cool_then_place_in_recep": Task(
        ("put a cool {o} in {r}.", "cool some {o} and put it in {r}."),
        f"{_SOME}{_IN} (coolable ?o) (isCool ?o))))",
        "cool",
    ),
    "pick_two_obj_and_place": Task(
        ("put two {o} in {r}.", "find two {o} and put them in {r}."),
        f"{_SOME}{_IN} (exists (?p - object) (and (not (= ?o ?p)) {_IN.replace('?o', '?p')})))))",
    ),
}

FURNITURE = {
    "ArmChair": Furniture(0, 10),
    "BathtubBasin": Furniture(5, 15),
    "Bed": Furniture(0, 5),
    "Cabinet": Furniture(35, 215, openable=True, together=25),
    "Cart": Furniture(20, 60),
    "CoffeeMachine": Furniture(90, 100, single=True),
    "CoffeeTable": Furniture(30, 45),
    "CounterTop": Furniture(92, 106),
    "Desk": Furniture(70, 82),
    "DiningTable": Furniture(66, 80),
    "Drawer": Furniture(20, 85, openable=True, together=40),
    "Dresser": Furniture(60, 95),
    "Fridge": Furniture(0, 2, openable=True),
    "GarbageCan": Furniture(0, 4),
    "HandTowelHolder": Furniture(140, 160, single=True),
    "LaundryHamper": Furniture(0, 3),
    "Microwave": Furniture(95, 145, openable=True),
    "Ottoman": Furniture(0, 20),
    "Safe": Furniture(0, 60, openable=True),
    "Shelf": Furniture(40, 190, together=50),
    "SideTable": Furniture(40, 72),
    "SinkBasin": Furniture(75, 92),
    "Sofa": Furniture(0, 12),
    "StoveBurner": Furniture(92, 98, together=85, single=True),
    "TVStand": Furniture(30, 60),
    "Toaster": Furniture(92, 104),
    "Toilet": Furniture(0, 6),
    "ToiletPaperHanger": Furniture(60, 95, single=True),
    "TowelHolder": Furniture(110, 150, single=True),
}
BASINS = {"SinkBasin": "Sink", "BathtubBasin": "Bathtub"}  # the basin is a part of the named fixture

ROOMS = {
    "kitchen": Room(
        base=0,
        furniture={
            "Cabinet": (4, 9),
            "CoffeeMachine": (1, 1),
            "CounterTop": (1, 3),
            "DiningTable": (0, 1),
            "Drawer": (2, 6),
            "Fridge": (1, 1),
            "GarbageCan": (1, 1),
            "Microwave": (1, 1),
            "Shelf": (0, 2),
            "SideTable": (0, 1),
            "SinkBasin": (1, 1),
            "StoveBurner": (2, 4),
            "Toaster": (1, 1),
        },
        objects={
            "Apple": (0, 2),
            "Bowl": (0, 2),
            "Bread": (0, 2),
            "ButterKnife": (0, 2),
            "Cup": (0, 2),
            "DishSponge": (1, 2),
            "Egg": (0, 2),
            "Fork": (0, 2),
            "Glassbottle": (0, 1),
            "HousePlant": (0, 1),
            "Kettle": (0, 1),
            "Knife": (0, 2),
            "Ladle": (0, 1),
            "Lettuce": (0, 2),
            "Mug": (0, 3),
            "Pan": (0, 2),
            "PaperTowelRoll": (0, 1),
            "PepperShaker": (0, 2),
            "Plate": (0, 3),
            "Pot": (0, 2),
            "Potato": (0, 2),
            "SaltShaker": (0, 2),
            "SoapBottle": (0, 2),
            "Spatula": (0, 2),
            "Spoon": (0, 2),
            "Statue": (0, 1),
            "Tomato": (0, 2),
            "Vase": (0, 1),
            "WineBottle": (0, 1),
        },
        fixtures={
            "Chair": (0, 2),
            "Faucet": (1, 1),
            "LightSwitch": (1, 1),
            "StoveKnob": (2, 4),
            "Window": (1, 2),
        },
    ),
    "living room": Room(
        base=200,
        furniture={
            "ArmChair": (1, 2),
            "Cabinet": (0, 2),
            "CoffeeTable": (1, 1),
            "DiningTable": (0, 1),
            "Drawer": (2, 6),
            "Dresser": (0, 1),
            "GarbageCan": (1, 1),
            "Ottoman": (0, 1),
            "Shelf": (1, 5),
            "SideTable": (1, 2),
            "Sofa": (1, 2),
            "TVStand": (0, 1),
        },
        objects={
            "Book": (0, 3),
            "Box": (1, 2),
            "Candle": (0, 1),
            "CellPhone": (0, 1),
            "CreditCard": (1, 3),
            "DeskLamp": (0, 1),
            "HousePlant": (0, 2),
            "KeyChain": (1, 3),
            "Laptop": (0, 2),
            "Newspaper": (0, 2),
            "Pen": (0, 2),
            "Pencil": (0, 2),
            "Pillow": (1, 3),
            "Plate": (0, 1),
            "RemoteControl": (1, 3),
            "Statue": (0, 2),
            "TissueBox": (0, 2),
            "Vase": (0, 3),
            "Watch": (0, 2),
            "WateringCan": (0, 1),
        },
        fixtures={
            "Curtains": (0, 2),
            "FloorLamp": (0, 1),
            "LightSwitch": (1, 1),
            "Painting": (1, 3),
            "Television": (1, 1),
            "Window": (1, 2),
        },
    ),
    "bedroom": Room(
        base=300,
        furniture={
            "ArmChair": (0, 1),
            "Bed": (1, 2),
            "Cabinet": (0, 2),
            "Desk": (1, 1),
            "Drawer": (3, 8),
            "Dresser": (0, 1),
            "GarbageCan": (1, 1),
            "LaundryHamper": (0, 1),
            "Safe": (0, 1),
            "Shelf": (1, 4),
            "SideTable": (1, 2),
        },
        objects={
            "AlarmClock": (1, 2),
            "BaseballBat": (0, 1),
            "BasketBall": (0, 1),
            "Book": (1, 3),
            "Bowl": (0, 1),
            "Box": (0, 1),
            "CD": (1, 3),
            "CellPhone": (1, 3),
            "Cloth": (0, 2),
            "CreditCard": (0, 3),
            "DeskLamp": (0, 1),
            "KeyChain": (0, 3),
            "Laptop": (1, 2),
            "Mug": (0, 2),
            "Pen": (0, 3),
            "Pencil": (0, 3),
            "Pillow": (1, 2),
            "Statue": (0, 1),
            "TeddyBear": (0, 1),
            "TennisRacket": (0, 1),
            "TissueBox": (0, 1),
            "Vase": (0, 1),
        },
        fixtures={
            "Blinds": (0, 2),
            "Chair": (1, 1),
            "LightSwitch": (1, 1),
            "Mirror": (0, 1),
            "Painting": (0, 2),
            "Window": (1, 2),
        },
    ),
    "bathroom": Room(
        base=400,
        furniture={
            "BathtubBasin": (0, 1),
            "Cabinet": (1, 4),
            "Cart": (0, 1),
            "CounterTop": (1, 1),
            "Drawer": (0, 4),
            "GarbageCan": (1, 1),
            "HandTowelHolder": (1, 2),
            "Shelf": (0, 2),
            "SideTable": (0, 1),
            "SinkBasin": (1, 2),
            "Toilet": (1, 1),
            "ToiletPaperHanger": (1, 1),
            "TowelHolder": (1, 2),
        },
        objects={
            "Candle": (1, 3),
            "Cloth": (1, 3),
            "DishSponge": (0, 2),
            "HandTowel": (1, 2),
            "Plunger": (1, 1),
            "ScrubBrush": (1, 1),
            "SoapBar": (1, 3),
            "SoapBottle": (1, 3),
            "SprayBottle": (1, 3),
            "TissueBox": (0, 2),
            "ToiletPaper": (2, 4),
            "Towel": (1, 1),
        },
        fixtures={
            "Faucet": (1, 2),
            "LightSwitch": (1, 1),
            "Mirror": (1, 1),
            "ShowerDoor": (0, 1),
            "ShowerGlass": (0, 1),
            "Window": (0, 1),
        },
    ),
}

# Where an object is found at the start. It can be put back there too.
HOMES = {
    "AlarmClock": "Desk Dresser Shelf SideTable",
    "Apple": "CounterTop DiningTable Fridge GarbageCan Microwave SideTable SinkBasin",
    "BaseballBat": "Bed",
    "BasketBall": "Bed Desk",
    "Book": "Bed Cabinet CoffeeTable Desk Drawer Dresser Shelf SideTable Sofa",
    "Bowl": "Cabinet CounterTop Desk DiningTable Fridge Shelf",
    "Box": "CoffeeTable DiningTable Dresser Ottoman SideTable Sofa",
    "Bread": "CounterTop DiningTable Fridge",
    "ButterKnife": "CounterTop DiningTable Drawer SinkBasin",
    "CD": "Desk Drawer Dresser GarbageCan Safe Shelf SideTable",
    "Candle": "Cabinet CoffeeTable CounterTop Shelf SideTable Toilet",
    "CellPhone": "Bed Desk Drawer Dresser SideTable Sofa",
    "Cloth": "BathtubBasin Cabinet Cart CounterTop Drawer LaundryHamper SinkBasin",
    "CreditCard": "ArmChair CoffeeTable Desk Drawer Dresser Shelf SideTable",
    "Cup": "Cabinet CounterTop DiningTable Fridge Microwave SinkBasin",
    "DeskLamp": "Desk Dresser SideTable",
    "DishSponge": "Cabinet Cart CounterTop DiningTable Drawer SinkBasin",
    "Egg": "CounterTop DiningTable Fridge GarbageCan Microwave SinkBasin",
    "Fork": "CounterTop DiningTable Drawer SinkBasin",
    "Glassbottle": "Cabinet CounterTop DiningTable Fridge",
    "HandTowel": "HandTowelHolder",
    "HousePlant": "CoffeeTable CounterTop Desk DiningTable Shelf SideTable",
    "Kettle": "Cabinet CounterTop StoveBurner",
    "KeyChain": "ArmChair CoffeeTable Desk Drawer Dresser Safe SideTable Sofa",
    "Knife": "CounterTop DiningTable Drawer",
    "Ladle": "Cabinet CounterTop Drawer",
    "Laptop": "ArmChair Bed CoffeeTable Desk DiningTable Sofa",
    "Lettuce": "CounterTop DiningTable Fridge SinkBasin",
    "Mug": "Cabinet CoffeeMachine CounterTop Desk DiningTable Fridge SinkBasin",
    "Newspaper": "ArmChair CoffeeTable Drawer Ottoman Shelf Sofa",
    "Pan": "Cabinet CounterTop Fridge StoveBurner",
    "PaperTowelRoll": "CounterTop DiningTable GarbageCan Shelf",
    "Pen": "CoffeeTable Desk Drawer Dresser GarbageCan SideTable",
    "Pencil": "CoffeeTable Desk Drawer Dresser Shelf SideTable",
    "PepperShaker": "Cabinet CounterTop DiningTable Drawer Shelf",
    "Pillow": "ArmChair Bed Ottoman Sofa",
    "Plate": "Cabinet CoffeeTable CounterTop DiningTable Fridge Shelf",
    "Plunger": "Cabinet Cart",
    "Pot": "CounterTop DiningTable Fridge StoveBurner",
    "Potato": "CounterTop DiningTable Fridge GarbageCan Microwave SinkBasin",
    "RemoteControl": "ArmChair CoffeeTable Drawer SideTable Sofa TVStand",
    "SaltShaker": "Cabinet CounterTop DiningTable Drawer SideTable",
    "ScrubBrush": "Cabinet Toilet",
    "SoapBar": "BathtubBasin Cabinet CounterTop Drawer GarbageCan SinkBasin Toilet",
    "SoapBottle": "Cabinet CounterTop Drawer GarbageCan Shelf Toilet",
    "Spatula": "CounterTop DiningTable Drawer SinkBasin",
    "Spoon": "CounterTop DiningTable Drawer SinkBasin",
    "SprayBottle": "Cabinet Cart CounterTop Drawer GarbageCan Toilet",
    "Statue": "CoffeeTable CounterTop Dresser Shelf SideTable TVStand",
    "TeddyBear": "Bed",
    "TennisRacket": "Bed Desk",
    "TissueBox": "CoffeeTable CounterTop Desk Dresser Shelf SideTable",
    "ToiletPaper": "Cabinet CounterTop Drawer Shelf Toilet ToiletPaperHanger",
    "Tomato": "CounterTop DiningTable Fridge GarbageCan Microwave SinkBasin",
    "Towel": "TowelHolder",
    "Vase": "Cabinet CoffeeTable CounterTop Desk Shelf SideTable TVStand",
    "Watch": "CoffeeTable Drawer Dresser Shelf SideTable TVStand",
    "WateringCan": "CoffeeTable Drawer SideTable",
    "WineBottle": "Cabinet CounterTop DiningTable Fridge GarbageCan",
}

# What else can be put into a receptacle, beyond what is found there.
ALSO_FITS = {
    "ArmChair": "Book Box CellPhone",
    "BathtubBasin": "DishSponge HandTowel",
    "Bed": "CreditCard Newspaper",
    "Cabinet": "Box CD HandTowel Newspaper Pot TissueBox",
    "Cart": "Candle HandTowel SoapBar SoapBottle TissueBox ToiletPaper",
    "CoffeeTable": "Bowl CellPhone",
    "CounterTop": "Book HandTowel",
    "Desk": "Box Cloth RemoteControl Watch",
    "DiningTable": "Book CreditCard KeyChain Kettle Ladle Newspaper Pan Pen Pencil RemoteControl Vase Watch",
    "Drawer": "Candle HandTowel TissueBox",
    "Dresser": "BasketBall Bowl Cloth Laptop Mug RemoteControl Vase",
    "GarbageCan": "Bread Cloth DishSponge Lettuce Newspaper Pencil TissueBox ToiletPaper",
    "Microwave": "Bowl Bread Mug Plate",
    "Ottoman": "CreditCard KeyChain Laptop RemoteControl",
    "Safe": "CellPhone CreditCard Watch",
    "Shelf": "Box CellPhone Cloth Cup DishSponge Kettle KeyChain Mug Pen RemoteControl SaltShaker "
    "SoapBar SprayBottle WateringCan WineBottle",
    "SideTable": "Bowl Bread Cloth Cup Egg Fork Knife Laptop Lettuce Mug Newspaper PepperShaker Plate "
    "Potato SoapBar SoapBottle Spoon SprayBottle Tomato ToiletPaper",
    "SinkBasin": "Bowl HandTowel Kettle Knife Ladle Pan Plate Pot",
    "Sofa": "CreditCard",
    "TVStand": "TissueBox",
    "Toilet": "Cloth DishSponge HandTowel TissueBox",
}

FIXED = frozenset({"DeskLamp", "HousePlant"})  # lie in a receptacle but cannot be taken
LAMP = "DeskLamp"
PROPERTIES = {
    "cleanable": "Apple Bowl ButterKnife Cloth Cup DishSponge Egg Fork Kettle Knife Ladle Lettuce Mug Pan "
    "Plate Pot Potato SoapBar Spatula Spoon Tomato",
    "heatable": "Apple Bread Cup Egg Mug Plate Potato Tomato",
    "coolable": "Apple Bowl Bread Cup Egg Lettuce Mug Pan Plate Pot Potato Tomato WineBottle",
    "sliceable": "Apple Bread Egg Lettuce Potato Tomato",
    "toggleable": "DeskLamp FloorLamp",
    "isReceptacleObject": "Bowl Box Cup Mug Pan Plate Pot",
}
NEVER_GOALS = frozenset({"Plunger", "ScrubBrush", "TeddyBear", "Towel"})

# Types that every problem declares, present or not, and the facts about them that DOMAIN asks for.
OTYPES = frozenset({"ButterKnifeType", "KnifeType", "SinkType"})
RTYPES = frozenset({"FridgeType", "MicrowaveType", "SinkBasinType"})
TYPE_FACTS = (
    "washes SinkBasinType",
    "heats MicrowaveType",
    "cools FridgeType",
    "cuts KnifeType",
    "cuts ButterKnifeType",
)
