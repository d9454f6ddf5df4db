"""Demonstrations: expert and failing episodes with progress labels."""

from repro_rl.demos.annotation import AnnotationContext, BatchAnnotator
from repro_rl.demos.annotators import ANNOTATORS, register_annotator
from repro_rl.demos.collect import CollectHooks, collect_demos
from repro_rl.demos.store import load_demos, save_demos

__all__ = [
    "ANNOTATORS",
    "AnnotationContext",
    "BatchAnnotator",
    "CollectHooks",
    "collect_demos",
    "load_demos",
    "register_annotator",
    "save_demos",
]
