"""Text to token ids and back: tokenizers, chat templates, control tokens, guided answers."""
