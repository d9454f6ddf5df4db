"""A small ALFWorld game for tests."""

from __future__ import annotations

from repro_rl.envs.alfworld.game import Game, game_from

KITCHEN = """
(define (problem hand_made) (:domain alfred)
(:objects agent1 - agent)  ; a comment
(:init
  (receptacleType Cabinet_bar__minus_01_bar_a CabinetType)
  (receptacleType Cabinet_bar__plus_01_bar_a CabinetType)
  (receptacleType Fridge_bar_1 FridgeType) (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType)
  (receptacleType DiningTable_bar_1 DiningTableType)
  (receptacleAtLocation Cabinet_bar__minus_01_bar_a loc_bar_1)
  (receptacleAtLocation Cabinet_bar__plus_01_bar_a loc_bar_2)
  (receptacleAtLocation Fridge_bar_1 loc_bar_3) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_2)
  (receptacleAtLocation DiningTable_bar_1 loc_bar_4)
  (openable Cabinet_bar__minus_01_bar_a) (openable Cabinet_bar__plus_01_bar_a) (openable Fridge_bar_1)
  (atLocation agent1 loc_bar_0)
  (objectType Apple_bar_1 AppleType) (objectType Apple_bar_2 AppleType) (objectType Knife_bar_1 KnifeType)
  (objectType Bowl_bar_1 BowlType) (objectType Window_bar_1 WindowType)
  (inReceptacle Apple_bar_1 DiningTable_bar_1) (inReceptacle Apple_bar_2 Cabinet_bar__minus_01_bar_a)
  (inReceptacle Knife_bar_1 DiningTable_bar_1) (inReceptacle Bowl_bar_1 DiningTable_bar_1)
  (objectAtLocation Apple_bar_1 loc_bar_4) (objectAtLocation Knife_bar_1 loc_bar_4)
  (inReceptacleObject Apple_bar_1 Bowl_bar_1) (isReceptacleObject Bowl_bar_1)
  (pickupable Apple_bar_1) (pickupable Apple_bar_2) (pickupable Knife_bar_1) (pickupable Bowl_bar_1)
  (coolable Apple_bar_1) (coolable Apple_bar_2) (cleanable Apple_bar_1) (sliceable Apple_bar_1)
  (canContain FridgeType AppleType) (canContain CabinetType AppleType) (canContain DiningTableType AppleType)
  (canContain DiningTableType KnifeType) (canContain SinkBasinType AppleType) (distance loc_bar_1 loc_bar_2 7)
  (wasInReceptacle Apple_bar_1 Fridge_bar_1)
)
(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (coolable ?o) (objectType ?o AppleType)
  (receptacleType ?r CabinetType) (isCool ?o) (inReceptacle ?o ?r)))))))
"""


GRAMMAR = '{"task": [{"rhs": "Your task is to: put a cool apple in cabinet."}]}'


def kitchen(**changes: str) -> Game:
    problem = KITCHEN
    for old, new in changes.items():
        problem = problem.replace(old, new)
    return game_from({"pddl_problem": problem, "grammar": GRAMMAR}, "kitchen")
