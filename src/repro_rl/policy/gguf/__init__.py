"""Models in GGUF files, llama.cpp's format: converted once into an ordinary Hugging Face folder."""

from repro_rl.policy.gguf.cache import cached_folder, is_gguf, model_folder
from repro_rl.policy.gguf.convert import ORIGIN_FILE, convert_gguf, is_converted, read_config, text_of

__all__ = [
    "ORIGIN_FILE",
    "cached_folder",
    "convert_gguf",
    "is_converted",
    "is_gguf",
    "model_folder",
    "read_config",
    "text_of",
]
