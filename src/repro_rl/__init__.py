"""RePro: retrospective progress-aware training of LLM agents (arXiv 2606.14302).

The public names are those of ``__init__.pyi``. Each is imported when it is first used, so that ``import
repro_rl`` is fast and does not need torch. docs/library.md explains the parts with examples.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
