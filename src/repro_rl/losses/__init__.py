"""Policy losses on sampled tokens. The settings need no torch; the losses themselves import it when used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
